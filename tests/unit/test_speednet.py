"""speednet: its whitening, and what of it is set without a generator."""

import torch

from helpers.images import drawn
from relearn.data import to_float
from relearn.training import models


def images(count: int = 64) -> torch.Tensor:
    """Smooth random images: neighbouring pixels are alike, as in photographs."""
    small = torch.rand(count, 3, 8, 8, generator=drawn(3))
    large = torch.nn.functional.interpolate(small, size=(32, 32), mode="bilinear")
    return (255 * large).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def built(found: torch.Tensor, seed: int = 0, **more) -> models.Normalised:
    how = {"classes": 10, "generator": drawn(seed), "device": "cpu"}
    return models.build("speednet", {"width": 8}, images=found, **how | more)


def whitened(model: models.Normalised, x: torch.Tensor) -> torch.Tensor:
    """What the whitening gives for every patch, before ReLU: (patches, 12), of the filters that are no negatives."""
    out = model.network.get_submodule("whitening")[0]((x - model.mean) / model.std)
    assert torch.allclose(out[:, :12], -out[:, 12:], atol=1e-5)
    return out[:, :12].permute(0, 2, 3, 1).reshape(-1, 12)


def test_whitening_gives_directions_of_equal_size_that_are_not_correlated():
    found = images()
    patches = whitened(built(found), to_float(found)).double()
    covariance = patches.T @ patches / len(patches)
    assert torch.allclose(covariance, torch.diag(covariance.diagonal()), atol=1e-3)
    # one, or less where the variance is not far above the constant that is added
    assert covariance.diagonal().max() < 1.01 and covariance.diagonal().min() > 0.1


def test_whitening_is_of_the_images_as_the_network_gets_them():
    found = images()
    halved = built(found, size=(16, 16), transform=lambda x: torch.nn.functional.avg_pool2d(x, 2))
    plain = built(found)
    name = "network.whitening.0.weight"
    assert not torch.equal(halved.state_dict()[name], plain.state_dict()[name])
    patches = whitened(halved, torch.nn.functional.avg_pool2d(to_float(found), 2)).double()
    assert (patches.T @ patches / len(patches)).diagonal().max() < 1.01


def test_whitening_stays_frozen():
    found = images(20)
    model = built(found)
    weight = model.network.get_submodule("whitening")[0].weight
    model(to_float(found)).sum().backward()
    assert not weight.requires_grad and weight.grad is None


def test_rebuilt_network_is_the_same():
    found = images(20)
    model = built(found)
    again = models.rebuild("speednet", {"width": 8}, models.weights(model), classes=10, size=(32, 32), device="cpu")
    assert torch.equal(model.eval()(to_float(found)), again.eval()(to_float(found)))
    assert not again.network.get_submodule("whitening")[0].weight.requires_grad
