"""Progressive Staged Training. Dang et al., 2023 (arXiv 2306.02064); docs/pst.md says what of it is ours."""

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import (
    Fraction,
    GroupCount,
    GroupName,
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

    The trap shows on the probe set at the layer group `watch` (null: the middle one): its ACM is more than
    `acm_trapped`, and more than `ratio_trapped` times the accuracy of the whole network, that is, the middle of the
    network already separates the labels nearly as well as all of it. `confirm` such probes in a row are the trap, since
    a single one can be a moment of low accuracy. Then the newest snapshot is restored, and stage k slows all but the
    `full_rate_groups[k]` deepest groups to `rate` times their learning rate; the next stage follows when the trap shows
    again. A probe with an ACM of less than `acm_clean` leaves a snapshot. The newest `max_snapshots` are stored; with 0
    there is no roll-back, and the next stage begins where the run stands. Before the first stage all groups learn at
    `early_rate` times their rate. There is a probe every `probe_steps` steps for `dense_epochs` epochs, then
    `probes_per_epoch` times an epoch.
    """

    def __init__(
        self,
        *,
        watch: GroupName | None = None,
        full_rate_groups: list[GroupCount] = [2],  # noqa: B006, read, never changed; defaults must be literals
        rate: Fraction = 0.0,
        early_rate: Positive = 1.0,
        acm_trapped: Fraction = 0.5,
        ratio_trapped: Positive = 0.85,
        acm_clean: Fraction = 0.46,
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
            watch=watch,
            full_rate_groups=tuple(full_rate_groups),
            rate=rate,
            early_rate=early_rate,
            acm_trapped=acm_trapped,
            ratio_trapped=ratio_trapped,
            acm_clean=acm_clean,
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
