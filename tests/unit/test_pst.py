"""PST as a method of the workflow: when it probes, and its state machine."""

import pytest

from helpers.training import GROUPS, run_of
from relearn.errors import UserError
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


class Scripted:
    """In place of a TrainingState: what probes find (ACM at the watched group, accuracy) is written beforehand."""

    def __init__(self, watch: str = "block2"):
        self.watch, self.step, self.stage = watch, 0, "early"
        self.rates = dict.fromkeys(GROUPS, 1.0)
        self.calls: list[str] = []

    def probe(self, method: PST, step: int, acm: float, accuracy: float) -> None:
        self.step = step
        method.rates(GROUPS)
        self.result = ProbeResult(dict.fromkeys(GROUPS, 0.9) | {self.watch: acm}, accuracy)
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
    # untrained: high or not, there is nothing to go back to, and this is where one may go back to
    run.probe(method, 0, 0.99, 0.1)
    run.probe(method, 20, 0.30, 0.3)  # clean
    run.probe(method, 40, 0.45, 0.6)  # clean still
    run.probe(method, 60, 0.48, 0.5)  # neither clean (0.46) nor trapped (0.5)
    assert [snapshot["step"] for snapshot in method.staging.snapshots] == [20, 40] and run.calls == []
    run.probe(method, 80, 0.55, 0.7)  # above 0.5, but below 0.85 * 0.7: the network is better than its middle
    assert (run.stage, run.step, run.calls) == ("early", 80, [])
    run.probe(method, 100, 0.60, 0.7)  # 0.6 > 0.595: trapped
    assert (run.stage, run.step, run.calls) == ("stage 1", 40, ["restore 40", "rates"])
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 1.0, 1.0], strict=True))
    run.probe(method, 60, 0.40, 0.5)  # clean in stage 1
    run.probe(method, 80, 0.90, 0.9)  # trapped again
    assert (run.stage, run.step, run.calls[2:]) == ("stage 2", 60, ["restore 60", "rates"])
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 0.0, 1.0], strict=True))
    assert not method.should_probe(100, 10)  # no stage is left


def test_pst_asks_for_probes_in_a_row():
    method, run = PST(confirm=2), Scripted()
    # a moment, then clean again, then the trap
    for step, acm in ((0, 0.2), (20, 0.3), (40, 0.9), (60, 0.4), (80, 0.9)):
        run.probe(method, step, acm, 0.9)
        assert run.calls == []
    assert [snapshot["step"] for snapshot in method.staging.snapshots] == [
        0,
        20,
        60,
    ]  # none is taken at a probe that shows the trap
    state = method.state()
    run.probe(method, 100, 0.9, 0.9)
    assert (run.stage, run.step) == ("stage 1", 60) and method.staging.streak == 0
    resumed = PST(confirm=2)
    resumed.load_state(state)
    assert resumed.staging.streak == 1


def test_pst_goes_back_to_the_start_when_nothing_later_was_clean():
    method, run = PST(rate=0.1, confirm=1), Scripted()
    run.probe(method, 0, 0.2, 0.1)
    run.probe(method, 20, 0.9, 0.9)
    assert (run.step, run.stage) == (0, "stage 1") and run.rates == dict(
        zip(GROUPS, [0.1, 0.1, 0.1, 1.0, 1.0], strict=True)
    )


def test_pst_stays_early_on_clean_data():
    method, run = PST(), Scripted()
    for step in range(0, 200, 20):
        run.probe(method, step, 0.47, 0.9)
    assert (
        run.stage == "early" and run.calls == [] and [snapshot["step"] for snapshot in method.staging.snapshots] == [0]
    )


def test_pst_watches_the_group_it_is_told():
    for watch, expected in (("block4", "stage 1"), ("block2", "early")):
        method, run = PST(watch=watch, confirm=1), Scripted(watch="block4")
        for run.step, acm in ((0, 0.2), (20, 0.9)):
            run.result = ProbeResult(dict.fromkeys(GROUPS, 0.2) | {"block4": acm}, 0.9)
            method.on_probe(run)
        assert run.stage == expected


def test_pst_watching_a_group_that_is_not_there(tiny):
    """A slip in params.yaml that only the architecture can tell: an error that lists the choices, no KeyError."""
    with pytest.raises(UserError, match=r"block9.*known: block1, block2"):
        run_of(tiny, PST(watch="block9")).take_probe()


def test_pst_without_snapshots_goes_on_from_where_it_is():
    method, run = PST(max_snapshots=0, confirm=1), Scripted()
    run.probe(method, 0, 0.2, 0.1)
    run.probe(method, 20, 0.9, 0.9)
    assert (run.step, run.stage, run.calls) == (20, "stage 1", ["rates"])
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 1.0, 1.0], strict=True))


def test_pst_may_learn_slower_or_faster_before_the_first_stage():
    method, run = PST(early_rate=0.3, confirm=1), Scripted()
    assert method.rates(GROUPS) == dict.fromkeys(GROUPS, 0.3)
    run.probe(method, 0, 0.2, 0.1)
    run.probe(method, 20, 0.9, 0.9)
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 1.0, 1.0], strict=True))
