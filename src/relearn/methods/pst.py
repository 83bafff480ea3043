"""Progressive Staged Training. Dang et al., 2023 (arXiv 2306.02064); docs/pst.md says what of it is ours."""

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


def _most_epochs(settings: dict, epochs: int) -> int:
    """Those of plain training and of each stage that restarts; what a roll-back repeats is too little to count."""
    stages = len(settings["full_rate_groups"]) + settings["augmented_first"]
    anew = settings["augmented_first"] or settings["pretraining"]
    return epochs + (stages * (settings["staged_epochs"] or epochs) if anew else 0)


#: epochs of training at most, from settings and the epochs of the recipe
EPOCHS = {"pst": _most_epochs}


@register
class PST(ERM):
    """Train all layers until the trap is detected, go back to before it, and continue with the shallow groups slowed.

    A probe shows the trap when the share of its accuracy above chance that the network keeps on the probe set with
    perturbations hidden (relearn.probing.verdict) is below `kept_trapped` by two standard errors, or below
    `kept_clustered` while ACM of the middle layer group is as high as on perturbations (0 leaves ACM out). The trap is
    detected at `confirm` such probes in a row. Then the newest snapshot is restored, and stage k slows all but the
    `full_rate_groups[k]` deepest groups to `rate` times their learning rate; the next stage follows when the trap is
    detected again. A snapshot is taken before training, and at probes where the share kept is above the limit by two
    standard errors. The newest `max_snapshots` are stored; with 0 there is no roll-back, and the next stage begins at
    the current step. Before the first stage all groups learn at `early_rate` times their rate. There is a probe every
    `probe_steps` steps for `dense_epochs` epochs, then `probes_per_epoch` times an epoch.

    With a `pretraining`, every stage restarts at step 0, and the slowed groups come from that: learned from the same
    images, without labels if it is contrastive. They are stopped, with their batch-norm statistics, and the deep groups
    start from their initial weights. A stage that restarts lasts for `staged_epochs` (null: those of `train:`). With
    `plain_first` training is plain before the first stage, so that images without a trap cost no accuracy; from then on
    images are augmented, test images too if `gray` is 1. With `augmented_first` stages restart, and there is one more,
    the first, in which all groups learn and only the images change.
    """

    def __init__(
        self,
        *,
        full_rate_groups: list[GroupCount] = [2],  # noqa: B006, read, never changed; defaults must be literals
        rate: Fraction = 0.0,
        early_rate: Positive = 1.0,
        kept_trapped: Positive = 0.5,
        kept_clustered: NonNegative = 0.7,
        confirm: PositiveInt = 2,
        probe_steps: PositiveInt = 20,
        dense_epochs: NonNegative = 2.0,
        probes_per_epoch: PositiveInt = 2,
        max_snapshots: NonNegativeInt = 3,
        pretraining: PretrainingName | None = None,
        staged_epochs: PositiveInt | None = None,
        plain_first: bool = False,
        augmented_first: bool = False,
        **augmentation,
    ):
        super().__init__(**augmentation)
        if plain_first and self.downsample > 1:
            raise UserError("pst: with plain_first the size of images cannot change half-way; leave downsample at 1")
        if (augmented_first or pretraining is not None) and not max_snapshots:
            raise UserError(
                "pst: pretraining and augmented_first go back to step 0, found max_snapshots: 0; give 1 or more"
            )
        self.pretraining, self.plain_first = pretraining, plain_first
        self.stop_statistics = pretraining is not None
        self.staging = Staging(
            [],
            full_rate_groups=tuple(full_rate_groups),
            rate=rate,
            early_rate=early_rate,
            kept_trapped=kept_trapped,
            kept_clustered=kept_clustered,
            confirm=confirm,
            probe_steps=probe_steps,
            dense_epochs=dense_epochs,
            probes_per_epoch=probes_per_epoch,
            max_snapshots=max_snapshots,
            staged_epochs=staged_epochs,
            augmented_first=augmented_first,
        )

    def initialise(
        self, model: Normalised, surrogate: dict[str, torch.Tensor], pretrained: dict[str, torch.Tensor]
    ) -> None:
        """Keep the weights of the pretraining for the first stage."""
        if self.pretraining is None:
            return
        groups, source = list(model.layer_groups()), f"pretraining '{self.pretraining}'"

        def start(_: torch.nn.Module) -> None:
            slowed = groups[: -self.staging.learning[self.staging.stage - 1]]
            copy_groups(model, slowed, pretrained, source, "run pretrain again")

        self.staging.start = start

    @property
    def plain(self) -> bool:
        """Whether training is plain as yet."""
        return self.plain_first and self.staging.stage == 0

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """As plain training, from the first stage on if so set."""
        return x if self.plain else super().augment(x, generator)

    def eval_transform(self, x: torch.Tensor) -> torch.Tensor:
        """The same for images outside training."""
        return x if self.plain else super().eval_transform(x)

    def at_stage(self, stage: str) -> None:
        """Take images as the network does that was trained up to `stage`."""
        self.staging.stage = self.staging.number(stage)

    def rates(self, groups: list[str]) -> dict[str, float]:
        """`early_rate` everywhere. Raises UserError when a later stage would slow nothing, or there is none."""
        counts = self.staging.full_rate_groups
        found = [error for count in counts if (error := group_count_error(count, groups))]
        if not counts or found:
            raise UserError(f"pst: full_rate_groups {found[0] if found else 'is empty, so no stage would start'}")
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
