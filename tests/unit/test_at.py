"""Adversarial training: the ball, the attack against a closed form, and what it leaves of the network."""

import pytest
import torch
from torch import nn

from helpers.images import drawn
from helpers.training import model_of
from relearn.methods.at import At


class Linear(nn.Module):
    """Two classes apart by a fixed direction; the worst case in a ball is known."""

    def __init__(self):
        super().__init__()
        self.direction = torch.randn(3, 8, 8, generator=drawn(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = ((x - 0.5) * self.direction).flatten(1).sum(1)
        return torch.stack([score, -score], 1)


def gray(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    return 0.5 + 0.1 * (torch.rand(count, 3, 8, 8, generator=drawn(2)) - 0.5), torch.arange(count) % 2


def test_the_worst_case_of_a_linear_model():
    (x, y), model = gray(), Linear()
    away = torch.where(y == 0, -1.0, 1.0).view(-1, 1, 1, 1)  # raises the loss of each label
    found = At(epsilon=4.0).attacked(model, x, y, drawn(3)) - x
    assert torch.allclose(found, away * model.direction.sign() * 4 / 255, atol=1e-6)
    found = At(norm="l2", epsilon=100.0, steps=30).attacked(model, x, y, drawn(3)) - x
    unit = model.direction / model.direction.norm()
    assert torch.allclose(found, away * unit * 100 / 255, atol=2e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steps_are_those_of_the_definition(norm, tiny):
    """One image at a time: a step, back into the ball, back among the pixels."""
    x, y = tiny.images[:8].permute(0, 3, 1, 2).float() / 255, tiny.labels[:8]
    x[:2], x[2:4] = 0.0, 1.0
    model, method, radius = model_of(tiny).eval(), At(norm=norm, epsilon=64.0, steps=3), 64 / 255
    both = method._start(x, drawn(3)), method.attacked(model, x, y, drawn(3))
    for image, label, delta, found in zip(x, y, *both, strict=True):
        for _ in range(3):
            attacked = (image + delta).clamp(0, 1).requires_grad_(True)
            nn.functional.cross_entropy(model(attacked[None]), label[None]).backward()
            inside = (image + delta >= 0) & (image + delta <= 1)  # what is cut off has no gradient
            gradient = torch.where(inside, attacked.grad, 0.0)
            if norm == "linf":
                delta = (delta + radius / 4 * gradient.sign()).clamp(-radius, radius)
            else:
                delta = delta + radius / 4 * gradient / gradient.norm()
                delta = delta * min(1.0, radius / delta.norm().item())
            delta = (image + delta).clamp(0, 1) - image
        assert torch.allclose(found, image + delta, atol=1e-5)


@pytest.mark.parametrize("norm, epsilon", [("linf", 8.0), ("l2", 128.0)])
def test_examples_stay_in_the_ball_and_among_pixels_and_have_more_loss(norm, epsilon, tiny):
    x, y = tiny.images[:16].permute(0, 3, 1, 2).float() / 255, tiny.labels[:16]
    x[:2], x[2:4] = 0.0, 1.0
    model, method = model_of(tiny).eval(), At(norm=norm, epsilon=epsilon)
    out = method.attacked(model, x, y, drawn(3))
    delta = 255 * (out - x)
    size = delta.abs().amax((1, 2, 3)) if norm == "linf" else delta.flatten(1).norm(dim=1)
    assert size.max() <= epsilon * (1 + 1e-4) and size.min() > epsilon / 4
    assert out.min() >= 0 and out.max() <= 1
    start = (x + method._start(x, drawn(3))).clamp(0, 1)
    losses = [nn.functional.cross_entropy(model(images), y) for images in (x, start, out)]
    assert losses[2] > losses[0] and losses[2] > losses[1]
    assert torch.equal(out, method.attacked(model, x, y, drawn(3)))
    assert not torch.equal(out, method.attacked(model, x, y, drawn(4)))


def test_only_training_changes_the_network(tiny):
    x, y = tiny.images[:16].permute(0, 3, 1, 2).float() / 255, tiny.labels[:16]
    model, method = model_of(tiny).train(), At()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    out = method.attacked(model, x, y, drawn(3))
    assert model.training and all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    criterion = nn.CrossEntropyLoss()
    loss, correct = method.loss(model, x, y, drawn(3), criterion)
    expected = model(out)
    assert torch.equal(loss, criterion(expected, y)) and torch.equal(correct, expected.argmax(1) == y)
    loss.backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert torch.equal(method.eval_transform(x), x)


def test_the_step_is_a_quarter_of_the_radius_unless_given():
    assert At().step_size == pytest.approx(2 / 255) and At(step_size=1.0).step_size == pytest.approx(1 / 255)
    assert At().steps == 10
