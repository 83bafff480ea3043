"""What holds for every dataset."""

import numpy
import pytest
import torch
from PIL import Image

from helpers.compare import same, stir
from helpers.registered import DOWNLOADED, cheap, named
from relearn import registry


@pytest.fixture
def pictures(tmp_path) -> str:
    """A folder of images: two classes, six for training and four for testing of each, which are in val/ too."""
    generator = numpy.random.default_rng(0)
    for part, count in (("train", 6), ("test", 4)):
        for label in ("cat", "dog"):
            (tmp_path / "pictures" / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (40, 50, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / part / label / f"{number}.png")
    (tmp_path / "pictures" / "val").symlink_to("test")
    return str(tmp_path / "pictures")


def check_split(part, classes: int) -> None:
    assert (
        part.images.dtype == torch.uint8
        and part.images.ndim == 4
        and part.images.shape[3] == 3
        and part.images.is_contiguous()
    )
    assert part.labels.dtype == part.index.dtype == torch.int64
    assert len(part.images) == len(part.labels) == len(part.index) == len(part.index.unique())
    assert part.labels.unique().tolist() == list(range(classes))
    assert part.images.float().std() > 1  # not a constant


@named("datasets")
def test_datasets(name, tmp_path, pictures):
    settings = {s.name: s for s in registry.entry("datasets", name).settings}
    if name in DOWNLOADED:
        subsets = {"train_per_class", "test_per_class", "seed"} | DOWNLOADED[name]
        assert set(settings) == subsets and settings["train_per_class"].default is None
        return
    make, own = registry.load("datasets", name), cheap("datasets", name, pictures)
    stir(1)
    one = make(tmp_path / "root", **own)
    stir(2)
    again = make(tmp_path / "root", **own)
    assert len(one.classes) == len(set(one.classes)) > 1 and all(isinstance(word, str) for word in one.classes)
    for part in (one.train, one.test):
        check_split(part, len(one.classes))
    assert one.train.images.shape[1:] == one.test.images.shape[1:]
    assert (
        same(vars(one.train), vars(again.train))
        and same(vars(one.test), vars(again.test))
        and one.classes == again.classes
    )
    # no image in both splits: training on the test images is the one mistake nothing later would show
    tests = {image.numpy().tobytes() for image in one.test.images}
    assert not any(image.numpy().tobytes() in tests for image in one.train.images)
    if "train_per_class" in settings:  # without a subset there may be nothing to draw
        own |= {"train_per_class": 3}
        one = make(tmp_path / "root", **own)
    if "seed" in settings:
        assert not same(vars(one.train), vars(make(tmp_path / "root", **own, seed=1).train))
