"""Poisons read from files: which rows of the file count, and whether the content is what it is taken for."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from relearn.crafting import foreign, resemblance
from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import apply
from relearn.data import Split, draw_share, split, subset
from relearn.errors import UserError
from relearn.poisons.external import external
from relearn.runtime import memory
from relearn.runtime.seeding import Seeds

CLASSES, COUNT, SIDE = 4, 80, 16


@pytest.fixture
def train() -> Split:
    """Smooth images of many colours."""
    coarse = torch.rand(COUNT, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    images = F.interpolate(coarse, SIDE, mode="bicubic").mul(255).clamp(0, 255).permute(0, 2, 3, 1)
    return split(images.to(torch.uint8), torch.arange(COUNT) % CLASSES)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(3).integers(-8, 9, (COUNT, SIDE, SIDE, 3)).astype(np.int8)


@pytest.fixture
def poisoned(train, noise) -> np.ndarray:
    return np.clip(train.images.numpy() + noise.astype(int), 0, 255).astype(np.uint8)


def craft(whole: Split | None = None) -> CraftContext:
    return CraftContext("test", Seeds("test"), "cpu", CLASSES, whole=whole)


def error(train, file, whole=None, **settings) -> str:
    with pytest.raises(UserError) as caught:
        external(train, craft(whole), file=str(file), **settings)
    message = str(caught.value)
    assert message.startswith("external: ") and message.isprintable() and len(message) < 600
    return message


# Rows


@pytest.fixture
def part(train) -> Split:
    return subset(train, 6, torch.Generator().manual_seed(4))


@pytest.fixture
def share(part) -> Split:
    return part.pick(torch.nonzero(draw_share(part.labels, 0.5, torch.Generator().manual_seed(5))).flatten())


def test_a_subset_takes_its_rows_of_the_whole(part, poisoned, noise, put):
    own = part.index.numpy()
    found = external(part, craft(), file=put(poisoned))
    assert np.array_equal(apply(part.images, found)[0], poisoned[own])
    labels = np.arange(COUNT) % CLASSES
    found = external(part, craft(), file=put(perturbation=noise, labels=labels))
    assert torch.equal(found.delta, torch.from_numpy(noise[own]).float())
    assert np.array_equal(apply(part.images, external(part, craft(), file=put(poisoned[own])))[0], poisoned[own])


def test_a_share_takes_its_rows_of_the_whole_and_of_the_subset(part, share, poisoned, noise, put):
    assert len(share) == 12 and len(part) == 24
    for rows in (torch.arange(COUNT), part.index, share.index):
        for array in (poisoned[rows], poisoned[rows].transpose(0, 3, 1, 2)):
            found = external(share, craft(part), file=put(array))
            assert np.array_equal(apply(share.images, found)[0], poisoned[share.index])
        found = external(share, craft(part), file=put(noise[rows]))
        assert torch.equal(found.delta, torch.from_numpy(noise[share.index]).float())
    message = error(share, put(noise[:50]), part)
    assert "80 (one per image of the original dataset) or 24 (one per training image) or 12 (one per pois" in message


def test_far_rows_are_read_one_by_one(train, noise, put, monkeypatch):
    monkeypatch.setattr(foreign, "GAP", 0)
    for file in (put(noise), put(perturbation=noise)):
        few = train.pick(torch.tensor([1, 40, 78, 79, 2, 3, 0]))
        assert torch.equal(external(few, craft(), file=file).delta, torch.from_numpy(noise[few.index]).float())


def test_labels_are_compared_row_by_row(part, noise, put):
    labels = np.arange(COUNT) % CLASSES
    labels[int(part.index[3])] = 99
    assert "1 of 24 labels" in error(part, put(perturbation=noise, labels=labels))
    assert "must be int64 (80,) or (24,)" in error(part, put(perturbation=noise, labels=labels[:9]))


def test_one_image_per_class_is_ambiguous_unless_labelled(train, noise, put):
    few = train.pick(torch.tensor([3, 2, 1, 0]))
    assert "ambiguous, one per class or one per image" in error(few, put(noise[:4]), train)
    found = external(few, craft(train), file=put(perturbation=noise[:4], labels=few.labels.numpy()))
    assert found.rows is None


# Content


def normalised(images: np.ndarray) -> np.ndarray:
    return ((images / 255 - [0.49, 0.48, 0.45]) / [0.25, 0.24, 0.26]).astype(np.float32)


@pytest.mark.parametrize("norm", ["linf", "none"])
@pytest.mark.parametrize(
    "change",
    [normalised, lambda x: normalised(x)[::-1], lambda x: (x / 127.5 - 1).astype(np.float32), lambda x: x - 120.0],
    ids=["standardised", "and in another order", "-1 to 1", "without the mean"],
)
@pytest.mark.parametrize("settings", [{}, {"kind": "perturbation"}])
def test_normalised_images_are_no_perturbation(change, norm, settings, train, poisoned, put):
    message = error(train, put(change(poisoned)), norm=norm, **settings)
    assert "looks like the training images" in message and "kind: images" in message


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x: x[..., ::-1], "blue, green, red"),
        (lambda x: x.transpose(0, 2, 1, 3), "rows and columns are exchanged"),
        (lambda x: x[:, :, ::-1], "mirrored"),
        (lambda x: x[:, ::-1], "upside down"),
    ],
)
@pytest.mark.parametrize("norm", ["linf", "none"])
def test_images_turned(change, words, norm, train, poisoned, put):
    assert words in error(train, put(change(poisoned)), norm=norm)


@pytest.mark.parametrize("count", [2, 3, 40, 80])
def test_some_images_in_another_order_without_a_norm(count, train, poisoned, put):
    external(train, craft(), file=put(poisoned), norm="none")
    mixed = poisoned.copy()
    mixed[:count] = np.roll(poisoned[:count], 1, axis=0)
    message = error(train, put(mixed), norm="none")
    assert f"{count} of 80 images" in message and "order of the training set" in message
    assert f"the first at 0, which resembles {count - 1}" in message


def test_images_of_another_dataset_or_all_the_same(train, poisoned, put):
    others = np.random.default_rng(9).integers(0, 256, poisoned.shape).astype(np.uint8)
    assert "resemble their own training images more than others" in error(train, put(others), norm="none")
    assert "resemble other training images" in error(train, put(np.repeat(poisoned[:1], COUNT, 0)), norm="none")


def test_strong_poisons_without_a_norm_are_accepted(train, put):
    """A blur, a colour shift and a pattern, a class each: none is a change of order."""
    images = train.images.float().permute(0, 3, 1, 2)
    blurred = F.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
    shift = torch.tensor([[90, 0, -60], [0, 60, 0], [-40, -40, 90], [0, 0, 0]])[train.labels][:, :, None, None]
    strong = (blurred + shift).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert external(train, craft(), file=put(strong.numpy()), norm="none").delta.abs().max() > 80


@pytest.mark.parametrize("norm", ["linf", "none"])
def test_images_of_a_class_that_are_all_black(norm, train, poisoned, put):
    black = poisoned.copy()
    black[train.labels == 2] = 0
    message = error(train, put(black), norm=norm)
    assert "20 of 80 images" in message and "one colour, all of class 2 among them" in message
    cut = poisoned.copy()
    cut[70:] = 0
    assert "10 of 80 images" in error(train, put(cut), norm=norm)


@pytest.mark.parametrize("norm", ["linf", "none"])
def test_a_class_that_is_black_in_the_training_set_too(norm, train, noise, put):
    train.images[train.labels == 2] = 0
    poisoned = np.clip(train.images.numpy() + noise.astype(int), 0, 255).astype(np.uint8)
    assert len(external(train, craft(), file=put(poisoned), norm=norm).delta) == COUNT


def test_rows_that_change_nothing_are_counted(train, noise, put, capsys):
    noise[:30] = 0
    external(train, craft(), file=put(noise))
    assert "30 of 80 rows" in capsys.readouterr().err


def test_more_images_than_are_compared(train, poisoned, put, monkeypatch):
    monkeypatch.setattr(resemblance, "LIMIT", 10)
    monkeypatch.setattr(resemblance, "SAMPLE", 10)
    assert "resemble other training images" in error(train, put(np.roll(poisoned, 1, axis=0)), norm="none")


# Files


def npy(shape: object, dtype: str = "'|u1'", data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    "content",
    [
        npy((2**62, 16, 16, 3)),
        npy((2**32, 2**32, 1, 1)),
        npy((-1, 16, 16, 3)),
        npy((10**30,)),
        npy("(" * 90 + ")" * 90),
        npy("(80, 16, 16, 3"),
        npy((True, 16)),
        npy(((80,),)),
        npy((80, 16, 16, 3), "'|O'", bytes(80 * 768 * 8)),
        npy((80, 16, 16, 3), "'|S0'"),
        npy((80, 16, 16, 3), "[('x', '|u1')]", bytes(80 * 768)),
        npy((80, 16, 16, 3), "'<U1000000000'"),
        npy((80, 16, 16, 3), data=bytes(80 * 768) + b"more"),
        npy((80, 16, 16, 3), data=bytes(80 * 768), version=b"\x09\x00"),
        npy((80, 16, 16, 3), data=bytes(80 * 768))[:-1],
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"",
        b"PK\x03\x04",
    ],
    ids=range(18),
)
def test_headers_made_to_mislead(content, train, tmp_path):
    (tmp_path / "poison.npy").write_bytes(content)
    error(train, tmp_path / "poison.npy", norm="none")


def test_damaged_bytes_anywhere_are_one_line(train, poisoned, put):
    random = np.random.default_rng(0)
    for file in (put(poisoned), put(images=poisoned)):
        whole = bytearray(Path(file).read_bytes())
        for _ in range(150):
            damaged = bytearray(whole)
            for place in random.integers(0, 120, random.integers(1, 4)):
                damaged[place] = random.integers(0, 256)
            Path(file).write_bytes(damaged)
            try:
                external(train, craft(), file=file, norm="none")
            except UserError as refusal:
                assert str(refusal).isprintable() and len(str(refusal)) < 600


def test_names_of_arrays_are_shown_in_one_short_line(train, noise, put):
    assert "a\\nb" in error(train, put(**{"a\nb": noise}))
    assert "and 295 more" in error(train, put(**{f"{'x' * 200}{k}": noise[:1] for k in range(300)}))


@pytest.mark.parametrize("file", ["x" * 5000 + ".npy", "a\0.npy", "a\n.npy", "{x}$.npy"])
def test_names_of_files(file, train):
    assert "is not a file" in error(train, file)
    assert "no one knows the home folder in '~nobody-of-this-name" in error(train, "~nobody-of-this-name/x.npy")


def test_memory_is_asked_for_before_it_is_taken(train, noise, put, monkeypatch):
    needed = 6 * math.prod(noise.shape)
    monkeypatch.setattr(memory, "total", lambda device: needed)
    external(train, craft(), file=put(noise))
    monkeypatch.setattr(memory, "total", lambda device: needed - 1)
    assert "80 rows of" in error(train, put(noise))
