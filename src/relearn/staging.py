"""The state machine of PST: when to look, when looks mean the trap, and what each stage slows. It knows no model.

Dang et al., 2023 (arXiv 2306.02064) name the idea; the definitions are ours (docs/pst.md).
"""

from dataclasses import dataclass, field
from typing import Literal

from relearn import probe
from relearn.errors import Fault
from relearn.probe import Reading
from relearn.registry import nearest


@dataclass
class Staging:
    """Where a run stands between `early` and its last stage.

    `groups` are the names of the layer groups, shallow to deep; the other fields are the settings of the method `pst`.
    """

    groups: list[str]
    watch: str | None = None
    keep: tuple[int, ...] = (2,)
    rate: float = 0.0
    early_rate: float = 1.0
    acm_trapped: float = 0.5
    ratio_trapped: float = 0.85
    acm_clean: float = 0.46
    confirm: int = 2
    tick_steps: int = 20
    dense_epochs: float = 2.0
    ticks_per_epoch: int = 2
    stage: int = field(default=0, init=False)  # how many stages have begun
    hot: int = field(default=0, init=False)  # how many looks in a row have shown the trap

    def due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether to look after `step` steps; never once the last stage has begun."""
        if self.stage == len(self.keep):
            return False
        dense = step <= self.dense_epochs * steps_per_epoch
        return step % (self.tick_steps if dense else max(1, steps_per_epoch // self.ticks_per_epoch)) == 0

    def look(self, reading: Reading, step: int) -> Literal["wait", "keep", "next"]:
        """What a look says: nothing, keep a snapshot to go back to, or go back to the newest one and begin the next stage.

        Raises Fault when the watched group is none of the groups.
        """
        watch = self.watch or probe.middle(reading)
        if watch not in reading.acm:
            raise Fault(
                f"pst: watch: '{watch}' is not a layer group of this architecture; {nearest(watch, reading.acm)}"
            )
        hot = step > 0 and probe.trapped(reading, watch, self.acm_trapped, self.ratio_trapped)
        self.hot = self.hot + 1 if hot else 0
        if self.hot == self.confirm:
            self.stage, self.hot = self.stage + 1, 0
            return "next"
        return "keep" if not hot and (step == 0 or reading.acm[watch] < self.acm_clean) else "wait"

    def rates(self) -> dict[str, float]:
        """The learning-rate multiplier of each group in the present stage."""
        if self.stage == 0:
            return dict.fromkeys(self.groups, self.early_rate)
        kept = self.keep[self.stage - 1]
        return {
            group: 1.0 if place >= len(self.groups) - kept else self.rate for place, group in enumerate(self.groups)
        }

    @property
    def name(self) -> str:
        """`early`, or `stage k`."""
        return f"stage {self.stage}" if self.stage else "early"

    def state(self) -> dict:
        """What a resumed run needs."""
        return {"stage": self.stage, "hot": self.hot}

    def load_state(self, state: dict) -> None:
        """Take back what `state` gave."""
        self.stage, self.hot = state["stage"], state["hot"]
