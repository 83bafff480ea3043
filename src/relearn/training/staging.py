"""The stages of PST: when to probe, when probes mean the trap, and what each stage slows.

Dang et al., 2023 (arXiv 2306.02064) slow shallow layers when the activations show that the perturbation is learned.
Going back to a snapshot, stopping layer groups, and the trigger are ours, as are all definitions (docs/pst.md).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from relearn.probing.probe_set import ProbeResult
from relearn.probing.verdict import KEPT, NOT_TRAPPED, TRAPPED, judge
from relearn.training.state import TrainingState


@dataclass
class Staging:
    """Where a run stands between `early` and its last stage, and the snapshots that it can go back to.

    `groups` are the names of the layer groups, shallow to deep; the other fields that can be set are the settings of
    the method `pst` (docs/pst.md). `snapshots` are the newest ones, oldest first. `start`, if given, changes the
    weights with which the first stage begins: the shallow groups then come from there, so that only the beginning of
    training is worth going back to.
    """

    groups: list[str]
    full_rate_groups: tuple[int, ...] = (2,)
    rate: float = 0.0
    early_rate: float = 1.0
    kept_trapped: float = KEPT
    confirm: int = 2
    probe_steps: int = 20
    dense_epochs: float = 2.0
    probes_per_epoch: int = 2
    max_snapshots: int = 3
    staged_epochs: int | None = None
    start: Callable[[nn.Module], None] | None = None
    stage: int = field(default=0, init=False)  # how many stages have begun
    streak: int = field(default=0, init=False)  # how many probes in a row have shown the trap
    snapshots: list[dict] = field(default_factory=list, init=False)

    def should_probe(self, step: int, steps_per_epoch: int) -> bool:
        """Whether to probe after `step` steps of the schedule; never once the last stage has begun."""
        if self.stage == len(self.full_rate_groups):
            return False
        dense = step <= self.dense_epochs * steps_per_epoch
        return step % (self.probe_steps if dense else max(1, steps_per_epoch // self.probes_per_epoch)) == 0

    def decide(self, result: ProbeResult, step: int) -> Literal["wait", "snapshot", "next_stage"]:
        """What a probe asks for: nothing, a snapshot, or the next stage from the newest snapshot."""
        answer = judge(result, self.kept_trapped).answer
        trapped = step > 0 and answer == TRAPPED
        self.streak = self.streak + 1 if trapped else 0
        if self.streak == self.confirm:
            self.stage, self.streak = self.stage + 1, 0
            return "next_stage"
        return "snapshot" if step == 0 or answer == NOT_TRAPPED else "wait"

    def respond(self, training: TrainingState) -> None:
        """Act on the probe of a run: take a snapshot, or go back to the newest one and begin the next stage there.

        Without a snapshot the next stage begins where the run stands.
        """
        decision = self.decide(training.measure(), training.step)
        if decision == "snapshot" and self.max_snapshots:
            if not (self.start and self.stage == 0 and self.snapshots):
                self.snapshots = [*self.snapshots, training.snapshot()][-self.max_snapshots :]
        elif decision == "next_stage":
            if self.snapshots:
                training.restore(self.snapshots[-1])
            if self.stage == 1:
                self._begin(training)
            training.set_rates(self.rates())
            training.stage = self.name
            if self.stage == 1 and self.start and self.max_snapshots and len(self.full_rate_groups) > 1:
                self.snapshots = [training.snapshot()]

    def _begin(self, training: TrainingState) -> None:
        """Begin the first stage: with other weights, and in a schedule of its own, if settings say so."""
        if self.start:
            self.start(training.model)
            training.forget_measurement()
            self.snapshots = []
        if self.staged_epochs:
            training.steps = self.staged_epochs * training.steps_per_epoch

    def rates(self) -> dict[str, float]:
        """The learning-rate multiplier of each group in the present stage."""
        if self.stage == 0:
            return dict.fromkeys(self.groups, self.early_rate)
        slowed = len(self.groups) - self.full_rate_groups[self.stage - 1]
        return {group: self.rate if place < slowed else 1.0 for place, group in enumerate(self.groups)}

    @property
    def name(self) -> str:
        """`early`, or `stage k`."""
        return f"stage {self.stage}" if self.stage else "early"

    def state(self) -> dict:
        """What a resumed run needs."""
        return {
            "stage": self.stage,
            "streak": self.streak,
            "snapshots": [dict(snapshot) for snapshot in self.snapshots],
        }

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
        self.stage, self.streak = state["stage"], state["streak"]
        self.snapshots = [dict(snapshot) for snapshot in state["snapshots"]]
