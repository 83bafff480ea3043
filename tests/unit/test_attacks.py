"""Poisons that attack a model move what they say in the direction they say; budgets hold; a killed one resumes."""

import pytest
import torch
import torch.nn.functional as F

from helpers.images import coloured
from helpers.registered import cheap
from helpers.training import GUARD
from relearn.crafting.perturbation import Budget, Perturbation, apply
from relearn.crafting.pgd import descend, shifted
from relearn.errors import UserError
from relearn.poisons import dune as dune_module
from relearn.poisons.cp import cp
from relearn.poisons.deepconfuse import UNet, _Duel, deepconfuse
from relearn.poisons.dune import dune, ssim
from relearn.poisons.em_ops import em_ops
from relearn.poisons.hypo import hypo
from relearn.poisons.rem import _Robust
from relearn.poisons.sep import sep
from relearn.poisons.tap import tap, tap_untargeted

EASY = {"surrogate": "surrogate", "batch": 32}


def loss(model, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean cross-entropy of images (N, H, W, 3) uint8 in evaluation mode."""
    with torch.no_grad():
        return float(F.cross_entropy(model.eval()(images.permute(0, 3, 1, 2).float() / 255), labels))


def poisoned(train, perturbation: Perturbation) -> torch.Tensor:
    return apply(train.images, perturbation)[0]


# Steps in a ball


def test_l2_steps_go_straight_down_and_stay_in_the_ball():
    """Down a linear objective, steps follow its slope until the ball ends, whatever the slope's length."""
    slope = torch.randn(3, 3, 5, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1.0, 1e3]).view(
        3, 1, 1, 1
    )
    images = torch.full(slope.shape, 128.0)
    for steps, length in ((2, 6.0), (5, 10.0)):
        delta = descend(
            [lambda x: (slope * x).sum()],
            images,
            torch.zeros_like(images),
            epsilon=10.0,
            step_size=3.0,
            steps=steps,
            guard=GUARD,
            norm="l2",
        )
        expected = -length * slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        assert torch.allclose(delta, expected, atol=1e-4)


def test_several_objectives_are_summed():
    one, other = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images, start = torch.full((2, 3, 4, 4), 100.0), torch.zeros(2, 3, 4, 4)
    how = {"epsilon": 8.0, "step_size": 2.0, "steps": 3, "guard": GUARD}
    both = descend([lambda x: (one * x).sum(), lambda x: (other * x).sum()], images, start, **how)
    assert torch.equal(both, descend([lambda x: ((one + other) * x).sum()], images, start, **how))


@pytest.mark.parametrize("classes, shift", [(10, 3), (8, 4), (2, 1), (5, 7)])
def test_shifted_labels_are_other_labels(classes, shift):
    labels = torch.arange(classes)
    found = shifted(labels, classes, shift)
    assert (found != labels).all() and found.sort().values.equal(labels)
    with pytest.raises(
        UserError, match=f"shift is {2 * classes}, which aims at the true label where there are {classes} classes"
    ):
        shifted(labels, classes, 2 * classes)


# Fixed surrogates


def test_tap_lowers_the_loss_of_the_next_class(odd, craft):
    made = craft("tap", odd)
    changed = poisoned(odd, tap(odd, made, **EASY, steps=8, step_size=2.0, restarts=2, crop_pad=2))
    aims = (odd.labels + 1) % 8
    assert loss(made.surrogate, changed, aims) < loss(made.surrogate, odd.images, aims)


def test_tap_untargeted_raises_the_loss_of_the_true_class(odd, craft):
    made = craft("tap_untargeted", odd)
    changed = poisoned(odd, tap_untargeted(odd, made, **EASY, steps=8, step_size=2.0, restarts=2, crop_pad=2))
    assert loss(made.surrogate, changed, odd.labels) > loss(made.surrogate, odd.images, odd.labels)


def test_tap_takes_the_best_restart_over_the_whole_set(tiny, craft):
    made, how = craft("tap", tiny), {**EASY, "steps": 2, "crop_pad": 2}
    aims = (tiny.labels + 1) % 10

    def found(restarts: int) -> float:
        return loss(made.surrogate, poisoned(tiny, tap(tiny, made, **how, restarts=restarts)), aims)

    losses = [found(restarts) for restarts in (1, 2, 3, 4)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_sep_lowers_the_loss_of_the_opposite_class_for_its_ensemble(odd, craft):
    made = craft("sep", odd)
    changed = poisoned(odd, sep(odd, made, **EASY, models=3, epsilon=8.0, steps=6))
    aims = (odd.labels + 4) % 8
    before, after = (sum(loss(model, images, aims) for model in made.ensemble(3)) for images in (odd.images, changed))
    assert after < before
    alone = poisoned(odd, sep(odd, made, **EASY, models=1, epsilon=8.0, steps=6))  # the surrogate itself
    assert loss(made.surrogate, alone, aims) < loss(made.surrogate, changed, aims)


def test_an_ensemble_is_evenly_spread_and_complete(tiny, craft):
    made = craft("sep", tiny)
    everyone = [*made.load_earlier(), made.surrogate]
    assert (
        made.ensemble(3) == everyone
        and made.ensemble(1) == everyone[-1:]
        and made.ensemble(2) == [everyone[1], everyone[2]]
    )
    with pytest.raises(
        UserError, match="test needs 4 checkpoints of its surrogate, which has 3; set `checkpoints: 4` there"
    ):
        sep(tiny, made, **EASY, models=4)


def test_hypo_in_the_l2_ball(tiny, craft):
    made = craft("hypo", tiny)
    perturbation = hypo(tiny, made, surrogate="surrogate", norm="l2", epsilon=127.5, step_size=25.5, steps=8)
    assert perturbation.budget.norm == "l2" and 120 < float(perturbation.delta.flatten(1).norm(dim=1).max()) <= 127.51
    assert loss(made.surrogate, poisoned(tiny, perturbation), tiny.labels) < loss(
        made.surrogate, tiny.images, tiny.labels
    )


def test_dune_adds_one_colour_per_class_to_its_noise(odd, craft):
    """With next to no noise, what is left is a constant per class, and it makes the ensemble see the class aimed at."""
    made = craft("dune", odd)
    perturbation = dune(odd, made, **EASY, models=2, epsilon=1e-3, steps=1, particles=6, searches=4, sample=8)
    for label in range(8):
        own = perturbation.delta[odd.labels == label]
        assert (own - own.mean((0, 1, 2))).abs().max() <= 2e-3
    aims = (odd.labels + 3) % 8
    before, after = (
        sum(loss(model, images, aims) for model in made.ensemble(2))
        for images in (odd.images, poisoned(odd, perturbation))
    )
    assert after < before and perturbation.budget.norm == "none"


def test_the_swarm_remembers_the_best_place_it_met():
    met = []

    def cost(place: torch.Tensor) -> float:
        met.append((float((place - torch.tensor([30.0, -20.0, 5.0])).square().sum()), place.clone()))
        return met[-1][0]

    best, _ = dune_module._swarm(cost, 8, 12, torch.Generator().manual_seed(0))
    lowest, place = min(met, key=lambda item: item[0])
    assert torch.equal(best, place) and lowest < min(value for value, _ in met[:8])


def test_ssim_of_equal_images_is_one_and_falls_with_noise():
    x = coloured([4, 4], (16, 12), seed=3).images.permute(0, 3, 1, 2).float()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    same, little, much = (ssim(x + scale * noise, x) for scale in (0.0, 10.0, 60.0))
    assert torch.allclose(same, torch.ones(8), atol=1e-4) and (little < same).all() and (much < little).all()


# Surrogates trained along the way


@pytest.fixture
def robust(tiny, craft):
    return _Robust(tiny, craft("rem", tiny), "cnn", 0, 2, True, radius=4.0, attack_step=2.0, attack_steps=3)


def test_the_worst_case_lies_in_the_ball_and_is_worse(robust, tiny):
    robust.model.eval().requires_grad_(False)
    seen = tiny.images.permute(0, 3, 1, 2).float() / 255
    losses = []
    for steps in (0, 3):
        worst = robust.perturbed(seen, tiny.labels, torch.Generator().manual_seed(0), steps)
        assert float((worst - seen).abs().max()) * 255 <= 4.001 and worst.min() >= 0 and worst.max() <= 1
        losses.append(float(F.cross_entropy(robust.model(worst), tiny.labels)))
    assert losses[1] > losses[0]


def test_the_gradient_at_the_worst_case_passes_to_the_noise_as_it_is(robust, tiny):
    robust.model.eval().requires_grad_(False)
    seen = (tiny.images[:4].permute(0, 3, 1, 2).float() / 255).requires_grad_(True)
    worst = robust.perturbed(seen, tiny.labels[:4], torch.Generator().manual_seed(0), 3)
    (through,) = torch.autograd.grad(worst.square().sum(), seen)
    assert torch.allclose(through, 2 * worst.detach())


@pytest.mark.parametrize("inner_steps", [0, 2])  # SEM, REM
def test_robust_noise_lowers_the_loss_under_a_defenders_perturbation(robust, tiny, inner_steps):
    x = tiny.images.permute(0, 3, 1, 2).float()
    how = {"epsilon": 8.0, "step_size": 2.0, "steps": 6, "samples": 2, "inner_steps": inner_steps}
    noise = robust.noise(x, tiny.labels, torch.Generator().manual_seed(1), **how)
    assert float(noise.abs().max()) <= 8.0

    def worst(images: torch.Tensor) -> float:
        seen = robust.perturbed(images.clamp(0, 255) / 255, tiny.labels, torch.Generator().manual_seed(2), 3)
        return float(F.cross_entropy(robust.model(seen), tiny.labels))

    assert worst(x + noise) < worst(x)


def test_a_step_of_the_generator_raises_the_clean_loss_after_the_virtual_step(tiny, craft):
    """The same batch and the same classifier again and again: what the copy maximises has to grow."""
    duel = _Duel(craft("deepconfuse", tiny), tiny, "cnn", 32.0, 0.5, 3e-3, 4, 0)
    duel.begin(0)
    x, y = tiny.images.permute(0, 3, 1, 2).float() / 255, tiny.labels
    before = {name: tensor.clone() for name, tensor in duel.model.state_dict().items()}
    losses = [float(duel.confuse(x, y)) for _ in range(25)]
    assert sum(losses[-5:]) > sum(losses[:5]) + 0.01
    # the virtual step was one
    assert all(torch.equal(tensor, before[name]) for name, tensor in duel.model.state_dict().items())


@pytest.mark.parametrize("size", [(8, 8), (13, 22)])
def test_the_generator_takes_any_size(size):
    noise = UNet(4).eval()(torch.rand(2, 3, *size))
    assert noise.shape == (2, 3, *size) and noise.abs().max() <= 1


def test_deepconfuse_refuses_images_it_cannot_halve(craft):
    small = coloured([3, 3], (4, 9), seed=0)
    with pytest.raises(UserError, match="they must be 8x8 at least, found 4x9"):
        deepconfuse(small, craft("deepconfuse", small), arch="cnn")


# Noise without labels


def test_cp_leaves_no_image_without_noise(tiny, craft):
    """The last batch would be a single image, which has none to be compared with: it goes with the batch before."""
    train = tiny.pick(torch.arange(17))
    found = cp(train, craft("cp", train), arch="cnn", rounds=1, batches=1, batch=16, steps=1)
    assert found.delta.flatten(1).abs().amax(1).min() > 0
    for count, batch in ((17, 1), (1, 16)):
        with pytest.raises(UserError, match="cp compares the images of a batch"):
            cp(tiny.pick(torch.arange(count)), craft("cp", train), arch="cnn", batch=batch)


# Two shortcuts in one image


def test_em_ops_keeps_the_bound_of_em_outside_the_pixel_of_ops(tiny, craft):
    perturbation = em_ops(tiny, craft("em_ops", tiny), **cheap("poisons", "em_ops"))
    changed = poisoned(tiny, perturbation).int() - tiny.images.int()
    beyond = (changed.abs() > 8).any(3)
    assert (beyond.flatten(1).sum(1) <= 1).all() and beyond.any()
    for label in range(10):
        places = torch.nonzero(beyond[tiny.labels == label].any(0))
        assert len(places) <= 1
        for y, x in places.tolist():
            values = poisoned(tiny, perturbation)[tiny.labels == label][:, y, x].unique(dim=0)
            assert len(values) == 1 and set(values[0].tolist()) <= {0, 255}


def test_free_pixels_of_a_budget_are_counted():
    images = torch.full((1, 4, 4, 3), 100, dtype=torch.uint8)
    delta = torch.full((1, 4, 4, 3), 8.4)
    delta[0, 0, 0], delta[0, 2, 1] = 90.0, -90.0
    budget = Budget("linf", 8.4, free=2)
    changed, _ = apply(images, Perturbation(delta, budget))
    assert (
        changed[0, 0, 0].tolist() == [190] * 3
        and changed[0, 2, 1].tolist() == [10] * 3
        and changed[0, 3, 3].tolist() == [108] * 3
    )
    with pytest.raises(UserError, match="linf norm before rounding is 90.000, above the declared 8.400"):
        apply(images, Perturbation(delta, Budget("linf", 8.4, free=1)))


def test_the_state_of_another_poison_is_not_taken_up(tiny, craft, tmp_path):
    made = craft("clean", tiny)
    made.checkpoint_path, made.settings_hash = tmp_path / "checkpoint", "one"
    made.save_checkpoint("delta", lambda: {"done": 40, "delta": torch.ones(40, 32, 32, 3)}, always=True)
    assert made.load_checkpoint("delta")["done"] == 40 and made.load_checkpoint("other") == {}
    made.settings_hash = "two"
    assert made.load_checkpoint("delta") == {}
    made.delete_checkpoint()
    assert list(tmp_path.iterdir()) == []
