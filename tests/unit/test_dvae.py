"""The disentangling autoencoder and the purification that trains it."""

import math

import pytest
import torch

from helpers.images import drawn, noise
from relearn.crafting.craft import CraftContext
from relearn.crafting.disentangling import Disentangling, Explained, loss
from relearn.data import split, to_float
from relearn.errors import UserError
from relearn.purifications.dvae import dvae
from relearn.runtime.seeding import Seeds
from relearn.training.divergence import DivergedError

SMALL = {"width": 8, "latent": 8}


def context(classes: int = 4) -> CraftContext:
    return CraftContext("test", Seeds("test"), "cpu", classes)


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_explained_images_have_the_size_of_images(size, spatial):
    model = Disentangling(4, size, **SMALL, spatial=spatial, generator=drawn())
    x, y = to_float(noise(5, *size)), torch.tensor([0, 1, 2, 3, 0])
    found = model(x, y, drawn(1))
    assert found.image.shape == found.perturbation.shape == x.shape
    # it begins with a code that says nothing, a gray image and no perturbation
    assert found.rate == 0 and (found.image == 0.5).all() and (found.perturbation == 0).all()


def test_only_the_perturbation_sees_the_class():
    model = Disentangling(4, (8, 8), **SMALL, spatial=False, generator=drawn())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=drawn(5))
    x = to_float(noise(1, 8, 8)).expand(2, -1, -1, -1)
    found = model(x, torch.tensor([0, 3]))
    assert torch.allclose(found.image[0], found.image[1], atol=1e-6)
    assert (found.perturbation[0] - found.perturbation[1]).abs().max() > 0.01
    assert torch.equal(model(x, torch.tensor([0, 3])).image, found.image)  # the mean of the code is no draw
    assert not torch.equal(model(x, torch.tensor([0, 3]), drawn(1)).image, found.image)


def test_the_rate_is_that_of_torch():
    model = Disentangling(4, (8, 8), **SMALL, spatial=False, generator=drawn())
    torch.nn.init.normal_(model.encoder[-1].weight, std=0.1, generator=drawn(5))
    x, y = to_float(noise(3, 8, 8)), torch.tensor([0, 1, 2])
    mean, log_variance = model.encoder(x - 0.5).chunk(2, 1)
    code = torch.distributions.Normal(mean, (log_variance / 2).exp())
    divergence = torch.distributions.kl_divergence(code, torch.distributions.Normal(0.0, 1.0))  # (3, 8, 4, 4)
    assert torch.allclose(model(x, y).rate, divergence.sum() / (3 * 4 * 4), rtol=1e-5)


def test_loss():
    x = torch.full((1, 3, 2, 2), 0.5)
    found = Explained(torch.full_like(x, 0.9), torch.full_like(x, 0.3), torch.tensor(2.0, requires_grad=True))
    errors = 0.4**2 + 0.5**2  # the sum is cut off at 1
    assert math.isclose(loss(found, x, rate=3.0, weight=0.01, least=None).item(), errors + 0.03, rel_tol=1e-5)
    beyond = loss(found, x, rate=1.0, weight=0.01, least=0.002)
    assert math.isclose(beyond.item(), errors + 0.02 + 0.09, rel_tol=1e-5)
    assert torch.autograd.grad(loss(found, x, rate=3.0, weight=0.01, least=None), found.rate)[0] == 0  # it is free
    assert torch.autograd.grad(beyond, found.rate)[0] == torch.tensor(0.01)


def test_it_takes_out_a_pattern_per_class():
    """Smooth images with fine noise of ±16 that their class alone decides: most of it is gone."""
    labels = torch.arange(256) % 4
    smooth = torch.nn.functional.interpolate(torch.rand(256, 3, 2, 2, generator=drawn(3)), size=(8, 8), mode="bilinear")
    smooth = 64 + 128 * smooth.permute(0, 2, 3, 1)
    patterns = torch.randint(0, 2, (4, 8, 8, 3), generator=drawn(4)) * 32 - 16
    train = split((smooth + patterns[labels]).clamp(0, 255).byte(), labels)
    found = dvae(train, context(), epochs=10, batch=32, width=8, latent=8)

    def share(images: torch.Tensor) -> float:
        """How much of the pattern of its class an image holds, 1 for all of it."""
        return ((images.float() - smooth) * patterns[labels]).mean().item() / 16**2

    assert share(train.images) > 0.95 and share(found) < 0.3
    alike = torch.corrcoef(torch.stack([found.float().flatten(), smooth.flatten()]))[0, 1]
    assert alike > 0.25  # 160 steps are few, but the images are still there


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"width": 12}, "dvae: width must be a multiple of 8, found 12"),
        ({"batch": 200}, "dvae: batch is 200, but the training set has 20 images"),
        ({"width": 4096, "batch": 20, "latent": 4096}, "GB of memory"),
    ],
)
def test_settings_that_cannot_be(settings, message, monkeypatch):
    monkeypatch.setattr("relearn.runtime.memory.total", lambda device: 2**31)
    train = split(noise(20, 32, 32), torch.arange(20) % 4)
    with pytest.raises(UserError, match=message):
        dvae(train, context(), **settings)


def test_a_loss_that_is_not_finite(monkeypatch):
    monkeypatch.setattr("relearn.purifications.dvae.RATE_WEIGHT", math.nan)
    train = split(noise(20, 8, 8), torch.arange(20) % 4)
    with pytest.raises(DivergedError, match="loss of dvae .* at stage 1, step 1 of 4"):
        dvae(train, context(), **SMALL, epochs=2, batch=10)
