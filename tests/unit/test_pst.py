"""PST as a method of the workflow: when it probes, and its state machine."""

import pytest

from helpers.training import GROUPS, probe_result
from relearn.methods.pst import PST
from relearn.probing.probe_set import ProbeResult


def probed(method: PST, steps: int, steps_per_epoch: int) -> list[int]:
    return [step for step in range(steps + 1) if method.should_probe(step, steps_per_epoch)]


@pytest.mark.parametrize(
    "settings, steps_per_epoch, expected",
    [
        ({"probe_steps": 3, "dense_epochs": 1.0, "probes_per_epoch": 2}, 10, [0, 3, 6, 9, 15, 20, 25, 30]),
        ({"probe_steps": 4, "dense_epochs": 1.5, "probes_per_epoch": 1}, 10, [0, 4, 8, 12, 20, 30]),
        ({"probe_steps": 20, "dense_epochs": 2.0, "probes_per_epoch": 2}, 10, [0, 20, 25, 30]),
        ({"probe_steps": 20, "dense_epochs": 0.0, "probes_per_epoch": 3}, 10, [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30]),
        (
            {"probe_steps": 7, "dense_epochs": 2.0, "probes_per_epoch": 5},
            2,
            [0, *range(5, 31)],
        ),  # more probes than steps: every step
    ],
)
def test_when_to_probe(settings, steps_per_epoch, expected):
    assert probed(PST(**settings), 30, steps_per_epoch) == expected


def test_probes_end_with_the_last_stage():
    method = PST(probe_steps=5, full_rate_groups=[2, 1])
    method.staging.stage = 1
    assert probed(method, 20, 10) == [0, 5, 10, 15, 20]
    method.staging.stage = 2
    assert probed(method, 20, 10) == []


CLEAN, UNSURE, HIDDEN = 0.8, 0.5, 0.1  # the share of accuracy kept


class Scripted:
    """In place of a TrainingState: what probes find (the share of accuracy kept) is written beforehand."""

    def __init__(self, acm: float = 0.3):
        self.acm = acm
        self.step, self.stage = 0, "early"
        self.rates = dict.fromkeys(GROUPS, 1.0)
        self.calls: list[str] = []

    def probe(self, method: PST, step: int, kept: float, accuracy: float = 0.91) -> None:
        self.step = step
        method.rates(GROUPS)
        self.result = probe_result(kept, accuracy, self.acm)
        method.on_probe(self)

    def measure(self) -> ProbeResult:
        return self.result

    def snapshot(self) -> dict:
        return {"step": self.step, "rates": dict(self.rates), "stage": self.stage}

    def restore(self, snapshot: dict) -> None:
        self.calls.append(f"restore {snapshot['step']}")
        self.step, self.rates, self.stage = snapshot["step"], dict(snapshot["rates"]), snapshot["stage"]

    def set_rates(self, rates: dict[str, float]) -> None:
        self.calls.append("rates")
        self.rates = dict(rates)


def test_pst_goes_back_to_the_newest_clean_snapshot_and_through_its_stages():
    method, run = PST(full_rate_groups=[2, 1], rate=0.0, max_snapshots=2, confirm=1), Scripted()
    run.probe(method, 0, HIDDEN)  # untrained: there is nothing to go back to, and this is where one may go back to
    run.probe(method, 20, CLEAN)
    run.probe(method, 40, 0.55)  # clean still
    run.probe(method, 60, UNSURE)  # neither: it is the limit
    run.probe(method, 80, HIDDEN, accuracy=0.15)  # nothing is learned yet
    assert [snapshot["step"] for snapshot in method.staging.snapshots] == [20, 40] and run.calls == []
    run.probe(method, 100, 0.45)
    assert (run.stage, run.step, run.calls) == ("stage 1", 40, ["restore 40", "rates"])
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 1.0, 1.0], strict=True))
    run.probe(method, 60, CLEAN)  # in stage 1
    run.probe(method, 80, HIDDEN)  # trapped again
    assert (run.stage, run.step, run.calls[2:]) == ("stage 2", 60, ["restore 60", "rates"])
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 0.0, 1.0], strict=True))
    assert not method.should_probe(100, 10)  # no stage is left


def test_pst_asks_for_probes_in_a_row():
    method, run = PST(confirm=2), Scripted()
    # a moment, then clean again, then the trap
    for step, kept in ((0, CLEAN), (20, CLEAN), (40, HIDDEN), (60, CLEAN), (80, HIDDEN)):
        run.probe(method, step, kept)
        assert run.calls == []
    # none is taken at a probe that shows the trap
    assert [snapshot["step"] for snapshot in method.staging.snapshots] == [0, 20, 60]
    state = method.state()
    run.probe(method, 100, HIDDEN)
    assert (run.stage, run.step) == ("stage 1", 60) and method.staging.streak == 0
    resumed = PST(confirm=2)
    resumed.load_state(state)
    assert resumed.staging.streak == 1


def test_pst_goes_back_to_the_start_when_nothing_later_was_clean():
    method, run = PST(rate=0.1, confirm=1), Scripted()
    run.probe(method, 0, CLEAN)
    run.probe(method, 20, HIDDEN)
    assert (run.step, run.stage) == (0, "stage 1")
    assert run.rates == dict(zip(GROUPS, [0.1, 0.1, 0.1, 1.0, 1.0], strict=True))


def test_pst_stays_early_where_nothing_shows():
    method, run = PST(), Scripted()
    for step in range(0, 200, 20):
        run.probe(method, step, UNSURE)
    assert run.stage == "early" and run.calls == []
    assert [snapshot["step"] for snapshot in method.staging.snapshots] == [0]


def test_the_limit_is_a_setting():
    for limit, expected in ((0.2, "early"), (0.6, "stage 1")):
        method, run = PST(kept_trapped=limit, confirm=1), Scripted()
        run.probe(method, 0, CLEAN)
        run.probe(method, 20, 0.4)
        assert run.stage == expected


def test_clustered_activations_raise_the_limit_unless_that_is_off():
    for limit, expected in ((0.0, "early"), (0.7, "stage 1")):
        method, run = PST(kept_clustered=limit, confirm=1), Scripted(acm=0.9)
        run.probe(method, 0, CLEAN)
        run.probe(method, 20, 0.6)
        assert run.stage == expected


def test_pst_without_snapshots_goes_on_from_where_it_is():
    method, run = PST(max_snapshots=0, confirm=1), Scripted()
    run.probe(method, 0, CLEAN)
    run.probe(method, 20, HIDDEN)
    assert (run.step, run.stage, run.calls) == (20, "stage 1", ["rates"])
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 1.0, 1.0], strict=True))


def test_pst_may_learn_slower_or_faster_before_the_first_stage():
    method, run = PST(early_rate=0.3, confirm=1), Scripted()
    assert method.rates(GROUPS) == dict.fromkeys(GROUPS, 0.3)
    run.probe(method, 0, CLEAN)
    run.probe(method, 20, HIDDEN)
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 1.0, 1.0], strict=True))
