"""The stages of PST: when to probe, when probes mean the trap, and what each stage slows.

Dang et al., 2023 (arXiv 2306.02064) slow shallow layers when the activations show that the perturbation is learned.
Going back to a snapshot, stopping layer groups, and the trigger are ours, as are all definitions (docs/pst.md).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from relearn.probing.probe_set import ProbeResult
from relearn.probing.verdict import KEPT, KEPT_CLUSTERED, NOT_TRAPPED, TRAPPED, judge
from relearn.training.state import TrainingState


@dataclass
class Staging:
    """Where a run stands between `early` and its last stage, and the snapshots that it can go back to.

    `groups` are the names of the layer groups, shallow to deep; the other fields that can be set are the settings of
    the method `pst` (docs/pst.md). `snapshots` are the newest ones, oldest first. `start`, if given, puts pretrained
    weights into the groups that the present stage slows. Then, and with `augmented_first`, every stage begins anew: it
    restarts at step 0 from the initial weights.
    """

    groups: list[str]
    full_rate_groups: tuple[int, ...] = (2,)
    rate: float = 0.0
    early_rate: float = 1.0
    kept_trapped: float = KEPT
    kept_clustered: float = KEPT_CLUSTERED
    confirm: int = 2
    probe_steps: int = 20
    dense_epochs: float = 2.0
    probes_per_epoch: int = 2
    max_snapshots: int = 3
    staged_epochs: int | None = None
    augmented_first: bool = False
    start: Callable[[nn.Module], None] | None = None
    stage: int = field(default=0, init=False)  # how many stages have begun
    streak: int = field(default=0, init=False)  # how many probes in a row have shown the trap
    snapshots: list[dict] = field(default_factory=list, init=False)

    def should_probe(self, step: int, steps_per_epoch: int) -> bool:
        """Whether to probe after `step` steps of the schedule; never once the last stage has begun."""
        if self.stage == len(self.learning):
            return False
        dense = step <= self.dense_epochs * steps_per_epoch
        return step % (self.probe_steps if dense else max(1, steps_per_epoch // self.probes_per_epoch)) == 0

    def decide(self, result: ProbeResult, step: int) -> Literal["wait", "snapshot", "next_stage"]:
        """What a probe asks for: nothing, a snapshot, or the next stage from the newest snapshot."""
        answer = judge(result, self.kept_trapped, self.kept_clustered).answer
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
        if decision == "snapshot" and self.max_snapshots and not (self.anew and self.snapshots):
            self.snapshots = [*self.snapshots, training.snapshot()][-self.max_snapshots :]
        elif decision == "next_stage":
            if self.snapshots:
                training.restore(self.snapshots[-1])
            if self.anew:
                self._begin_anew(training)
            training.set_rates(self.rates())
            training.stage = self.name

    @property
    def learning(self) -> tuple[int, ...]:
        """For each stage how many of the deepest groups learn at the full rate; of the first perhaps all."""
        return (len(self.groups), *self.full_rate_groups) if self.augmented_first else self.full_rate_groups

    @property
    def anew(self) -> bool:
        """Whether stages begin anew, so that there is but one snapshot: of step 0."""
        return self.augmented_first or self.start is not None

    def _begin_anew(self, training: TrainingState) -> None:
        """Begin a stage at step 0, with a schedule of its own, and pretrained weights where groups are slowed."""
        if self.start and self.learning[self.stage - 1] < len(self.groups):
            self.start(training.model)
            training.forget_measurement()
        if self.staged_epochs:
            training.steps = self.staged_epochs * training.steps_per_epoch

    def rates(self) -> dict[str, float]:
        """The learning-rate multiplier of each group in the present stage."""
        if self.stage == 0:
            return dict.fromkeys(self.groups, self.early_rate)
        slowed = len(self.groups) - self.learning[self.stage - 1]
        return {group: self.rate if place < slowed else 1.0 for place, group in enumerate(self.groups)}

    @property
    def name(self) -> str:
        """`early`, or `stage k`."""
        return f"stage {self.stage}" if self.stage else "early"

    @staticmethod
    def number(name: str) -> int:
        """The number of the stage of this `name`, 0 for `early`."""
        return int(name.removeprefix("stage ")) if name != "early" else 0

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
