"""Progressive Staged Training. Dang et al., 2023 (arXiv 2306.02064); docs/pst.md says what of it is ours."""

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import (
    Fraction,
    GroupCount,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    group_count_error,
    register,
)
from relearn.training.staging import Staging
from relearn.training.state import TrainingState


@register
class PST(ERM):
    """Train all layers until the trap shows, go back to before it, and go on with the shallow layer groups slowed.

    A probe shows the trap when the network surely keeps less than `kept_trapped` of its accuracy above chance on the
    probe set once a view hides perturbations (relearn.probing.verdict). `confirm` such probes in a row are the trap.
    Then the newest snapshot is restored, and stage k slows all but the `full_rate_groups[k]` deepest groups to `rate`
    times their learning rate; the next stage follows when the trap shows again. A probe at which the network surely
    keeps more leaves a snapshot, and so does the one before training. The newest `max_snapshots` are stored; with 0
    there is no roll-back, and the next stage begins where the run stands. Before the first stage all groups learn at
    `early_rate` times their rate. There is a probe every `probe_steps` steps for `dense_epochs` epochs, then
    `probes_per_epoch` times an epoch.
    """

    def __init__(
        self,
        *,
        full_rate_groups: list[GroupCount] = [2],  # noqa: B006, read, never changed; defaults must be literals
        rate: Fraction = 0.0,
        early_rate: Positive = 1.0,
        kept_trapped: Positive = 0.5,
        confirm: PositiveInt = 2,
        probe_steps: PositiveInt = 20,
        dense_epochs: NonNegative = 2.0,
        probes_per_epoch: PositiveInt = 2,
        max_snapshots: NonNegativeInt = 3,
        **augmentation,
    ):
        super().__init__(**augmentation)
        self.staging = Staging(
            [],
            full_rate_groups=tuple(full_rate_groups),
            rate=rate,
            early_rate=early_rate,
            kept_trapped=kept_trapped,
            confirm=confirm,
            probe_steps=probe_steps,
            dense_epochs=dense_epochs,
            probes_per_epoch=probes_per_epoch,
            max_snapshots=max_snapshots,
        )

    def rates(self, groups: list[str]) -> dict[str, float]:
        """`early_rate` everywhere. Raises UserError when a later stage would slow nothing, or there is none."""
        counts = self.staging.full_rate_groups
        found = [error for count in counts if (error := group_count_error(count, groups))]
        if not counts or found:
            raise UserError(f"pst: full_rate_groups {found[0] if found else 'is empty, so that no stage ever begins'}")
        self.staging.groups = groups
        return self.staging.rates()

    def should_probe(self, step: int, steps_per_epoch: int) -> bool:
        """Often at first, later a few times an epoch, until the last stage begins."""
        return self.staging.should_probe(step, steps_per_epoch)

    def on_probe(self, training: TrainingState) -> None:
        """Take a snapshot, go back to one, or neither."""
        self.staging.respond(training)

    def state(self) -> dict:
        """Stage, streak and snapshots."""
        return self.staging.state()

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
        self.staging.load_state(state)
