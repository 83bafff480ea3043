"""Progressive Staged Training. Dang et al., 2023 (arXiv 2306.02064); what of it is ours is told in docs/pst.md."""

from relearn import probe
from relearn.errors import Fault
from relearn.methods.erm import ERM
from relearn.registry import Count, Fraction, NonNegative, Positive, nearest, register


@register
class PST(ERM):
    """Train all layers until the trap shows, go back to before it, and go on with the shallow layer groups slowed.

    The trap is seen on the probe set at the layer group `watch` (null: the middle one): its ACM is above `acm_trapped`,
    and above `ratio_trapped` times the accuracy of the whole network, that is, the middle of the network already
    separates the labels nearly as well as all of it. `confirm` such looks in a row are the trap: a single one may be a
    moment of low accuracy. Then the newest snapshot is restored, momentum is cleared, and stage k slows all but the
    `keep[k]` deepest groups to `rate` times their learning rate; the next stage follows when the trap shows again. A look
    with an ACM below `acm_clean` leaves a snapshot, the newest `snapshots` are kept. Looks come every `tick_steps` steps
    for `dense_epochs` epochs, then `ticks_per_epoch` times an epoch.
    """

    def __init__(
        self,
        *,
        watch: str | None = None,
        keep: list[Count] = [2],  # noqa: B006, read, never changed
        rate: Fraction = 0.0,
        acm_trapped: Fraction = 0.5,
        ratio_trapped: Positive = 0.85,
        acm_clean: Fraction = 0.46,
        confirm: Count = 2,
        tick_steps: Count = 20,
        dense_epochs: NonNegative = 2.0,
        ticks_per_epoch: Count = 2,
        snapshots: Count = 3,
        gray: Fraction = 0.0,
        jitter: Fraction = 0.0,
    ):
        super().__init__(gray=gray, jitter=jitter)
        self.watch, self.keep, self.rate = watch, keep, rate
        self.acm_trapped, self.ratio_trapped, self.acm_clean, self.confirm = acm_trapped, ratio_trapped, acm_clean, confirm
        self.tick_steps, self.dense_epochs, self.ticks_per_epoch = tick_steps, dense_epochs, ticks_per_epoch
        self.snapshots = snapshots
        self.stage = 0  # how many stages have begun
        self.hot = 0  # how many looks in a row have shown the trap
        self.kept: list[dict] = []  # snapshots, oldest first

    def ticks(self, step: int, steps_per_epoch: int) -> bool:
        if self.stage == len(self.keep):
            return False
        dense = step <= self.dense_epochs * steps_per_epoch
        return step % (self.tick_steps if dense else max(1, steps_per_epoch // self.ticks_per_epoch)) == 0

    def on_tick(self, run) -> None:
        reading = run.measure()
        watch = self.watch or probe.middle(reading)
        if watch not in reading.acm:
            raise Fault(f"pst: watch: '{watch}' is not a layer group of this architecture; {nearest(watch, reading.acm)}")
        hot = run.step > 0 and probe.trapped(reading, watch, self.acm_trapped, self.ratio_trapped)
        self.hot = self.hot + 1 if hot else 0
        if self.hot == self.confirm:
            self._next_stage(run)
        elif not hot and (not run.step or reading.acm[watch] < self.acm_clean):
            self.kept = [*self.kept, run.snapshot()][-self.snapshots :]

    def _next_stage(self, run) -> None:
        groups = list(run.rates)
        slowed = groups[: max(0, len(groups) - self.keep[self.stage])]
        run.restore(self.kept[-1])
        run.clear_momentum()
        run.set_rates({group: self.rate if group in slowed else 1.0 for group in groups})
        self.stage, self.hot = self.stage + 1, 0
        run.stage = f"stage {self.stage}"

    def state(self) -> dict:
        return {"stage": self.stage, "hot": self.hot, "kept": self.kept}

    def load_state(self, state: dict) -> None:
        self.stage, self.hot, self.kept = state["stage"], state["hot"], state["kept"]
