"""Poisons crafted against a defence: what their surrogate sees, and that the noise holds up under it."""

import pytest
import torch
import torch.nn.functional as F

from helpers.images import DEVICE, drawn
from relearn.crafting.seen import SEEN, coarse, compressed
from relearn.data import levels
from relearn.poisons.em import em
from relearn.poisons.tap import tap, tap_untargeted
from relearn.registry import entries
from relearn.training.degrade import quantise


def batch(count: int = 4, height: int = 12, width: int = 10) -> torch.Tensor:
    x = torch.rand(count, 3, height, width, generator=drawn(1))
    return x.contiguous(memory_format=torch.channels_last)


def test_the_choices_of_the_settings_are_those_there_are():
    for name in ("em", "tap", "tap_untargeted"):
        (through,) = (s for s in entries("poisons")[name].settings if s.name == "through")
        assert [through.error(choice) for choice in SEEN] == [None] * len(SEEN) and through.default == "crops"
        assert through.annotation.count("'") == 2 * len(SEEN)


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("size", [(16, 16), (7, 5)])
def test_what_is_seen_stays_an_image_and_lets_gradients_through(name, size):
    x = batch(4, *size).requires_grad_()
    seen, again = (SEEN[name](x, drawn(3)) for _ in range(2))
    assert seen.shape == x.shape and seen.min() >= -1e-6 and seen.max() <= 1 + 1e-6 and torch.equal(seen, again)
    (gradient,) = torch.autograd.grad(seen.square().sum(), x)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_coarse_by_hand():
    x = torch.arange(15.0).reshape(1, 1, 3, 5).expand(1, 3, 3, 5)
    expected = torch.tensor([[3, 3, 5, 5, 6.5], [3, 3, 5, 5, 6.5], [10.5, 10.5, 12.5, 12.5, 14]])
    assert torch.equal(coarse(x)[0, 0], expected)
    y = batch().requires_grad_()
    (gradient,) = torch.autograd.grad(F.conv2d(coarse(y), torch.randn(1, 3, 3, 3, generator=drawn(4))).sum(), y)
    assert torch.equal(gradient, coarse(gradient))  # a square has one gradient


def test_compression_is_that_of_degrade_and_its_rounding_is_straight_through():
    x = batch().requires_grad_()
    seen = compressed(x, drawn(5))
    assert torch.allclose(seen, quantise(x.detach(), drawn(5)), atol=1e-6)
    weight = torch.rand(x.shape, generator=drawn(6))
    assert torch.equal(torch.autograd.grad((seen * weight).sum(), x)[0], weight)


@pytest.mark.parametrize("name", [name for name in SEEN if name != "crops"])
@pytest.mark.parametrize("poison", [tap, tap_untargeted])
def test_tap_holds_up_under_the_view_it_was_crafted_through(poison, name, tiny, craft):
    how = {"surrogate": "surrogate", "steps": 12, "step_size": 1.6, "restarts": 1, "crop_pad": 0, "flip": False}

    def crafted(through: str) -> torch.Tensor:
        return poison(tiny, craft("tap", tiny), **how, through=through).delta

    model, aims = craft("tap", tiny).trained_surrogate(), tiny.labels + (poison is tap)

    def loss(delta: torch.Tensor) -> float:
        x = (levels(tiny.images) + delta.permute(0, 3, 1, 2)).clamp(0, 255).to(DEVICE) / 255
        losses = [
            F.cross_entropy(model(SEEN[name](x, torch.Generator(DEVICE).manual_seed(k))), (aims % 10).to(DEVICE)).item()
            for k in range(8)
        ]
        return (1 if poison is tap else -1) * sum(losses)

    plain, adaptive = crafted("crops"), crafted(name)
    assert adaptive.abs().max() <= 8 and torch.equal(adaptive, crafted(name)) and not torch.equal(adaptive, plain)
    assert loss(adaptive) < loss(plain) or name == "views"  # a few steps through views drawn anew are too few to tell


@pytest.mark.parametrize("name", [name for name in SEEN if name != "crops"])
def test_em_differs_by_what_its_surrogate_sees(name, tiny, craft):
    how = {"arch": "cnn", "rounds": 2, "batches": 3, "batch": 16, "steps": 2, "stop_error": None}
    plain, seen, again = (em(tiny, craft("em", tiny), **how, through=way).delta for way in ("crops", name, name))
    assert not torch.equal(plain, seen) and torch.equal(seen, again) and seen.abs().max() <= 8
