"""PST as a library: labels of any form, and those that are none."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from helpers.compare import same
from helpers.pst_loop import begin, drawn, refused
from relearn.probing.items import class_numbers


class Listed:
    """A dataset that lists the classes of its items."""

    def __init__(self, data, targets, labels=None):
        self.data, self.targets = data, targets
        self.labels = data.tensors[1].tolist() if labels is None else labels

    def __len__(self):
        return len(self.data)

    def __getitem__(self, row):
        return self.data[row][0], self.labels[row]


FORMS = {
    "list": lambda labels: labels.tolist(),
    "array": lambda labels: labels.numpy().astype("uint16"),
    "column": lambda labels: labels[:, None],
    "one-hot": lambda labels: F.one_hot(labels),
    "one-hot floats": lambda labels: F.one_hot(labels).double(),
    "one-hot rows": lambda labels: [row.numpy() for row in F.one_hot(labels)],
    "tensors": lambda labels: list(labels),
    "short": lambda labels: labels[:-1],
    "long": lambda labels: [*labels.tolist(), 0],
    "of others": lambda labels: labels.roll(1),
    "boxes": lambda labels: torch.rand(len(labels), 4),
    "ragged": lambda labels: [[1] * (k % 3) for k in range(len(labels))],
    "names": lambda labels: [f"class {label}" for label in labels],
    "floats": lambda labels: labels + 0.5,
    "negative": lambda labels: -labels,
    "a number": lambda labels: 3,
}


@pytest.mark.parametrize("form", FORMS)
def test_targets_of_any_form_give_the_probe_set_of_the_items(data, form):
    """What lists no class for each item, or another one than the item has, is not used."""
    found = drawn(Listed(data, FORMS[form](data.tensors[1])))
    assert found.labels.dtype == torch.int64 and found.labels.bincount().tolist() == [4] * 10
    for image, label in zip(found.images, found.labels, strict=True):
        assert any(torch.equal(image, own) for own, of in zip(*data.tensors, strict=True) if of == label)


@pytest.mark.parametrize("form", ["array", "column", "one-hot", "one-hot rows", "tensors"])
def test_labels_of_items_in_any_form(data, form):
    labels = FORMS[form](data.tensors[1])
    assert same(vars(drawn(Listed(data, None, labels))), vars(drawn(data)))
    assert same(vars(drawn(Listed(data, labels, labels))), vars(drawn(data)))


@pytest.mark.parametrize(
    "labels, found",
    [
        ([0.0, 1.0], r"0\.0"),
        (["cat", "d\nog"], r"'cat'"),
        ([1, -100], r"-100"),
        ([[0.5, 0.5], [1.0, 0.0]], r"labels \(2, 2\) that are not one_hot"),
        ([[1, 1], [1, 0]], r"labels \(2, 2\) that are not one_hot"),
        (torch.zeros(2, 3, 4), r"labels \(2, 3, 4\)"),
        ([[1], [1, 2]], r"labels of several shapes"),
        ([None, 1], r"labels \(2,\)"),
        ([float("nan"), 1.0], r"nan"),
        ([{"a": 1}] * 2, r"labels \(2,\)"),
    ],
)
def test_labels_that_are_no_classes(data, labels, found):
    with refused(f"labels must be class numbers, .* found {found}; give"):
        class_numbers(labels)
    with refused(
        f"labels must be class numbers, .* found {found.replace('2,', '80,') if 'several' not in found else ''}"
    ):
        drawn(Listed(data, None, [labels[row % 2] for row in range(80)]))


def test_labels_that_will_not_do(data):
    images = data.tensors[0]
    with refused(r"found 80 images of 1 classes"):
        drawn(TensorDataset(images, torch.full((80,), 3)))
    with refused(r"found 80 images of 80 classes"):
        drawn(TensorDataset(images, torch.arange(80)))
    with refused(r"found 0 images of 0 classes"):
        drawn(TensorDataset(images[:0], torch.arange(0)))
    with refused(r"the model gives 10 logits, but there is a label 11"):
        begin(TensorDataset(images, data.tensors[1] + 2)).measure()
    broken = images.clone()
    broken[:, 0, 0, 0] = float("nan")
    with refused(r"images of the probe set have values that are not finite"):
        drawn(TensorDataset(broken, data.tensors[1]))
    numbers = iter(range(10**6))
    with refused(r"labels of the probe set change from one reading to the next"):
        drawn([Changing(image, numbers) for image in images])


class Changing(tuple):
    """An item with another label each time."""

    def __new__(cls, image, numbers):
        item = super().__new__(cls, (image, 0))
        item.numbers = numbers
        return item

    def __getitem__(self, place):
        return next(self.numbers) // 3 if place == 1 else super().__getitem__(place)
