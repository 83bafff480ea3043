"""Import: every published layout, made here, is understood, and a slightly wrong one is refused in one line."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from helpers.importing import (
    CLASSES,
    COUNT,
    FACTS,
    IMAGES,
    PREPARED,
    SIDE,
    first,
    imported,
    load,
    pngs,
    put,
    raw,
    refused,
    tensors,
    unit,
)
from relearn import __main__ as command_line
from relearn.crafting.craft import CraftContext
from relearn.crafting.exchange import importing
from relearn.crafting.perturbation import apply
from relearn.data import Split, load_split, save_split, split
from relearn.poisons.external import external
from relearn.runtime.seeding import Seeds


@pytest.fixture
def train(tmp_path, monkeypatch) -> Split:
    """Images with structure, which matching needs, as the prepared dataset `own` of a project."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand((COUNT, 3, 8, 8), generator=generator) * 255
    images = F.interpolate(coarse, (SIDE, SIDE), mode="nearest").permute(0, 2, 3, 1).to(torch.uint8).contiguous()
    made = split(images, torch.arange(COUNT) * 7 % CLASSES)
    Path(PREPARED).parent.mkdir(parents=True)
    save_split(Path(PREPARED), made, FACTS)
    return made


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(3).integers(-8, 9, (COUNT, SIDE, SIDE, 3)).astype(np.int8)


@pytest.fixture
def poisoned(train, noise) -> np.ndarray:
    return np.clip(train.images.numpy().astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("layout", IMAGES)
def test_images_of_every_layout_come_in_the_order_of_the_data_set(layout, train, poisoned):
    order = np.random.default_rng(5).permutation(COUNT)
    images, labels, manifest = imported(IMAGES[layout](poisoned, train.labels, order))
    np.testing.assert_array_equal(images, poisoned)
    np.testing.assert_array_equal(labels, train.labels)
    assert manifest["kind"] == "images" and manifest["rounding"] == "whole levels already"
    assert manifest["measured"]["linf_max"] == 8


def test_the_poison_external_reads_what_was_imported(train, poisoned):
    imported(IMAGES["ECLIPSE"](poisoned, train.labels, np.random.default_rng(5).permutation(COUNT)))
    craft = CraftContext("test", Seeds("test"), "cpu", CLASSES)
    assert np.array_equal(apply(train.images, external(train, craft, file="out.safetensors"))[0], poisoned)


def test_ntga_has_part_of_the_images_in_an_order_of_its_own(train, poisoned):
    """One-hot labels in a file of their own; images that it lacks stay clean if that is said."""
    some = np.random.default_rng(5).permutation(COUNT)[: COUNT - 9]
    put(np.eye(CLASSES)[train.labels[some]], "y.npy")
    file = put(unit(poisoned)[some], "x.npy")
    refused(file, "no row for 9 of 48", "--rest clean", labels=Path("y.npy"))
    images, labels, manifest = imported(file, labels=Path("y.npy"), rest="clean")
    expected = train.images.numpy().copy()
    expected[some] = poisoned[some]
    np.testing.assert_array_equal(images, expected)
    assert "matched" in manifest["order"] and manifest["labels"] == "y.npy, equal to the dataset's"
    put(np.eye(CLASSES)[train.labels[some].numpy()[::-1]], "wrong.npy")
    refused(file, "labels", "are not those of the dataset", "--order", labels=Path("wrong.npy"), rest="clean")
    put(np.ones((len(some), CLASSES)), "ones.npy")
    refused(file, "ones.npy holds rows of 4 values", labels=Path("ones.npy"), rest="clean")


def test_sep_is_a_folder_of_slices(train, poisoned):
    Path("sep").mkdir()
    for begin in (0, 20, 40):
        part = first(unit(poisoned))[begin : begin + 20]
        put(part, f"sep/eps8-1_iter30_sp{begin}-{begin + len(part)}_ts0.1.npy")
    images, _, manifest = imported("sep")
    np.testing.assert_array_equal(images, poisoned)
    assert manifest["order"] == "by the index in the names" and manifest["source"]["files"] == 3
    Path("sep/eps8-1_iter30_sp20-40_ts0.1.npy").unlink()
    refused("sep", "is a slice missing?")


def test_a_perturbation_per_image_needs_rounding_and_order(train, noise):
    file = put(torch.tensor(first(noise / np.float32(255)).astype(np.float32)), "perturbation.pt")
    refused(file, "--rounding", "em_legacy")
    refused(file, "--order dataset", rounding="half_up")
    clean = train.images.numpy().astype(int)
    images, _, manifest = imported(file, rounding="half_up", order="dataset")
    np.testing.assert_array_equal(images, np.clip(clean + noise, 0, 255))
    assert (manifest["axes"], manifest["unit"], manifest["rounding"]) == ("channels first", "0 to 1", "half_up")
    images, _, _ = imported(file, rounding="em_legacy", order="dataset")
    assert (images >= clean).all() and (images > clean).any()


def test_a_perturbation_between_levels_is_rounded_as_said(train):
    delta = np.full((COUNT, SIDE, SIDE, 3), 1.75, np.float32)
    file = put(torch.tensor(first(delta / 255)), "poison.pt")
    kind = {"kind": "perturbation", "unit": "unit", "order": "dataset"}
    refused(file, "between whole levels", "--rounding", **kind)
    clean = train.images.numpy().astype(int)
    for rounding, step in (("half_up", 2), ("truncate", 1)):
        images, _, _ = imported(file, rounding=rounding, **kind)
        np.testing.assert_array_equal(images, np.clip(clean + step, 0, 255))


def test_rem_is_a_pickle_of_int8(train, noise, poisoned):
    for protocol in range(2, 6):
        file = put(first(noise), "rem-fin-def-noise.pkl", protocol)
        images, _, manifest = imported(file, order="dataset")
        np.testing.assert_array_equal(images, poisoned)
        assert manifest["dtype"] == "int8" and manifest["layout"] == "pickle: an array"
    refused(put(first(noise)[:-1], "less.pkl"), "47 rows, not the 48", order="dataset")
    refused(put(first(noise), "rem.pkl"), "no images to match", order="match")


def test_a_perturbation_per_class_goes_by_label(train, noise):
    file = put(torch.tensor(first(noise[:CLASSES] / np.float32(255)).astype(np.float32)), "classwise.pt")
    images, _, manifest = imported(file, rounding="truncate")
    assert manifest["order"] == importing.BY_LABEL
    expected = np.clip(train.images.numpy().astype(int) + noise[train.labels.numpy()], 0, 255)
    assert abs(images.astype(int) - expected).max() <= 1  # products in float32 fall below whole levels
    np.testing.assert_array_equal(imported(file, rounding="half_up")[0], expected)


def test_a_perturbation_per_class_goes_by_its_own_labels(train, noise):
    """Its rows are of the classes 2, 0, 3, 1: class 0 has the second of them."""
    rows = np.array([2, 0, 3, 1])
    save_file({"perturbation": torch.tensor(noise[rows]), "labels": torch.tensor(rows)}, "named.safetensors")
    images, labels, manifest = imported(Path("named.safetensors"))
    assert manifest["order"] == importing.BY_LABEL
    expected = np.clip(train.images.numpy().astype(int) + noise[train.labels.numpy()], 0, 255)
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(labels, train.labels.numpy())
    save_file({"perturbation": torch.tensor(noise[rows]), "labels": torch.tensor([2, 0, 3, 3])}, "twice.safetensors")
    refused(Path("twice.safetensors"), "its labels are not 0 to 3, each once")


def test_lsp_is_by_class(train, noise):
    by_class = train.labels.argsort(stable=True).numpy()
    put(train.labels.numpy()[by_class], "simple_label.npy")
    file = put(noise[by_class], "simple_data.npy")
    images, _, manifest = imported(file, order="class", labels=Path("simple_label.npy"))
    np.testing.assert_array_equal(images, np.clip(train.images.numpy().astype(int) + noise, 0, 255))
    assert "k-th row of a class" in manifest["order"]
    put(np.zeros(COUNT, int), "zeros.npy")
    refused(file, "another number", order="class", labels=Path("zeros.npy"))


def test_ops_needs_its_unit(train):
    delta = np.zeros((COUNT, SIDE, SIDE, 3))
    delta[:, 3, 3] = np.where(np.arange(COUNT)[:, None] % 2, 1, -1)
    file = put(delta, "perturbation.npy")
    refused(file, "--unit")
    images, _, _ = imported(file, unit="unit", order="dataset", rounding="truncate")
    assert set(np.unique(images[1::2, 3, 3])) == {255} and set(np.unique(images[::2, 3, 3])) == {0}


def test_without_a_data_set_images_stay_as_they_are(train, poisoned):
    order = np.random.default_rng(5).permutation(COUNT)
    images, labels, manifest = imported(IMAGES["ECLIPSE"](poisoned, train.labels, order), dataset=None)
    np.testing.assert_array_equal(images, poisoned[order])
    np.testing.assert_array_equal(labels, train.labels[order])
    assert manifest["order"] == "as in the file" and "measured" not in manifest
    refused(put(poisoned, "bare.npy"), "--labels FILE", dataset=None)
    refused(put(first(poisoned.astype(np.int8)), "noise.pkl"), "--dataset NAME", dataset=None)


def test_labels_may_be_arrays_of_one_number(train, poisoned):
    items = [(image, np.asarray(int(label))) for image, label in zip(first(unit(poisoned)), train.labels, strict=True)]
    np.testing.assert_array_equal(imported(put(items, "x.pkl"))[0], poisoned)
    tensors({"images": torch.tensor(poisoned), "labels": train.labels})
    np.testing.assert_array_equal(imported("x.safetensors")[0], poisoned)


def test_a_subset_takes_its_own_rows(train, poisoned):
    rows = torch.arange(0, COUNT, 3)
    save_split(Path(PREPARED), train.pick(rows), FACTS)
    order = np.random.default_rng(5).permutation(COUNT)
    for file in (IMAGES["PNG"](poisoned, train.labels, order), IMAGES["AVATAR"](poisoned, train.labels, order)):
        images, _, _ = imported(file)
        np.testing.assert_array_equal(images, poisoned[rows])


WRONG = {
    "a state dict": (
        lambda p, y: put({"a": torch.ones(2), "b": torch.ones(3)}, "x.pt"),
        ("2 entries by name ('a', 'b')",),
    ),
    "three parts": (lambda p, y: put((torch.tensor(p), y, y), "x.p2"), ("a tuple of 3",)),
    "labels as text": (
        lambda p, y: put({"data": p, "targets": np.array(["a"] * COUNT)}, "x.npz"),
        ("'targets'", "labels"),
    ),
    "more labels": (
        lambda p, y: put({"data": p, "targets": np.zeros(50, int)}, "x.npz"),
        ("but 50 labels",),
    ),
    "another array": (lambda p, y: put({"data": p, "targets": y.numpy(), "z": p}, "x.npz"), ("3 entries by name",)),
    "grey images": (lambda p, y: put(p[..., :1], "x.npy"), ("--axes last", "(48, 16, 16, 1)")),
    "flat images": (lambda p, y: put(p.reshape(COUNT, -1), "x.npy"), ("an array (48, 768) of uint8",)),
    "bytes of another length": (lambda p, y: put(raw(p, y)[:-1] + [(b"abc", 1)], "x.pkl"), ("lengths",)),
    "labels below 0": (lambda p, y: put([(i, -1) for i in first(unit(p))], "x.pkl"), ("labels below 0",)),
    "images of two sizes": (lambda p, y: put([(i, 1) for i in (p[0], p[1][:8])], "x.pkl"), ("1 of 2 images",)),
    "another size": (lambda p, y: put(p[:, :8, :8], "x.npy"), ("(8, 8, 3)", "(16, 16, 3)")),
    "int64": (lambda p, y: put(p.astype(int), "x.npy"), ("int64",)),
    "not finite": (lambda p, y: put(np.where(p == p.max(), np.nan, unit(p)), "x.npy"), ("NaN",)),
    "two channels last and first": (lambda p, y: put(p[:, :3, :, :], "x.npy"), ("--axes first or --axes last",)),
    "no values": (lambda p, y: put(p[:, :0], "x.npy"), ("an array (48, 0, 16, 3)",)),
    "a label of 2^70": (lambda p, y: put([(i, 2**70) for i in first(unit(p))], "x.pkl"), ("too large to be labels",)),
    "no arrays in safetensors": (lambda p, y: tensors({"images": torch.zeros(3)}), ("1 entries by name",)),
    "labels of another type": (
        lambda p, y: tensors({"images": torch.tensor(p), "labels": y.to(torch.bfloat16)}),
        ("'labels'", "are not labels"),
    ),
    "no file": (lambda p, y: "nowhere.pt", ("neither a file nor a folder",)),
    "text": (lambda p, y: Path("x.txt").write_text("hello") and "x.txt", ("none of: npy, npz",)),
    "cut off": (lambda p, y: Path(put(p, "x.npy")).write_bytes(b"\x93NUMPY\x01\x00") and "x.npy", ("damaged",)),
}


@pytest.mark.parametrize("layout", WRONG)
def test_what_is_slightly_wrong_is_refused(layout, train, poisoned):
    make, words = WRONG[layout]
    refused(make(poisoned, train.labels), *words)


def test_folders_that_are_slightly_wrong_are_refused(train, poisoned):
    pngs("png", poisoned)
    Image.fromarray(poisoned[0]).save("png/x.png")
    refused("png", "holds x.png", "images named by their index")
    Path("png/x.png").unlink()
    Image.fromarray(poisoned[0][:8]).save("png/7.png")
    refused("png", "7.png is 16x8")
    Image.fromarray(poisoned[7]).save("png/07.png")
    refused("png", "two images of one index")
    Path("png/07.png").unlink()
    Path("png/7.png").write_bytes(b"\x89PNG damaged")
    refused("png", "7.png cannot be read")
    Path("empty").mkdir()
    refused("empty", "holds nothing")


def test_images_of_another_data_set_are_refused(train):
    other = np.random.default_rng(9).integers(0, 256, (COUNT, 8, 8, 3)).repeat(2, 1).repeat(2, 2).astype(np.uint8)
    refused(put(other, "other.npy"), "--order")
    refused(put(other, "other.npy"), "resemble", order="dataset")
    refused("other.npy", "does not exist", "relearn prepare nothing", dataset="nothing")


def test_a_swap_of_two_images_is_undone(train, poisoned):
    swapped = poisoned.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    images, _, _ = imported(put(swapped, "swapped.npy"), order="match")
    np.testing.assert_array_equal(images, poisoned)


def test_parquet_of_hugging_face(train, poisoned):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = []
    for image in poisoned:
        memory = io.BytesIO()
        Image.fromarray(image).save(memory, "PNG")
        rows.append({"bytes": memory.getvalue(), "path": None})
    table = pyarrow.table({"image": rows, "label": train.labels.tolist()})
    parquet.write_table(table, "train-00000-of-00001.parquet")
    images, labels, manifest = imported("train-00000-of-00001.parquet")
    np.testing.assert_array_equal(images, poisoned)
    assert manifest["layout"] == "parquet: image and label"
    parquet.write_table(pyarrow.table({"image": rows}), "x.parquet")
    refused("x.parquet", "must have image and label")
    parquet.write_table(pyarrow.table({"image": ["a"], "label": [1]}), "x.parquet")
    refused("x.parquet", "bytes of PNG files")
    Path("x.parquet").write_bytes(b"PAR1damaged")
    refused("x.parquet", "damaged")


def test_the_command(train, poisoned, capsys):
    file = IMAGES["ECLIPSE"](poisoned, train.labels, np.arange(COUNT))
    assert command_line.main(["import", file, "--dataset", "own"]) == 0
    shown = capsys.readouterr().out
    assert "in params.yaml: {use: external, file: imported/EM.safetensors, norm: linf, epsilon: 8}" in shown
    assert load(Path("imported/EM.safetensors"))[0].shape == poisoned.shape
    assert command_line.main(["import", file, "--dataset", "own"]) == 2
    assert "imported/EM.safetensors exists" in capsys.readouterr().err
    assert load_split(Path(PREPARED))[0].images.equal(train.images)
