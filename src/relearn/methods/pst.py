"""Progressive Staged Training. Dang et al., 2023 (arXiv 2306.02064); docs/pst.md says what of it is ours."""

from functools import partial

import torch

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import (
    Fraction,
    GroupCount,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    PretrainingName,
    group_count_error,
    register,
)
from relearn.training.models import Normalised
from relearn.training.staging import Staging
from relearn.training.state import TrainingState
from relearn.training.transfer import copy_groups


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

    With a `pretraining`, the first stage begins at step 0 again, with the shallow groups of that: learned from the same
    images, without labels if it says so. They are stopped, with their batch-norm statistics, and the deep groups begin
    anew, for `staged_epochs` (null: those of `train:`). With `plain_first` training is plain until then: what is
    augmented in training images only is augmented from the first stage on, so that images which set no trap cost
    nothing. What follows the trap is then `frozen_pretrained`, byte for byte.
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
        pretraining: PretrainingName | None = None,
        staged_epochs: PositiveInt | None = None,
        plain_first: bool = False,
        **augmentation,
    ):
        super().__init__(**augmentation)
        self.pretraining, self.plain_first = pretraining, plain_first
        self.stop_statistics = pretraining is not None
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
            staged_epochs=staged_epochs,
        )

    def initialise(
        self, model: Normalised, surrogate: dict[str, torch.Tensor], pretrained: dict[str, torch.Tensor]
    ) -> None:
        """Keep the weights of the pretraining for the first stage."""
        if self.pretraining is None:
            return
        slowed = list(model.layer_groups())[: -self.staging.full_rate_groups[0]]
        source = f"pretraining '{self.pretraining}'"
        self.staging.start = partial(
            copy_groups, groups=slowed, weights=pretrained, source=source, remedy="run pretrain again"
        )

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """As plain training; with `plain_first` before the first stage only what test images get, too."""
        if self.plain_first and self.staging.stage == 0:
            return self.eval_transform(x)
        return super().augment(x, generator)

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
