"""A training set that was purified elsewhere, read from a file."""

from typing import Literal

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.given import read_given
from relearn.crafting.perturbation import Budget, apply
from relearn.data import Split
from relearn.registry import InputPath, register


@register
def file(
    train: Split,
    craft: CraftContext,
    *,
    path: InputPath,
    unit: Literal["auto", "pixels", "unit"] = "auto",
    rounding: Literal["half_up", "truncate"] = "half_up",
) -> torch.Tensor:
    """The images in a .safetensors or .npy file, one per training image and in their order.

    The file is as for images of the poison `external`: (N, H, W, 3) or (N, 3, H, W), uint8 or float, in `unit` pixels
    (0..255) or unit (0..1). Raises UserError for a file that cannot be read or does not fit the training images, and
    for images that resemble other training images than their own.
    """
    given = read_given(
        path,
        train,
        train,
        kind="images",
        unit=unit,
        budget=Budget("none", 1.0),
        rounding=rounding,
        what="purification file",
    )
    return apply(train.images, given)[0]
