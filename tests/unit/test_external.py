"""Poisons read from files: every layout, unit and kind is understood, every mismatch is named in one line."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import apply
from relearn.data import Split, split
from relearn.errors import UserError
from relearn.poisons.external import external
from relearn.runtime.seeding import Seeds

CLASSES, PER_CLASS, SIDE = 3, 8, 6
COUNT = CLASSES * PER_CLASS
CRAFT = CraftContext("test", Seeds("test"), "cpu", CLASSES)


@pytest.fixture
def train() -> Split:
    images = torch.randint(0, 256, (COUNT, SIDE, SIDE, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return split(images, torch.arange(COUNT) % CLASSES)


@pytest.fixture
def poisoned(train) -> np.ndarray:
    change = np.random.default_rng(2).integers(-8, 9, train.images.shape)
    return np.clip(train.images.numpy() + change, 0, 255).astype(np.uint8)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(3).integers(-8, 9, (COUNT, SIDE, SIDE, 3)).astype(np.int8)


def error(train, file, **settings) -> str:
    with pytest.raises(UserError) as caught:
        external(train, CRAFT, file=str(file), **settings)
    message = str(caught.value)
    assert message.startswith("external: ") and "\n" not in message
    return message


VARIANTS = {
    "uint8": lambda x: x,
    "float pixels": lambda x: x.astype(np.float64),
    "float unit": lambda x: (x / 255).astype(np.float32),
    "big-endian": lambda x: x.astype(">f4"),
    "channels first": lambda x: x.transpose(0, 3, 1, 2),
    "fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_in_npy(variant, train, poisoned, put):
    found = external(train, CRAFT, file=put(VARIANTS[variant](poisoned)))
    assert found.delta.dtype == torch.float32 and found.rows is None
    assert np.array_equal(apply(train.images, found)[0], poisoned)


def test_images_in_safetensors_with_labels(train, poisoned, put):
    found = external(
        train, CRAFT, file=put(images=poisoned, labels=train.labels.numpy()), epsilon=9.0, rounding="truncate"
    )
    assert np.array_equal(apply(train.images, found)[0], poisoned)
    assert (found.budget.norm, found.budget.value, found.rounding) == ("linf", 9.0, "truncate")


def test_perturbation_per_image(train, noise, put):
    exact = torch.from_numpy(noise).float()
    files = {"int8": put(noise)}
    assert torch.equal(external(train, CRAFT, file=files["int8"]).delta, exact)
    unit = external(train, CRAFT, file=put((noise / 255).astype(np.float32).transpose(0, 3, 1, 2)))
    assert unit.rows is None and torch.allclose(unit.delta, exact, atol=1e-4)
    half = external(train, CRAFT, file=put(perturbation=noise.astype(np.float16)))
    assert torch.equal(half.delta, exact)


def test_unit_says_what_small_values_mean(train, noise, put):
    tiny = np.sign(noise).astype(np.float32)
    assert "only whole numbers from -1 to 1; set `unit`" in error(train, put(tiny))
    assert external(train, CRAFT, file=put(tiny), unit="unit").delta.abs().max() == 255
    assert external(train, CRAFT, file=put(tiny), unit="pixels").delta.abs().max() == 1


def test_perturbation_per_class(train, noise, put):
    found = external(train, CRAFT, file=put(noise[:CLASSES]))
    assert torch.equal(found.rows, train.labels)
    expected = (train.images.int() + torch.from_numpy(noise[:CLASSES]).int()[train.labels]).clamp(0, 255)
    assert torch.equal(apply(train.images, found)[0].int(), expected)


def test_as_many_classes_as_images_is_per_image(train, noise, put):
    assert external(train.pick(torch.arange(CLASSES)), CRAFT, file=put(noise[:CLASSES])).rows is None


def test_one_pixel_images_in_floats_keep_their_budget(train, put):
    images = train.images.numpy() * np.float32(1 / 255)  # back at 255 times, many a level is missed by a hair
    images[:, 2, 3] = 1.0
    found = external(train, CRAFT, file=put(images), norm="l0", epsilon=1.0)
    assert apply(train.images, found)[1]["l0_max"] == 1


def test_non_negative_floats_need_a_kind(train, noise, put):
    file = put(np.abs(noise) / 255)
    assert "kind" in error(train, file)
    assert external(train, CRAFT, file=file, kind="perturbation").delta.max() == pytest.approx(8)


def test_files_that_cannot_be_read(train, poisoned, put, tmp_path):
    assert "not a file" in error(train, tmp_path / "none.npy")
    assert "'.pt'" in error(train, tmp_path / "poison.pt") and ".safetensors, .npy" in error(
        train, tmp_path / "poison.pt"
    )
    for file in (put(poisoned), put(images=poisoned)):
        content = Path(file).read_bytes()
        Path(file).write_bytes(content[: len(content) // 2])
        assert "damaged" in error(train, file)


def test_nothing_is_unpickled(train, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    np.save(tmp_path / "objects.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("objects.npy", "plain.npy"):
        assert "damaged or not a plain .npy" in error(train, tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_wrong_keys(train, poisoned, noise, put):
    assert "holds data" in error(train, put(data=poisoned))
    assert "holds extra, images" in error(train, put(images=poisoned, extra=poisoned))
    both = put(images=poisoned, perturbation=noise)
    assert "holds images, perturbation" in error(train, both)
    assert torch.equal(external(train, CRAFT, file=both, kind="perturbation").delta, torch.from_numpy(noise).float())
    assert "kind: images" in error(train, put(perturbation=noise), kind="images")


def test_wrong_shapes_and_dtypes(train, poisoned, noise, put):
    assert f"({COUNT}, 5, 6, 3)" in error(train, put(poisoned[:, :5]))
    assert f"{COUNT} (one per training image)" in error(train, put(images=poisoned[:-1]))
    assert f"{CLASSES} (one per class)" not in error(train, put(images=poisoned[:CLASSES]))
    assert f"{CLASSES} (one per class) or {COUNT}" in error(train, put(noise[:4]))
    assert "holds ()" in error(train, put(np.float32(1)))
    assert "int16" in error(train, put(noise.astype(np.int16)))
    assert "uint8" in error(train, put(perturbation=poisoned)) and "int8" in error(train, put(images=noise))
    small = split(train.images[:, :3, :3].contiguous(), train.labels)
    assert "ambiguous" in error(small, put(small.images.numpy()))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value, train, poisoned, put):
    broken = poisoned.astype(np.float32)
    broken[5, 1, 1, 1] = value
    assert "row 5" in error(train, put(broken))


def test_images_have_no_negative_noise_to_drop(train, poisoned, noise, put):
    """`em_legacy` would publish other images than those of the file: none darker than its clean one."""
    assert "em_legacy would take back" in error(train, put(poisoned), rounding="em_legacy")
    assert external(train, CRAFT, file=put(noise), rounding="em_legacy").rounding == "em_legacy"


def test_values_out_of_range(train, poisoned, noise, put):
    assert "0 to 300" in error(train, put(images=np.where(poisoned > 250, 300, 0).astype(np.float32)))
    assert "from -8" in error(train, put(images=noise.astype(np.float32)), unit="pixels")
    assert "0 to 1 of unit: unit" in error(train, put(poisoned), unit="unit")
    assert "-1 to 1 of unit: unit" in error(train, put(noise), unit="unit")


def test_labels_of_another_set(train, poisoned, put):
    labels = train.labels.numpy()
    message = error(train, put(images=poisoned, labels=np.roll(labels, 1)))
    assert f"{COUNT} of {COUNT} labels" in message and "permuted" in message
    one = labels.copy()
    one[4] = 0
    message = error(train, put(images=poisoned, labels=one))
    assert "1 of 24" in message and "at 4: 0 for 1" in message and "permuted" not in message
    assert f"int64 ({COUNT},)" in error(train, put(images=poisoned, labels=labels.astype(np.int32)))
    assert f"int64 ({COUNT},)" in error(train, put(images=poisoned, labels=labels[1:]))


@pytest.mark.parametrize("norm", ["linf", "l2", "l0", "none"])
def test_images_in_another_order(norm, train, poisoned, put):
    epsilon = {"linf": 8.0, "l2": 100.0, "l0": 36.0, "none": 1.0}[norm]
    external(train, CRAFT, file=put(poisoned), norm=norm, epsilon=epsilon)
    if norm == "l0":  # all pixels may change here; only a smaller promise can be broken
        epsilon = 20.0
    message = error(train, put(np.roll(poisoned, 5, axis=0)), norm=norm, epsilon=epsilon)
    assert "order of the training set" in message


def test_two_swapped_images_are_found(train, poisoned, put):
    swapped = poisoned.copy()
    swapped[[2, 7]] = poisoned[[7, 2]]
    assert f"2 of {COUNT} images" in error(train, put(swapped))
