"""What is added to images, exactly: budgets, rounding, measured numbers; and the attacks that work inside them."""

import math

import pytest
import torch
import torch.nn.functional as F

from helpers.images import coloured
from helpers.training import GUARD
from relearn.crafting import perturbation as application
from relearn.crafting.perturbation import Budget, Perturbation, apply
from relearn.crafting.pgd import descend
from relearn.errors import UserError
from relearn.poisons.em import em, em_classwise
from relearn.poisons.hypo import hypo
from relearn.poisons.lsp import lsp
from relearn.training import models


def flat(*levels: float) -> torch.Tensor:
    """One 2x2 image of each level, (N, 2, 2, 3) float32."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 2, 2, 3).contiguous()


def grey(*levels: int) -> torch.Tensor:
    return flat(*map(float, levels)).to(torch.uint8)


def change(images: torch.Tensor, perturbation: Perturbation) -> list[int]:
    """What was really added to each image, the same for all its values."""
    added = apply(images, perturbation)[0].int() - images.int()
    assert (added == added[:, :1, :1, :1]).all()
    return added[:, 0, 0, 0].tolist()


# The budget of the maximum


@pytest.mark.parametrize(
    "delta, rounding, expected",
    [
        ((8.0, -8.0), "half_up", [8, -8]),
        ((2.4, -2.4), "half_up", [2, -2]),
        ((2.5, -2.5), "half_up", [3, -2]),  # half goes up, also below zero
        ((2.6, -2.6), "half_up", [3, -3]),
        (
            (2.9, -2.9),
            "truncate",
            [2, -3],
        ),  # the sum is truncated, not the perturbation, as in released code that casts to uint8
    ],
)
def test_rounding(delta, rounding, expected):
    assert change(grey(100, 100), Perturbation(flat(*delta), Budget("linf", 8.0), rounding=rounding)) == expected


@pytest.mark.parametrize("epsilon, most", [(2.5, 2), (2.0, 2), (7.99, 7), (8.0, 8)])
@pytest.mark.parametrize("rounding", ["half_up", "truncate"])
def test_rounding_never_leaves_the_linf_ball(epsilon, most, rounding):
    """A budget of 2.5 allows changes of 2: rounding 2.5 up to 3 would break the promise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 8, 8, 3), generator=generator, dtype=torch.uint8)
    delta = (torch.rand(20, 8, 8, 3, generator=generator) * 2 - 1).sign() * epsilon
    poisoned, measured = apply(images, Perturbation(delta, Budget("linf", epsilon), rounding=rounding))
    assert int((poisoned.int() - images.int()).abs().max()) == measured["linf_max"] == most


def test_clipping_at_black_and_white():
    images = grey(0, 3, 250, 255)
    perturbation = Perturbation(flat(-8.0, -8.0, 8.0, 8.0), Budget("linf", 8.0))
    poisoned, measured = apply(images, perturbation)
    assert poisoned[:, 0, 0, 0].tolist() == [0, 0, 255, 255]
    assert measured["clipped_share"] == 1.0
    assert apply(grey(8, 247), Perturbation(flat(-8.0, 8.0), Budget("linf", 8.0)))[1]["clipped_share"] == 0.0


# The other budgets


def test_l2_budget():
    images, delta = grey(100, 100), torch.zeros(2, 2, 2, 3)
    delta[0, 0, 0, 0], delta[0, 1, 1, 2] = 3.0, -4.0
    _, measured = apply(images, Perturbation(delta, Budget("l2", 5.0)))
    assert (measured["l2_max"], measured["linf_max"], measured["l0_max"]) == (5.0, 4.0, 2.0)
    with pytest.raises(UserError, match=r"l2 norm before rounding is 5\.000, above the declared 4\.990 \(1/255\)"):
        apply(images, Perturbation(delta, Budget("l2", 4.99)))


def test_l2_budget_leaves_room_for_rounding_but_no_more():
    images = grey(100)
    # each of the twelve values moves by 0.5: 12 * 0.25 = 3 before rounding, but 12 * 1 after it
    _, measured = apply(images, Perturbation(flat(0.5), Budget("l2", math.sqrt(3))))
    assert measured["l2_max"] == pytest.approx(math.sqrt(12))


def test_l0_budget_counts_pixels_and_not_values():
    images, delta = grey(100), torch.zeros(1, 2, 2, 3)
    delta[0, 0, 1] = torch.tensor([9.0, 0.0, -200.0])
    assert apply(images, Perturbation(delta, Budget("l0", 1)))[1]["l0_max"] == 1
    delta[0, 1, 1, 0] = 1.0
    with pytest.raises(UserError, match=r"l0 norm before rounding is 2\.000, above the declared 1\.000 \(pixels\)"):
        apply(images, Perturbation(delta, Budget("l0", 1)))


def test_no_budget_is_no_bound():
    poisoned, measured = apply(grey(0), Perturbation(flat(255.0), Budget("none", 0.0)))
    assert poisoned.unique().tolist() == [255] and measured["linf_max"] == 255


# Errors


@pytest.mark.parametrize(
    "perturbation, message",
    [
        (
            Perturbation(flat(8.01, 0.0), Budget("linf", 8.0)),
            r"linf norm before rounding is 8\.010, above the declared 8\.000",
        ),
        (Perturbation(flat(1.0, math.nan), Budget("linf", 8.0)), "12 values that are not finite"),
        (Perturbation(flat(math.inf, 1.0), Budget("none", 0.0)), "12 values that are not finite"),
        (Perturbation(flat(1.0), Budget("linf", 8.0)), "for 1 images does not fit images of"),
        (
            Perturbation(flat(1.0, 1.0).permute(0, 3, 1, 2), Budget("linf", 8.0)),
            r"it must be float32 \(N or classes, 2, 2, 3\)",
        ),
        (Perturbation(flat(1.0, 1.0).double(), Budget("linf", 8.0)), "float64 for 2 images does not fit"),
        (
            Perturbation(flat(1.0), Budget("linf", 8.0), torch.tensor([0, 1])),
            "has 1 rows, but an image refers to row 1",
        ),
        (Perturbation(flat(1.0), Budget("linf", 8.0), torch.tensor([0, -1])), "has 1 rows, but an image refers to row"),
        (
            Perturbation(flat(0.4, -0.4), Budget("linf", 8.0)),
            r"no pixel after rounding \(declared budget: linf 8\.0\); check its units",
        ),
        (Perturbation(flat(8 / 255, 8 / 255), Budget("linf", 8.0)), "check its units, 1/255"),
    ],
)
def test_errors(perturbation, message):
    with pytest.raises(UserError, match=message):
        apply(grey(100, 100), perturbation)


def test_zero_is_allowed_where_it_is_promised():
    images = grey(7, 200)
    poisoned, measured = apply(images, Perturbation(flat(0.0), Budget("linf", 0.0), torch.tensor([0, 0])))
    assert torch.equal(poisoned, images) and set(measured.values()) == {0.0}


# Rows and measurement


def test_rows_give_each_image_the_noise_of_its_class():
    labels = torch.tensor([2, 0, 0, 1])
    assert change(grey(100, 100, 50, 100), Perturbation(flat(1.0, 2.0, -3.0), Budget("linf", 3.0), labels)) == [
        -3,
        1,
        1,
        2,
    ]


def test_measured_by_hand():
    # image 0: one pixel by (3, 0, -4): linf 4, l2 5, l0 1; image 1: not at all. Of 24 values one is clipped: 255 + 3.
    images, delta = grey(255, 10), torch.zeros(2, 2, 2, 3)
    delta[0, 0, 0] = torch.tensor([3.0, 0.0, -4.0])
    images[0, 0, 0, 0] = 252
    delta[1, 1, 1, 1] = 0.2
    images[0, 1, 0, 2] = 253
    delta[0, 1, 0, 2] = 0.4
    images[1, 0, 0, 0] = 255
    delta[1, 0, 0, 0] = 0.3
    _, measured = apply(images, Perturbation(delta, Budget("linf", 4.0)))
    assert measured == {
        **{"linf_mean": 2.0, "linf_max": 4.0, "l2_mean": 2.5, "l2_max": 5.0, "l0_mean": 0.5, "l0_max": 1.0},
        **{"changed_share": 0.5, "clipped_share": 1 / 24},
    }


def test_chunks_do_not_show(tiny, monkeypatch):
    delta = torch.randn(len(tiny), 32, 32, 3, generator=torch.Generator().manual_seed(1)).clamp(-4, 4)
    poisoned, measured = apply(tiny.images, Perturbation(delta, Budget("linf", 4.0)))
    monkeypatch.setattr(application, "CHUNK", 7)
    again, measured_again = apply(tiny.images, Perturbation(delta, Budget("linf", 4.0)))
    assert torch.equal(poisoned, again) and measured == measured_again


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
