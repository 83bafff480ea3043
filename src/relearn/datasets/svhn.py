"""SVHN, digits of house numbers (Netzer et al., 2011, NIPS workshop): the published files, checked by their md5."""

from pathlib import Path

import numpy as np
import torch

from relearn.data import Dataset, Split, split, subset
from relearn.errors import UserError
from relearn.registry import PositiveInt, Seed, register
from relearn.runtime.download import Published, fetched

ADDRESS = "http://ufldl.stanford.edu/housenumbers"
FILES = {
    "train": Published("SVHN", f"{ADDRESS}/train_32x32.mat", 182_040_794, "e26dedcc434d2e4c54c9b2d4a06d8373"),
    "test": Published("SVHN", f"{ADDRESS}/test_32x32.mat", 64_275_384, "eb5a983be6a315427106f1b164d9cef3"),
}

SIZES = {"svhn": lambda settings: (10 * settings["train_per_class"] if settings["train_per_class"] else 73_257, 32, 32)}


@register
def svhn(
    root: Path,
    *,
    train_per_class: PositiveInt | None = None,
    test_per_class: PositiveInt | None = None,
    seed: Seed = 0,
) -> Dataset:
    """House numbers: 73,257 training and 26,032 test images (N, 32, 32, 3) uint8 of digits, downloaded to `root`.

    The 531,131 further images of the authors, `extra`, are left out. Classes differ in size: 1 is a fifth of the
    images. `train_per_class` and `test_per_class` draw stratified subsets with `seed`, independently of each other.
    Raises UserError when a file cannot be downloaded or is damaged, and when a class has fewer images.
    """
    parts = {}
    for part, per_class in (("train", train_per_class), ("test", test_per_class)):
        whole = _read(fetched(FILES[part], Path(root)))
        parts[part] = subset(whole, per_class, torch.Generator().manual_seed(seed))
    return Dataset(parts["train"], parts["test"], [str(digit) for digit in range(10)])


def _read(path: Path) -> Split:
    """The split in a MATLAB file: X (32, 32, 3, N) uint8, and y (N, 1), where 10 stands for the digit 0."""
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=["X", "y"])
        images, labels = found["X"], found["y"].ravel().astype(np.int64)
        if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
            raise ValueError(f"X is {images.dtype} {images.shape} for {len(labels)} labels")
        if len(labels) == 0 or labels.min() < 1 or labels.max() > 10:
            raise ValueError("labels lie outside 1 to 10")
    except Exception as error:  # damaged bytes raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}); delete it and run again") from None
    return split(torch.from_numpy(np.ascontiguousarray(images.transpose(3, 0, 1, 2))), torch.from_numpy(labels % 10))
