"""What the recipe asks of the training set: checked when both are known, before the first step."""

from relearn.data import Split
from relearn.errors import UserError


def check(recipe: dict, train: Split, section: str = "train") -> int:
    """The steps of an epoch. Raises UserError for settings that this training set makes impossible.

    `section` is where params.yaml has them: `train`, the `recipe` of an architecture, or a pretraining, which has some.
    """
    shared = "train" if section.startswith("pretraining.") else section
    images, batch = len(train), recipe["batch"]
    if batch > images:
        raise UserError(f"{section}.batch is {batch}, but the training set has {images} images; give a smaller batch")
    steps_per_epoch = images // batch
    steps = steps_per_epoch * recipe["epochs"]
    if recipe["warmup_steps"] > steps:
        raise UserError(
            f"{shared}.warmup_steps is {recipe['warmup_steps']}, but training has only {steps} steps "
            f"({recipe['epochs']} epochs of {steps_per_epoch}); give fewer warmup_steps or more epochs"
        )
    classes = len(train.labels.unique())
    if recipe["probe_size"] < 2 * classes:
        raise UserError(
            f"{shared}.probe_size is {recipe['probe_size']}, but a probe set needs 2 images of each of the {classes} "
            f"classes; give {2 * classes} or more"
        )
    return steps_per_epoch
