"""Early stopping on held-out poisoned images: who is held out, which epoch is chosen, and what is kept of it."""

import pytest
import torch

from helpers.compare import same
from helpers.images import coloured, drawn
from helpers.training import RECIPE, model_of
from relearn.errors import UserError
from relearn.methods.early_stop import EarlyStop
from relearn.probing import metrics
from relearn.probing.probe_set import ProbeSet
from relearn.runtime.seeding import Seeds
from relearn.training import models
from relearn.training.fit import fit


def trained(train, method, **options):
    model = model_of(train).train()
    probe_set = ProbeSet.draw(train, 40, drawn())
    recipe = RECIPE | {"epochs": 4} | options.pop("recipe", {})
    fitted = fit(model, method, train, train, recipe, Seeds("test"), probe_set=probe_set, label="t", **options)
    return fitted, model


@pytest.mark.parametrize("share, expected", [(0.25, 2), (0.1, 1), (1e-9, 1)])
def test_a_share_of_every_class_is_held_out_and_replaced(share, expected, tiny):
    method = EarlyStop(held_out=share)
    left = method.hold_out(tiny, drawn(1))
    held, used = set(method.kept.index.tolist()), set(left.index.tolist())
    assert method.kept.labels.bincount().tolist() == [expected] * 10
    assert len(left) == len(tiny) and not held & used and held | used == set(range(80))
    assert torch.equal(left.images, tiny.images[left.index]) and torch.equal(left.labels, tiny.labels[left.index])
    stays = torch.tensor([k not in held for k in range(80)])
    assert torch.equal(left.index[stays], tiny.index[stays])
    again = EarlyStop(held_out=share)
    again.hold_out(tiny, drawn(1))
    other = EarlyStop(held_out=share)
    other.hold_out(tiny, drawn(2))
    assert torch.equal(again.kept.index, method.kept.index) and not torch.equal(other.kept.index, method.kept.index)


def test_a_class_without_images_is_refused():
    with pytest.raises(UserError, match="early_stop: with held_out: 0.9 a class has no image to train on; give less"):
        EarlyStop(held_out=0.9).hold_out(coloured([2, 40], (32, 32), seed=1), drawn(1))


def test_the_best_epoch_comes_back(tiny, monkeypatch):
    """Accuracies are made up: the second of four epochs is the best, and as good as the third."""
    found, accuracy, seen = iter([20.0, 70.0, 70.0, 10.0]), metrics.accuracy, []
    method = EarlyStop(held_out=0.2)

    def made_up(logits, labels):
        return next(found) if labels is method.kept.labels else accuracy(logits, labels)

    def noting(self, training, act=EarlyStop.on_epoch):
        seen.append(models.weights(training.model))
        act(self, training)

    monkeypatch.setattr(metrics, "accuracy", made_up)
    monkeypatch.setattr(EarlyStop, "on_epoch", noting)
    fitted, model = trained(tiny, method)
    assert method.outcome() == {"epoch": 2, "held_out_accuracy": 70.0}
    assert len(seen) == 4 and same(models.weights(model), seen[1]) and not same(seen[1], seen[3])
    rows = fitted.history  # the last row is that of the weights that are kept
    assert rows[-1]["epoch"] == 4 and rows[-1]["test_accuracy"] == rows[1]["test_accuracy"]
    assert rows[-1]["probe_accuracy"] == rows[1]["probe_accuracy"] == fitted.last_probe.accuracy


def test_a_run_that_was_killed_chooses_the_same(tiny, tmp_path, monkeypatch):
    whole, model = trained(tiny, EarlyStop())
    counts = iter(range(10))

    def killed(self, training, act=EarlyStop.on_epoch):
        if next(counts) == 2:
            raise KeyboardInterrupt
        act(self, training)

    with monkeypatch.context() as patch:
        patch.setattr(EarlyStop, "on_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tiny, EarlyStop(), checkpoint_path=tmp_path / "c")
    method = EarlyStop()
    resumed, again = trained(tiny, method, checkpoint_path=tmp_path / "c")
    assert same(models.weights(model), models.weights(again)) and same(whole.history, resumed.history)
