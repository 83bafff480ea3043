"""A poison made elsewhere, read from a file."""

from typing import Literal

from relearn.crafting.craft import CraftContext
from relearn.crafting.given import read_given
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split
from relearn.registry import InputPath, Positive, register


@register
def external(
    train: Split,
    craft: CraftContext,
    *,
    file: InputPath,
    kind: Literal["auto", "images", "perturbation"] = "auto",
    unit: Literal["auto", "pixels", "unit"] = "auto",
    norm: Literal["linf", "l2", "l0", "none"] = "linf",
    epsilon: Positive = 8.0,
    rounding: Literal["half_up", "truncate", "em_legacy"] = "half_up",
) -> Perturbation:
    """The poisoned images or the perturbation in a .safetensors or .npy file.

    Images are uint8 or float, one per training image and in their order. A perturbation is int8 or float, one per
    image, or one per class in the order of the labels; with as many classes as images it is one per image. With a
    `ratio`, or if the training set is a subset, the file may also have a row for each image of the whole: each image
    gets its own. All are (N, H, W, 3) or (N, 3, H, W), in `unit` pixels (0..255) or unit (0..1); "auto" takes integers
    for pixels, floats up to 1 for unit. A .safetensors file calls its array `images` or `perturbation`, and may add
    `labels` (N,) int64, which are compared. In a .npy file "auto" takes floats with negative values for a perturbation,
    and those that reach half of the range for images. `epsilon` is in 1/255, for l0 in pixels; norm none ignores it.
    Raises UserError for a file that cannot be read or does not fit the training images, for images that resemble other
    training images than their own, and for a perturbation that looks like the training images.
    """
    budget = Budget(norm, epsilon)
    whole = craft.whole or train
    return read_given(file, train, whole, kind=kind, unit=unit, budget=budget, rounding=rounding, what="external")
