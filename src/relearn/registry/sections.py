"""What the sections of params.yaml declare that no registered code does: computing, the recipe, settings in common."""

from __future__ import annotations  # the annotations of the dataclasses below stay text, as the registry reads them

from dataclasses import MISSING, dataclass, fields
from typing import Literal

from relearn.registry.settings import (
    REQUIRED,
    ArchitectureName,
    CheckpointCount,
    Fraction,
    NonNegative,
    NonNegativeInt,
    Pad,
    Positive,
    PositiveFraction,
    PositiveInt,
    RecipeSettings,
    Seed,
    Setting,
    Threads,
)


@dataclass(frozen=True)
class Compute:
    """`compute:`, on which bytes depend too: CPU threads of a job, precision of training, CPU instructions."""

    threads: Threads = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    isa: Literal["native", "avx2", "sse4"] = "native"


@dataclass(frozen=True)
class Recipe:
    """`train:`, the recipe that all methods share: an optimizer, warm-up and decay to 0, random crop and flip.

    An architecture may change it (`recipe`). `micro_batch` splits a batch into parts whose gradients add up.
    `probe_size` is the size of the probe set. Accuracy is measured after epoch 1, every `test_epochs` epochs and at the
    end; checkpoints: every `checkpoint_epochs` epochs.
    """

    epochs: PositiveInt = 60
    batch: PositiveInt = 128
    micro_batch: PositiveInt | None = None
    optimizer: Literal["sgd", "muon", "adamw"] = "sgd"
    lr: Positive = 0.1
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup_steps: NonNegativeInt = 20
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 5e-4
    label_smoothing: Fraction = 0.0
    crop_pad: Pad = 4
    flip: bool = True
    probe_size: PositiveInt = 2000
    test_epochs: PositiveInt = 1
    checkpoint_epochs: PositiveInt = 5


@dataclass(frozen=True)
class Surrogate:
    """An entry of `surrogates:`, a model trained on clean images with its architecture's recipe; poisons can name it.

    `checkpoints` is how many states of its training are stored, evenly spaced, the last included; attacks on an
    ensemble use them. `epochs` null means those of the recipe.
    """

    arch: ArchitectureName
    epochs: PositiveInt | None = None
    seed: Seed = 0
    checkpoints: CheckpointCount = 1


@dataclass(frozen=True)
class PoisonSettings:
    """What every entry of `poisons:` can set in addition: the share of the images to poison."""

    ratio: PositiveFraction = 1.0


@dataclass(frozen=True)
class ArchitectureSettings:
    """What every entry of `architectures:` can set in addition: `recipe`, for every job that trains it.

    Its keys are settings of `train:` and override them; the others stay.
    """

    recipe: RecipeSettings | None = None


@dataclass(frozen=True)
class MethodSettings:
    """What every entry of `methods:` can set in addition: the epochs, null for those of the recipe."""

    epochs: PositiveInt | None = None


def schema(declaration: type) -> tuple[Setting, ...]:
    """The settings that a dataclass declares."""
    return tuple(
        Setting(field.name, str(field.type), REQUIRED if field.default is MISSING else field.default)
        for field in fields(declaration)
    )


COMMON = {
    "poisons": schema(PoisonSettings),
    "architectures": schema(ArchitectureSettings),
    "methods": schema(MethodSettings),
}  # settings that all entries of a section have
