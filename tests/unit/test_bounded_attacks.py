"""The attacks that work inside a budget: signed gradient steps, and what the poisons promise of theirs."""

import math

import pytest
import torch
import torch.nn.functional as F

from helpers.images import coloured
from helpers.training import GUARD
from relearn.crafting.perturbation import Perturbation, apply
from relearn.crafting.pgd import descend
from relearn.errors import UserError
from relearn.poisons.em import em, em_classwise
from relearn.poisons.hypo import hypo
from relearn.poisons.lsp import lsp
from relearn.training import models

# Signed gradient steps


@pytest.mark.parametrize("steps, expected", [(0, 0.0), (1, 1.5), (3, 4.5), (9, 8.0)])
def test_signed_steps_of_a_linear_objective(steps, expected):
    """Down a linear objective steps go one way until the ball ends: -sign(w) * min(steps * step_size, epsilon)."""
    weights = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(2))
    weights[0, 0] = 0.0  # no slope, no step
    images, start = torch.full((4, 3, 6, 5), 128.0), torch.zeros(4, 3, 6, 5)
    delta = descend(
        [lambda x: (weights * x).sum()], images, start, epsilon=8.0, step_size=1.5, steps=steps, guard=GUARD
    )
    assert torch.allclose(delta, -weights.sign() * expected) and not delta.requires_grad
    assert torch.equal(start, torch.zeros_like(start))  # the caller's perturbation stays


def test_signed_steps_start_where_they_are_told():
    start = torch.full((1, 3, 2, 2), 5.0)
    delta = descend(
        [lambda x: x.sum()], torch.full((1, 3, 2, 2), 100.0), start, epsilon=8.0, step_size=2.0, steps=3, guard=GUARD
    )
    assert torch.equal(delta, torch.full_like(start, -1.0))


def test_signed_steps_stay_in_the_ball_and_lower_the_objective():
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (5, 3, 8, 8), generator=generator).float()
    target = 3 * torch.rand(5, 3, 8, 8, generator=generator) - 1  # most of it beyond black and white

    def objective(x):
        assert x.min() >= 0 and x.max() <= 1  # it sees valid images only
        return (x - target).square().sum()

    delta = descend([objective], images, torch.zeros_like(images), epsilon=6.0, step_size=1.0, steps=10, guard=GUARD)
    assert delta.abs().max() == 6.0
    assert objective((images + delta).clamp(0, 255) / 255) < objective(images / 255)


# The poisons' own promises


@pytest.mark.parametrize("data", ["tiny", "odd"])
def test_lsp_has_one_norm_and_blocks(data, request, craft):
    train = request.getfixturevalue(data)
    height, width = train.images.shape[1:3]
    perturbation = lsp(train, craft("lsp", train), epsilon=6.0, patch=8)
    norms = perturbation.delta.double().flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.full_like(norms, 6 * math.sqrt(3 * height * width)), rtol=1e-5)
    blocks = perturbation.delta.view(len(train), height // 8, 8, width // 8, 8, 3)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert (perturbation.delta.std((1, 2, 3)) > 1).all()


def test_lsp_is_linearly_separable(craft):
    """Least squares fitted on half of the perturbations names the class of the other half, but not shuffled labels."""
    train = coloured([40] * 8, (32, 32), seed=3)
    delta = lsp(train, craft("lsp", train)).delta[:, ::8, ::8].flatten(1)  # one value of each block
    features = torch.cat([delta, torch.ones(len(train), 1)], 1)

    def accuracy(labels: torch.Tensor) -> float:
        weights = torch.linalg.lstsq(features[::2], F.one_hot(labels[::2], 8).float()).solution
        return ((features[1::2] @ weights).argmax(1) == labels[1::2]).double().mean().item()

    assert accuracy(train.labels) > 0.97
    assert accuracy(train.labels[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]) < 0.4


@pytest.mark.parametrize(
    "patch, message",
    [(64, "patch of 64 does not fit images of 32x32"), (32, "10 classes need more than 3 block values")],
)
def test_lsp_errors(patch, message, tiny, craft):
    with pytest.raises(UserError, match=message):
        lsp(tiny, craft("lsp", tiny), patch=patch)


def loss(model, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return F.cross_entropy(model.eval()(images.permute(0, 3, 1, 2).float() / 255), labels).item()


def test_hypo_lowers_the_loss_of_its_surrogate_and_leaves_it_as_it_was(tiny, craft):
    context = craft("hypo", tiny)
    before = models.weights(context.surrogate)
    poisoned, _ = apply(tiny.images, hypo(tiny, context, surrogate="surrogate", steps=6, step_size=2.0, batch=32))
    assert all(torch.equal(before[name], tensor) for name, tensor in models.weights(context.surrogate).items())
    assert loss(context.surrogate, poisoned, tiny.labels) < 0.97 * loss(context.surrogate, tiny.images, tiny.labels)


def test_hypo_without_a_surrogate(tiny, craft):
    with pytest.raises(
        UserError, match="test needs a surrogate; set `surrogate:` to a name of the section `surrogates:`"
    ):
        hypo(tiny, craft("clean", tiny), surrogate="surrogate")


@pytest.mark.parametrize("poison", [em, em_classwise])
def test_em_lowers_the_loss_of_the_model_it_trains(poison, tiny, craft, monkeypatch):
    """Min-min noise ends with steps down the loss of its own surrogate: it finds poisoned images easier than clean."""
    context, made = craft(poison.__name__, tiny), []
    build = context.model
    monkeypatch.setattr(context, "model", lambda *given: made.append(build(*given)) or made[-1])
    perturbation = poison(
        tiny, context, arch="cnn", rounds=3, batches=5, batch=40, steps=4, step_size=2.0, stop_error=0.0
    )
    poisoned, _ = apply(tiny.images, perturbation)
    (surrogate,) = made
    assert loss(surrogate, poisoned, tiny.labels) < 0.99 * loss(surrogate, tiny.images, tiny.labels)
    # noise of the same size and no direction does not do it
    signs = torch.randn(perturbation.delta.shape, generator=torch.Generator().manual_seed(0)).sign()
    shaken, _ = apply(
        tiny.images, Perturbation(perturbation.delta.abs() * signs, perturbation.budget, perturbation.rows)
    )
    assert loss(surrogate, poisoned, tiny.labels) < loss(surrogate, shaken, tiny.labels)


def test_em_stops_once_nothing_is_wrong(tiny, craft):
    """With `stop_error` 1 the first round is enough, so a cap of two rounds changes nothing; with 0 it does."""

    def delta(rounds: int, stop_error: float) -> torch.Tensor:
        return em(
            tiny, craft("em", tiny), arch="cnn", rounds=rounds, batches=2, batch=40, steps=1, stop_error=stop_error
        ).delta

    assert torch.equal(delta(1, 1.0), delta(2, 1.0)) and not torch.equal(delta(1, 0.0), delta(2, 0.0))


def test_em_classwise_gives_a_class_one_noise(odd, craft):
    perturbation = em_classwise(odd, craft("em_classwise", odd), arch="cnn", rounds=2, batches=2, batch=8)
    assert len(perturbation.delta) == 8 and torch.equal(perturbation.rows, odd.labels)
    assert len({noise.numpy().tobytes() for noise in perturbation.delta}) == 8
