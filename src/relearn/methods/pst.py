"""Progressive Staged Training. Dang et al., 2023 (arXiv 2306.02064); what of it is ours is told in docs/pst.md."""

from relearn.methods.erm import ERM
from relearn.registry import Count, Fraction, Index, NonNegative, Positive, register
from relearn.staging import Staging


@register
class PST(ERM):
    """Train all layers until the trap shows, go back to before it, and go on with the shallow layer groups slowed.

    The trap is seen on the probe set at the layer group `watch` (null: the middle one): its ACM is above `acm_trapped`,
    and above `ratio_trapped` times the accuracy of the whole network, that is, the middle of the network already
    separates the labels nearly as well as all of it. `confirm` such looks in a row are the trap: a single one may be a
    moment of low accuracy. Then the newest snapshot is restored, momentum is cleared, and stage k slows all but the
    `keep[k]` deepest groups to `rate` times their learning rate; the next stage follows when the trap shows again. A look
    with an ACM below `acm_clean` leaves a snapshot, the newest `snapshots` are kept; with 0 there is no going back, and the
    next stage begins where the run stands. Before the first stage all groups learn at `early_rate` times their rate. Looks
    come every `tick_steps` steps for `dense_epochs` epochs, then `ticks_per_epoch` times an epoch.
    """

    def __init__(
        self,
        *,
        watch: str | None = None,
        keep: list[Count] = [2],  # noqa: B006, read, never changed
        rate: Fraction = 0.0,
        early_rate: Positive = 1.0,
        acm_trapped: Fraction = 0.5,
        ratio_trapped: Positive = 0.85,
        acm_clean: Fraction = 0.46,
        confirm: Count = 2,
        tick_steps: Count = 20,
        dense_epochs: NonNegative = 2.0,
        ticks_per_epoch: Count = 2,
        snapshots: Index = 3,
        **augmentation,
    ):
        super().__init__(**augmentation)
        self.staging = Staging(
            [],
            watch=watch,
            keep=tuple(keep),
            rate=rate,
            early_rate=early_rate,
            acm_trapped=acm_trapped,
            ratio_trapped=ratio_trapped,
            acm_clean=acm_clean,
            confirm=confirm,
            tick_steps=tick_steps,
            dense_epochs=dense_epochs,
            ticks_per_epoch=ticks_per_epoch,
        )
        self.snapshots = snapshots
        self.kept: list[dict] = []  # snapshots, oldest first

    def rates(self, groups: list[str]) -> dict[str, float]:
        self.staging.groups = groups
        return self.staging.rates()

    def ticks(self, step: int, steps_per_epoch: int) -> bool:
        return self.staging.due(step, steps_per_epoch)

    def on_tick(self, run) -> None:
        decision = self.staging.look(run.measure(), run.step)
        if decision == "keep" and self.snapshots:
            self.kept = [*self.kept, run.snapshot()][-self.snapshots :]
        elif decision == "next":
            if self.kept:
                run.restore(self.kept[-1])
            run.clear_momentum()
            run.set_rates(self.staging.rates())
            run.stage = self.staging.name

    def state(self) -> dict:
        return self.staging.state() | {"kept": self.kept}

    def load_state(self, state: dict) -> None:
        self.staging.load_state(state)
        self.kept = state["kept"]
