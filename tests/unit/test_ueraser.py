"""UEraser and RandAugment: plasma, channel shuffle, and the worst of several copies."""

import pytest
import torch
from torch import nn

from helpers.images import drawn
from helpers.training import model_of, run_of
from relearn.errors import UserError
from relearn.methods.randaugment import Randaugment
from relearn.methods.ueraser import Ueraser, UeraserLite, UeraserMax
from relearn.training import plasma


def images(count: int = 40) -> torch.Tensor:
    return torch.rand(count, 3, 16, 12, generator=drawn(1)).contiguous(memory_format=torch.channels_last)


# Plasma


def test_a_square_without_roughness_is_interpolated():
    """Its first 3x3 values stay; between them lie means, whose 25 x 25 are those by the definition."""
    smooth = plasma.plasma(3, 5, 5, torch.zeros(3), drawn(2), torch.device("cpu"))
    corners = torch.rand(3, 3, 3, generator=drawn(2))
    assert torch.equal(smooth[:, ::2, ::2], corners)
    for i in range(3):
        a, b, d, e = corners[i, 0, 0], corners[i, 0, 1], corners[i, 1, 0], corners[i, 1, 1]
        middle = (a + b + d + e) / 4
        assert smooth[i, 1, 1] == pytest.approx(float(middle))
        assert smooth[i, 0, 1] == pytest.approx(float((a + b + middle) / 3))
        assert smooth[i, 1, 0] == pytest.approx(float((a + d + middle) / 3))
        other = (b + e + corners[i, 0, 2] + corners[i, 1, 2]) / 4
        assert smooth[i, 1, 2] == pytest.approx(float((b + e + middle + other) / 4))
        below = (d + e + corners[i, 2, 0] + corners[i, 2, 1]) / 4
        assert smooth[i, 2, 1] == pytest.approx(float((d + e + middle + below) / 4))


def test_maps_lie_between_0_and_1_around_the_middle_and_vary_more_when_rough():
    def roughened(roughness: float) -> torch.Tensor:
        return plasma.plasma(600, 32, 20, torch.full((600,), roughness), drawn(3), torch.device("cpu"))

    smooth, rough = roughened(0.3), roughened(0.7)
    assert smooth.shape == (600, 32, 20)
    for found in (smooth, rough):
        assert found.min() >= 0 and found.max() <= 1 and found.mean() == pytest.approx(0.5, abs=0.02)
    assert rough.diff(dim=2).abs().mean() > 1.5 * smooth.diff(dim=2).abs().mean()
    assert len(rough[:, 7, 7].unique()) == 600


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_plasma_changes_that_share_of_images(probability):
    x = images(600)
    out = plasma.random_plasma(x, probability, (0.3, 0.7), (0.5, 1.0), drawn(4))
    share = (out != x).flatten(1).any(1).float().mean()
    assert share == pytest.approx(1 - (1 - probability) ** 2, abs=0.05)
    assert out.min() >= 0 and out.max() <= 1


def test_channels_are_shuffled_image_by_image():
    x = images(600)
    out = plasma.shuffle_channels(x, 0.5, drawn(4))
    assert torch.allclose(out.sort(1).values, x.sort(1).values)
    kept = (out == x).flatten(1).all(1).float().mean()
    assert kept == pytest.approx(0.5 + 0.5 / 6, abs=0.06)
    assert torch.equal(plasma.shuffle_channels(x, 0.0, drawn(4)), x)


# UEraser


class Colour(nn.Module):
    """Logits from the mean of each channel; it counts the images that it sees."""

    seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return 5 * x.mean((2, 3))


def test_the_worst_copy_of_every_image_is_learned():
    x, y = images(), torch.arange(40) % 3
    model, criterion, method = Colour(), nn.CrossEntropyLoss(), UeraserMax(copies=4)
    loss, correct = method.loss(model, x, y, drawn(5), criterion)
    copies = method.strong(x.repeat(4, 1, 1, 1), drawn(5)).view(4, 40, 3, 16, 12)
    every = nn.CrossEntropyLoss(reduction="none")
    losses = torch.stack([every(Colour()(copy), y) for copy in copies])
    assert model.seen == 160 and len(copies[:, 0].unique(dim=0)) > 1
    assert loss == pytest.approx(float(losses.max(0).values.mean()), rel=1e-5) and loss > losses.mean() * 1.02
    logits = torch.stack([Colour()(copy) for copy in copies])[losses.argmax(0), torch.arange(40)]
    assert torch.equal(correct, logits.argmax(1) == y)


def test_too_many_copies_are_refused():
    with pytest.raises(UserError, match="ueraser: copies is 65; give at most 64, since they are one batch"):
        UeraserMax(copies=65)


def test_gradients_come_from_the_worst_copies_alone(tiny):
    x = tiny.images[:16].permute(0, 3, 1, 2).float() / 255
    model = model_of(tiny).eval()
    method, y = UeraserMax(copies=3), tiny.labels[:16]
    method.loss(model, x, y, drawn(5), nn.CrossEntropyLoss())[0].backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    copies = method.strong(x.repeat(3, 1, 1, 1), drawn(5)).view(3, *x.shape)
    losses = torch.stack([nn.CrossEntropyLoss(reduction="none")(model(copy), y) for copy in copies])
    losses.max(0).values.mean().backward()
    assert all(
        torch.allclose(one, parameter.grad, atol=1e-5) for one, parameter in zip(found, model.parameters(), strict=True)
    )


def test_ueraser_ends_with_single_copies(tiny):
    method, model, seen = Ueraser(first=0.3, copies=3), model_of(tiny), []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])) if model.training else None)
    run = run_of(tiny, method, model)
    for step in range(1, 16):
        run.advance()
        if step % 5 == 0:
            run.end_epoch(tiny)
    # 0.3 of 15 steps is less than an epoch, of which each is of one kind
    assert seen == [3 * 16] * 5 + [16] * 10
    assert method.state() == {"lite": True} and Ueraser(first=0.0).lite


@pytest.mark.parametrize("method", [UeraserLite(), UeraserMax(), Ueraser(), Randaugment()])
def test_test_images_stay_and_training_images_change(method):
    x = images()
    strong = method.augment if isinstance(method, Randaugment) else method.strong
    first, again, other = (strong(x.clone(), drawn(seed)) for seed in (7, 7, 8))
    assert torch.equal(method.eval_transform(x), x) and torch.equal(first, again) and not torch.equal(first, other)
    assert (first - x).abs().mean() > 0.05 and first.min() >= 0 and first.max() <= 1


def test_randaugment_applies_so_many_operations():
    x = images(140)
    changed = [(Randaugment(operations=n).augment(x, drawn(6)) != x).flatten(1).any(1).float().mean() for n in (1, 3)]
    assert 0.8 < changed[0] < 0.95 < changed[1]  # one of 14 is the identity
    with pytest.raises(UserError, match="randaugment: magnitude is 31; give at most 30"):
        Randaugment(magnitude=31.0)
    with pytest.raises(UserError, match="randaugment: operations is 15; give at most 14, all there are"):
        Randaugment(operations=15)
