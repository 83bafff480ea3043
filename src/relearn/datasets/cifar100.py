"""CIFAR-100 (Krizhevsky, 2009)."""

from pathlib import Path

from relearn.data import Dataset
from relearn.datasets.downloads import cifar
from relearn.registry import PositiveInt, NonNegativeInt, register


@register
def cifar100(
    root: Path,
    *,
    train_per_class: PositiveInt | None = None,
    test_per_class: PositiveInt | None = None,
    seed: NonNegativeInt = 0,
) -> Dataset:
    """CIFAR-100: 50,000 training and 10,000 test images (N, 32, 32, 3) uint8 of 100 classes, downloaded to `root`.

    `train_per_class` and `test_per_class` draw stratified subsets with `seed`, independently of each other.
    Raises UserError when the archive cannot be downloaded or is damaged, and when a class has fewer images.
    """
    return cifar("CIFAR100", root, train_per_class, test_per_class, seed)
