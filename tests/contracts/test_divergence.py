"""Whatever trains or optimises stops at the first loss that is not finite, names the step, and leaves nothing."""

import pytest
import torch
import torch.nn.functional as F

from helpers.registered import NAMES, cheap, cheap_method, named
from helpers.training import RECIPE, model_of
from relearn import registry
from relearn.crafting import craft as crafting
from relearn.data import save_tensors
from relearn.errors import NotFiniteError, UserError
from relearn.probing.probe_set import ProbeSet
from relearn.runtime.seeding import Seeds
from relearn.training import divergence, models
from relearn.training.fit import fit

at_once = pytest.mark.parametrize("at_once", [("cpu",), ()], ids=["read at every step", "read seldom"])


@pytest.fixture
def losses(monkeypatch):
    """Every loss that is computed, counted; `losses["bad"]` is the number of the one that is not a number."""
    counts = {"computed": 0, "bad": 0}

    def counting(compute):
        def computed(*arguments, **options):
            counts["computed"] += 1
            found = compute(*arguments, **options)
            return found * float("nan") if counts["computed"] == counts["bad"] else found

        return computed

    monkeypatch.setattr(F, "cross_entropy", counting(F.cross_entropy))
    # what a network of infinite width predicts has no other loss
    monkeypatch.setattr(torch.linalg, "matrix_exp", counting(torch.linalg.matrix_exp))
    return counts


@at_once
@named("poisons")
def test_poisons(name, at_once, tiny, craft, losses, tmp_path, monkeypatch):
    monkeypatch.setattr(divergence, "AT_ONCE", at_once)
    monkeypatch.setattr(crafting, "CHECKPOINT_SECONDS", 0.0)  # a checkpoint after each step, where there are any
    if name == "external":
        return
    make, own = registry.load("poisons", name), cheap("poisons", name)

    def run() -> None:
        made = craft(name, tiny)
        made.checkpoint_path = tmp_path / "checkpoint"
        losses["computed"] = 0
        make(tiny, made, **own)
        made.guard.check()
        made.delete_checkpoint()

    run()
    computed = losses["computed"]
    if any(setting.kind in NAMES for setting in registry.entry("poisons", name).settings):
        assert computed  # a poison with a model has a loss
    for bad in sorted({1, computed // 2 + 1, computed}) if computed else ():
        losses["bad"] = bad
        with pytest.raises(
            divergence.DivergedError, match=r"^test: the .* is not finite at .*(step|round|restart|class)"
        ):
            run()
        losses["bad"] = 0
        saved = list(tmp_path.iterdir())
        run()  # from what was saved, which is finite: a checkpoint never holds what the step has spoiled
        assert len(saved) <= 2 and not list(tmp_path.iterdir())


@at_once
@pytest.mark.parametrize("bad", [1, 7, 10])
@named("methods")
def test_methods(name, bad, at_once, tiny, losses, tmp_path, monkeypatch):
    """Of two epochs of five steps; the checkpoint of the first must not stay, since it leads there again."""
    monkeypatch.setattr(divergence, "AT_ONCE", at_once)
    weights = models.weights(model_of(tiny, seed=3))
    method = registry.load("methods", name)(**cheap_method(name, weights, tmp_path))
    model, checkpoint = model_of(tiny), tmp_path / "c"
    method.initialise(model, weights, weights)
    losses["bad"] = bad
    probe_set = ProbeSet.draw(tiny, 40, Seeds("test").generator("probe"))
    how = {"probe_set": probe_set, "label": "train this", "checkpoint_path": checkpoint}
    with pytest.raises(divergence.DivergedError) as raised:
        fit(model.train(), method, tiny, tiny, RECIPE | {"epochs": 2}, Seeds("test"), **how)
    words = str(raised.value)
    assert words.startswith(f"train this: the loss is not finite at step {bad} of 10, learning rate 0.")
    assert (
        words.endswith("give a smaller lr or weight_decay under train:")
        and "\n" not in words
        and not checkpoint.exists()
    )


@pytest.mark.parametrize("lr", [100.0, 3e3, 1e5, 1e8, 1e9])
@named("methods")
def test_a_rate_that_is_far_too_high(name, lr, tiny, tmp_path):
    """Weights overflow in one place or another; the old code gave records of 10 %, or failed after all training."""
    weights, model = models.weights(model_of(tiny, seed=3)), model_of(tiny)
    method = registry.load("methods", name)(**cheap_method(name, weights, tmp_path))
    method.initialise(model, weights, weights)
    probe_set = ProbeSet.draw(tiny, 40, Seeds("test").generator("probe"))
    how = {"probe_set": probe_set, "label": "train this"}
    with pytest.raises(NotFiniteError, match=r"^train this: .*(step \d+ of 15, learning rate|loss of the last epoch)"):
        fit(model.train(), method, tiny, tiny, RECIPE | {"lr": lr}, Seeds("test"), **how)


def test_what_is_not_finite_is_never_saved(tiny, tmp_path):
    model = model_of(tiny)
    with torch.no_grad():
        next(model.parameters())[0] = float("inf")
    with pytest.raises(
        UserError, match=r"not written: its 'network\.block1\.0\.weight' holds values that are not finite"
    ):
        save_tensors(tmp_path / "model.safetensors", models.weights(model), {})
    assert not list(tmp_path.iterdir())
    probe_set = ProbeSet.draw(tiny, 40, Seeds("test").generator("probe"))
    with pytest.raises(UserError, match="activations of layer group 'block1' are not finite|outputs of the network"):
        probe_set.measure(model, lambda x: x, model.layer_groups())


def test_a_guard_that_reads_seldom_names_the_first_bad_step(monkeypatch):
    monkeypatch.setattr(divergence, "AT_ONCE", ())
    guard = divergence.FiniteGuard("job", "remedy")
    for step in range(divergence.EVERY - 1):
        guard.note(torch.tensor(float("inf") if step in (40, 41) else 1.0), "loss", f"step {step}")
    with pytest.raises(divergence.DivergedError, match="^job: the loss is not finite at step 40; nothing was written"):
        guard.note(torch.tensor(1.0), "loss", "step 99")
    guard.check()  # what was read is forgotten
