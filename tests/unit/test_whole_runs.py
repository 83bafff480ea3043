"""Whole runs of training: PST from end to end, a run interrupted and resumed, and what a roll-back leaves."""

import pytest
import torch

from helpers.compare import same, stir
from helpers.images import drawn
from helpers.training import ALWAYS_TRAPPED, GROUPS, NEVER_TRAPPED, RECIPE, model_of
from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.methods.pst import PST
from relearn.probing.probe_set import ProbeSet
from relearn.runtime.seeding import Seeds
from relearn.training import checkpoint, fit, models

pytestmark = pytest.mark.usefixtures("decided_by_limit")


class LatePST(PST):
    """Sees no trap before step 8."""

    def on_probe(self, training) -> None:
        self.staging.kept_trapped = (ALWAYS_TRAPPED if training.step >= 8 else NEVER_TRAPPED)["kept_trapped"]
        super().on_probe(training)


# every probe but the first shows the trap
EAGER = ALWAYS_TRAPPED | {"dense_epochs": 9.0}
METHODS = {
    "erm": lambda: ERM(jitter=0.2, gray=0.5),
    "pst": lambda: PST(full_rate_groups=[3, 2], probe_steps=4, **EAGER),  # back to the start at steps 4 and 4
    "late pst": lambda: LatePST(full_rate_groups=[2], probe_steps=4, rate=0.5, **EAGER),  # from step 8 back to step 4
}


def fitted(train, method, checkpoint_path=None, **recipe) -> tuple[dict, fit.Fitted]:
    model, found = model_of(train), ProbeSet.draw(train, 40, drawn())
    how = {"probe_set": found, "label": "test", "checkpoint_path": checkpoint_path}
    done = fit.fit(model, method, train, train, RECIPE | recipe, Seeds("test"), **how)
    return models.weights(model), done


def test_pst_from_end_to_end(tiny):
    _, done = fitted(tiny, METHODS["pst"]())
    assert [row["epoch"] for row in done.history] == [1, 2, 3] and done.steps == 15
    assert done.steps_taken == 15 + 4 + 4  # it went back twice
    assert [(row["step"], row["stage"], row["next_step"], row["next_stage"]) for row in done.probes] == [
        (0, "early", 0, "early"),
        (4, "early", 0, "stage 1"),
        (4, "stage 1", 0, "stage 2"),
    ]
    assert [row["steps_taken"] for row in done.probes] == [0, 4, 8]
    assert all(
        row["rate_block3"] == 0.0 and row["rate_block4"] == 1.0 and row["stage"] == "stage 2" for row in done.history
    )


def test_pst_resumes_in_the_middle_of_an_epoch(tiny):
    _, done = fitted(tiny, METHODS["late pst"]())
    assert [(row["step"], row["next_step"], row["next_stage"]) for row in done.probes] == [
        (0, 0, "early"),
        (4, 4, "early"),
        (8, 4, "stage 1"),
    ]
    assert done.steps_taken == 19 and [(row["epoch"], row["stage"]) for row in done.history] == [
        (1, "stage 1"),
        (2, "stage 1"),
        (3, "stage 1"),
    ]
    # the sums of step 4 and one step more
    assert done.history[0]["rate_block1"] == 0.5 and 0 < done.history[0]["train_loss"] < 10


class InterruptError(Exception):
    pass


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("after", [3, 8, 14])
def test_a_resumed_run_ends_with_the_same_bytes(name, after, tiny, tmp_path, monkeypatch):
    """Killed after so many steps: before, at and beyond the first checkpoint, and on both sides of a roll-back."""
    undisturbed = fitted(tiny, METHODS[name]())
    path, advance = tmp_path / "here" / "checkpoint", fit.Run.advance

    def failing(run):
        if run.training.steps_taken == after:
            raise InterruptError
        advance(run)

    monkeypatch.setattr(fit.Run, "advance", failing)
    stir(1)
    with pytest.raises(InterruptError):
        fitted(tiny, METHODS[name](), path)
    stir(2)
    taken = []
    monkeypatch.setattr(fit.Run, "advance", lambda run: taken.append(run.training.steps_taken) or advance(run))
    resumed = fitted(tiny, METHODS[name](), path)
    if name == "erm":
        assert taken == list(range(after // 5 * 5, 15))  # from the last epoch's end, not from the start
    assert same(resumed[0], undisturbed[0])
    assert same(vars(resumed[1]) | {"last_probe": None}, vars(undisturbed[1]) | {"last_probe": None})
    assert resumed[1].last_probe == undisturbed[1].last_probe
    assert list(tmp_path.glob("here/*")) == []


def test_checkpoints_come_as_often_as_told(tiny, tmp_path, monkeypatch):
    saved, save = [], checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda path, state: saved.append(state["run"]["training"]["step"]) or save(path, state)
    )
    fitted(tiny, ERM(), tmp_path / "checkpoint", epochs=5, checkpoint_epochs=2)
    assert saved == [10, 20]


def test_checkpoint_keeps_every_kind_of_value(tmp_path):
    state = {
        **{
            "tensor": torch.tensor([[1.5, -2.0]]),
            "half": torch.tensor([1.0], dtype=torch.bfloat16),
            "count": torch.tensor(3),
        },
        **{
            "nested": [{"a": torch.arange(3)}, [], {}, None, True, "text"],
            "float": 0.1 + 0.2,
            "order": {"b": 1, "a": 2},
        },
        "settings_hash": "0",
    }
    checkpoint.save(tmp_path / "state", state)
    assert same(checkpoint.load(tmp_path / "state", "cpu"), state)
    content = (tmp_path / "state").read_bytes()
    (tmp_path / "state").write_bytes(content[:-1])
    with pytest.raises(UserError, match="corrupt or not written by relearn"):
        checkpoint.load(tmp_path / "state", "cpu")


# What a run leaves


def test_a_run_is_embedded_after_its_first_epoch_and_at_its_end(tiny):
    _, done = fitted(tiny, ERM())
    assert [row["epoch"] for row in done.embeddings] == [1] * 20 + [3] * 20 and done.rolled_back == []
    assert {row["group"] for row in done.embeddings} == {"block2"}
    first, last = ([(row["x"], row["y"]) for row in done.embeddings if row["epoch"] == epoch] for epoch in (1, 3))
    assert first != last


class Late(ERM):
    """Goes back once, from step 12 to step 4, which lies in the first epoch, and trains only the head from there."""

    def __init__(self):
        super().__init__()
        self.snapshot = None

    def should_probe(self, step: int, steps_per_epoch: int) -> bool:
        return step in (4, 12)

    def on_probe(self, training) -> None:
        if training.step == 4:
            self.snapshot = training.snapshot()
        elif training.stage == "early":
            training.restore(self.snapshot)
            training.set_rates({name: float(name == "head") for name in training.rates})
            training.stage = "stage 1"


def test_rows_after_a_roll_back_are_set_aside(tiny):
    (_, done), (_, plain) = fitted(tiny, Late()), fitted(tiny, ERM())
    assert [(row["epoch"], row["steps_taken"]) for row in done.rolled_back] == [(1, 5), (2, 10)]
    assert [(row["epoch"], row["steps_taken"]) for row in done.history] == [(1, 13), (2, 18), (3, 23)]
    assert done.rolled_back == plain.history[:2] and done.history[0] != plain.history[0]
    # the first epoch is embedded as it stands in the history, not as it was before
    assert [row["epoch"] for row in done.embeddings] == [1] * 20 + [3] * 20
    assert done.embeddings[:20] != plain.embeddings[:20]


def test_probes_say_which_rates_hold_from_there_on(tiny):
    rates = [tuple(row[f"rate_{name}"] for name in GROUPS) for row in fitted(tiny, Late())[1].probes]
    assert rates == [(1.0,) * 5, (0.0,) * 4 + (1.0,), (0.0,) * 4 + (1.0,)]  # at steps 4, 12, and 12 once more
