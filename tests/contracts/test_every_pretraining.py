"""What holds for every pretraining."""

import math

import pytest
import torch

from helpers.compare import same, stir
from helpers.images import DEVICE, drawn
from helpers.registered import cheap, named
from helpers.training import RECIPE, model_of
from relearn import registry
from relearn.errors import UserError
from relearn.probing.probe_set import ProbeSet
from relearn.runtime.seeding import Seeds
from relearn.training import fit, models

SHARED = RECIPE | {"probe_size": 40}
OWN = {"epochs": 3, "batch": 16}  # `tiny`: 5 steps an epoch


def made(name: str, **settings):
    return registry.load("pretraining", name)(**cheap("pretraining", name) | OWN | settings)


def pretrained(name: str, train, checkpoint_path=None, shared=SHARED, **settings):
    train = train.to(DEVICE)
    model, stage = model_of(train), made(name, **settings)
    recipe = stage.recipe(shared, len(train))
    stage.attach(model, drawn(3))
    how = {"label": "pretrain this", "section": "pretraining.this", "checkpoint_path": checkpoint_path}
    how |= {"probe_set": ProbeSet.draw(train, recipe["probe_size"], drawn())}
    fitted = fit.fit(model, stage, train, None, recipe, Seeds("test"), **how)
    stage.detach(model)
    return models.weights(model), fitted


@named("pretraining")
def test_pretrainings(name, tiny):
    stir(1)
    weights, fitted = pretrained(name, tiny)
    stir(2)
    again, fitted_again = pretrained(name, tiny)
    assert same(weights, again) and same(fitted.history, fitted_again.history)
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3] and fitted.steps_taken == fitted.steps == 15
    fresh = models.weights(model_of(tiny))
    assert {key: t.shape for key, t in weights.items()} == {key: t.shape for key, t in fresh.items()}
    moved = {key for key in fresh if not torch.equal(weights[key], fresh[key])}
    assert moved >= {f"network.block{k}.0.weight" for k in (1, 2, 3, 4)}  # it did train
    for row in fitted.history:
        assert "test_accuracy" not in row and 0 <= row["train_accuracy"] <= 100
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))


@named("pretraining")
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_pretrainings_take_what_the_recipe_has(name, optimizer, tiny):
    """Any optimizer, a momentum of 0, and a micro-batch, of which pretrainings make no use."""
    shared = SHARED | {"optimizer": optimizer, "micro_batch": 4}
    weights, fitted = pretrained(name, tiny, shared=shared, epochs=1, lr=0.003, momentum=0.0)
    assert fitted.steps == 5 and not same(weights, models.weights(model_of(tiny)))


@pytest.mark.parametrize("name", ["contrastive", "supervised"])
def test_pretrainings_learn(name, tiny):
    _, fitted = pretrained(name, tiny, epochs=8, lr=0.05, convolve=0.1, jitter=0.1, mix=0.1)
    first, last = fitted.history[0], fitted.history[-1]
    assert last["train_loss"] < first["train_loss"] and last["train_accuracy"] > 100 / 10


class KilledError(Exception):
    """Stands for a kill."""


@named("pretraining")
@pytest.mark.parametrize("after", [3, 5, 12])
def test_a_killed_pretraining_resumes_to_the_same_bytes(name, after, tiny, tmp_path, monkeypatch):
    """Before, at and beyond the first checkpoint, which is that of the first epoch."""
    undisturbed, fitted = pretrained(name, tiny)
    advance, taken = fit.Run.advance, []

    def failing(run):
        if run.training.steps_taken == after:
            raise KilledError
        advance(run)

    monkeypatch.setattr(fit.Run, "advance", failing)
    with pytest.raises(KilledError):
        pretrained(name, tiny, tmp_path / "checkpoint")
    monkeypatch.setattr(fit.Run, "advance", lambda run: taken.append(run.training.step) or advance(run))
    stir(1)
    resumed, fitted_again = pretrained(name, tiny, tmp_path / "checkpoint")
    assert taken == list(range(after // 5 * 5, 15))
    assert same(resumed, undisturbed) and same(fitted.history, fitted_again.history)
    assert list(tmp_path.iterdir()) == []


@named("pretraining")
def test_the_recipe_of_pretrainings(name):
    stage = made(name, warmup=0.3, lr=0.7, momentum=0.2)
    recipe = stage.recipe(SHARED | {"crop_pad": 4, "flip": True, "weight_decay": 0.01}, 80)
    assert set(recipe) == set(SHARED)
    assert (recipe["epochs"], recipe["batch"], recipe["lr"], recipe["momentum"]) == (3, 16, 0.7, 0.2)
    assert (recipe["schedule"], recipe["warmup_steps"]) == ("linear", 4)  # 0.3 of 15
    assert (recipe["crop_pad"], recipe["flip"], recipe["weight_decay"]) == (0, False, 0.01)
    assert recipe["nesterov"] and not made(name, momentum=0.0).recipe(SHARED, 80)["nesterov"]


@named("pretraining")
def test_messages_name_the_entry(name, tiny):
    with pytest.raises(UserError, match=r"^pretraining\.this\.batch is 81, but the training set has 80 images"):
        pretrained(name, tiny, batch=81)
    with pytest.raises(UserError, match=r"^train\.probe_size is 19, but a probe set needs 2 images"):
        pretrained(name, tiny, shared=SHARED | {"probe_size": 19})


@named("pretraining")
def test_views_differ_and_keep_their_labels(name, tiny):
    """Both views are drawn anew; the loss sees the batch twice and answers for each view."""
    stage, model = made(name), model_of(tiny)
    stage.attach(model, drawn(3))
    x, y = tiny.images[:16].permute(0, 3, 1, 2).float() / 255, tiny.labels[:16]
    one, two = stage.views(x, drawn(1))
    assert one.shape == two.shape == x.shape and not torch.equal(one, two)
    seen = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    loss, right = stage.loss(model, x, y, drawn(1), torch.nn.CrossEntropyLoss())
    assert torch.equal(seen[0], one) and torch.equal(seen[1], two) and len(seen) == 2
    assert loss.shape == () and right.shape == (32,) and right.dtype == torch.bool
