"""What holds for every architecture."""

import pytest
import torch

from helpers.compare import same, stir
from helpers.registered import cheap, named
from relearn.errors import UserError
from relearn.training import models


@named("architectures")
@pytest.mark.parametrize("size", [(32, 32), (40, 32)])
def test_architectures(name, size):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (6, *size, 3), generator=generator, dtype=torch.uint8)
    model = models.build(
        name, cheap("architectures", name), images=images, classes=7, generator=generator, device="cpu"
    )
    scores = model(images.permute(0, 3, 1, 2).float() / 255)
    assert scores.shape == (6, 7) and scores.isfinite().all()
    groups = model.layer_groups()
    assert len(groups) >= 3  # PST slows some and keeps some
    parts = [id(p) for group in groups.values() for p in group.parameters()]
    assert parts == [id(p) for p in model.parameters()]  # all, once, shallow to deep
    scores.square().sum().backward()
    learning = [(label, parameter) for label, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(learning) > len(groups)
    for label, parameter in learning:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), label
        assert parameter.ndim == 1 or parameter.grad.abs().sum() > 0, label


@named("architectures")
def test_architectures_call_their_groups_in_order(name):
    """ACM is measured on the groups' outputs, and PST freezes from the front: the forward pass sets the order."""
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    model = models.build(
        name, cheap("architectures", name), images=images, classes=4, generator=torch.Generator(), device="cpu"
    )
    called = []
    for label, group in model.layer_groups().items():
        group.register_forward_hook(lambda *_, label=label: called.append(label))
    model(torch.zeros(2, 3, 32, 32))
    assert called == list(model.layer_groups())


@named("architectures")
def test_architectures_take_all_weights_from_the_generator(name):
    images = torch.randint(0, 256, (4, 32, 32, 3), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)

    def built(seed: int) -> models.Normalised:
        generator = torch.Generator().manual_seed(seed)
        return models.build(
            name, cheap("architectures", name), images=images, classes=5, generator=generator, device="cpu"
        )

    stir(1)
    one = models.weights(built(0))
    stir(2)
    before = torch.random.get_rng_state()
    assert same(one, models.weights(built(0)))
    assert torch.equal(torch.random.get_rng_state(), before)
    other = models.weights(built(1))
    # what is frozen from the start was computed from the images
    learning = {key for key, parameter in built(0).named_parameters() if parameter.requires_grad}
    drawn = [key for key, tensor in one.items() if tensor.ndim > 1 and key in learning]
    drawn = [key for key in drawn if not key.endswith("layer_scale")]  # begins at a constant; a vector, (C, 1, 1)
    assert drawn and not any(torch.equal(one[key], other[key]) for key in drawn)


@named("architectures")
def test_architectures_refuse_images_that_are_too_small(name):
    images = torch.zeros(1, 2, 32, 3, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"2x32"):
        models.build(
            name, cheap("architectures", name), images=images, classes=2, generator=torch.Generator(), device="cpu"
        )


@named("architectures")
def test_architectures_are_rebuilt_from_their_weights(name):
    images = torch.randint(0, 256, (4, 32, 32, 3), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    own, generator = cheap("architectures", name), torch.Generator().manual_seed(6)
    model = models.build(name, own, images=images, classes=5, generator=generator, device="cpu").eval()
    copy = models.rebuild(name, own, models.weights(model), classes=5, size=(32, 32), device="cpu").eval()
    x = images.permute(0, 3, 1, 2).float() / 255
    assert torch.equal(model(x), copy(x))
    with pytest.raises(UserError, match=f"not of {name}"):
        models.rebuild(name, own, models.weights(model), classes=6, size=(32, 32), device="cpu")
