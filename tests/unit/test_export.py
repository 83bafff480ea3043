"""Export: each format is read back, by import and by the libraries it is for, to the same bytes."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from relearn import __main__ as command_line
from relearn.crafting.exchange.commands import FORMATS as CHOICES
from relearn.crafting.exchange.exporting import FORMATS, LOADING, export_poison
from relearn.crafting.exchange.importing import Choices, import_poison
from relearn.data import Split, load_split, save_split, split
from relearn.errors import UserError
from relearn.runtime import files

CLASSES = ["cat", "dog", "fox"]
COUNT, SIDE = 30, 9
POISON = Path("results/poisons/own/lsp")


@pytest.fixture
def poisoned(tmp_path, monkeypatch) -> Split:
    """A poisoned training set of a project, as its job leaves it."""
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (COUNT, SIDE, SIDE + 2, 3), generator=generator).to(torch.uint8)
    made = split(images, torch.arange(COUNT) * 7 % len(CLASSES))
    write(made)
    return made


def write(made: Split) -> None:
    POISON.mkdir(parents=True, exist_ok=True)
    save_split(POISON / "train.safetensors", made, {"classes": CLASSES, "settings": {"poison": {"use": "lsp"}}})
    info = {"declared": {"norm": "l2", "value": 9.0}, "measured": {"linf_mean": 3.0, "l2_mean": 8.5}}
    files.write_json(POISON / "poison.json", info | {"rounding": "half_up"})


def exported(format: str, argument: str = "own/lsp") -> Path:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    out = Path("out", format)
    export_poison(argument, format, out)
    return out


def by_torch(out):
    found = torch.load(out / "poison.pt", weights_only=True)
    return found["data"].numpy(), found["labels"].numpy()


def by_numpy(out):
    with np.load(out / "poison.npz", allow_pickle=False) as found:
        return found["data"], found["targets"]


def by_safetensors(out):
    found = load_file(out / "poison.safetensors")
    return found["images"].numpy(), found["labels"].numpy()


def by_pillow(out):
    rows = [line.split(",") for line in (out / "labels.csv").read_text().splitlines()[1:]]
    images = np.stack([np.asarray(Image.open(out / "data" / f"{index}.png")) for index, _ in rows])
    return images, np.array([int(label) for _, label in rows])


def by_pyarrow(out):
    import io

    import pyarrow.parquet as parquet

    table = parquet.read_table(out / "data/train-00000-of-00001.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"]["names"] == CLASSES and features["image"]["_type"] == "Image"
    images = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table.column("image").to_pylist()]
    return np.stack(images), np.array(table.column("label").to_pylist())


def by_torchvision(out):
    from relearn.runtime.torchvision_compat import torchvision

    found = torchvision().datasets.ImageFolder(str(out / "train"))
    assert found.classes == CLASSES
    rows = [int(Path(path).stem) for path, _ in found.samples]
    images, labels = np.empty((COUNT, SIDE, SIDE + 2, 3), np.uint8), np.empty(COUNT, int)
    for row, (path, label) in zip(rows, found.samples, strict=True):
        images[row], labels[row] = np.asarray(Image.open(path)), label
    return images, labels


LOADERS = {
    "safetensors": by_safetensors,
    "npz": by_numpy,
    "pt": by_torch,
    "png": by_pillow,
    "parquet": by_pyarrow,
    "imagefolder": by_torchvision,
}
every_format = pytest.mark.parametrize("format", FORMATS)


def test_there_is_a_loader_for_every_format():
    assert list(LOADERS) == list(FORMATS) == list(LOADING) == list(CHOICES)


@every_format
def test_libraries_read_the_same_bytes(format, poisoned):
    images, labels = LOADERS[format](exported(format))
    np.testing.assert_array_equal(images, poisoned.images)
    np.testing.assert_array_equal(labels, poisoned.labels)


@every_format
def test_import_reads_the_same_bytes(format, poisoned):
    out = exported(format)
    alone = {"safetensors": "poison.safetensors", "npz": "poison.npz", "pt": "poison.pt"}
    import_poison(out / alone.get(format, ""), Path("back.safetensors"), Choices())
    found = load_file("back.safetensors")
    order = poisoned.labels.argsort(stable=True) if format == "imagefolder" else torch.arange(COUNT)
    assert found["images"].equal(poisoned.images[order]) and found["labels"].equal(poisoned.labels[order])


@every_format
def test_the_checksums_are_those_of_all_files_and_the_card_says_how_to_load(format, poisoned):
    out = exported(format)
    listed = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    there = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file() and p.name != "SHA256SUMS"}
    assert listed == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in there.items()}
    assert LOADING[format] in (out / "README.md").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["classes"] == CLASSES and manifest["declared"] == {"norm": "l2", "value": 9}


@pytest.mark.parametrize(
    "declared, words",
    [
        ({"norm": "linf", "value": 8.0, "free": 0}, "linf 8.0 (1/255)"),
        ({"norm": "linf", "value": 8.0, "free": 2}, "linf 8.0 (1/255), but for 2 pixels of each image"),
        ({"norm": "l0", "value": 1.0, "free": 0}, "l0 1.0 (pixels)"),
        ({"norm": "none", "value": 255.0, "free": 0}, "none"),
    ],
)
def test_the_card_has_the_budget_in_its_unit(declared, words, poisoned):
    path = POISON / "poison.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"declared": declared}))
    assert f"| budget | {words} |" in (exported("npz") / "README.md").read_text()


@every_format
def test_an_export_is_the_same_bytes_again(format, poisoned):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    for name in ("one", "two"):
        export_poison("own/lsp", format, Path(name))
    assert Path("one/SHA256SUMS").read_text() == Path("two/SHA256SUMS").read_text()


def test_a_folder_keeps_the_names_of_its_files(poisoned):
    for row in poisoned.labels.argsort(stable=True).tolist():
        path = Path("photos/train", CLASSES[int(poisoned.labels[row])], f"my photo {row}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    order = poisoned.labels.argsort(stable=True)
    made = split(poisoned.images[order], poisoned.labels[order])
    write(made)
    names = "datasets: {own: {use: folder, path: photos}}\n"
    rest = "poisons: {lsp: {}}\narchitectures: {cnn: {}}\nmethods: {erm: {}}\n"
    grid = "grid: {all: {datasets: all, poisons: all, architectures: all, methods: all, seeds: [0]}}\n"
    Path("params.yaml").write_text(names + rest + grid)
    out = exported("imagefolder")
    for row in range(COUNT):
        original = f"my photo {int(order[row])}.png"
        image = np.asarray(Image.open(out / "train" / CLASSES[int(made.labels[row])] / original))
        np.testing.assert_array_equal(image, made.images[row])
    Path("photos/train/cat/one more.jpg").touch()
    with pytest.raises(UserError, match="photos is no longer the folder that own was made of"):
        export_poison("own/lsp", "imagefolder", Path("again"))
    assert not Path("again").exists()


def test_a_part_of_a_data_set_keeps_its_places(poisoned):
    rows = torch.arange(1, COUNT, 4)
    write(poisoned.pick(rows))
    out = exported("png")
    assert sorted(int(path.stem) for path in (out / "data").iterdir()) == rows.tolist()


def test_what_cannot_be_exported_is_said(poisoned, capsys):
    for arguments, words in (
        (["own/none"], "results/poisons/own/none/train.safetensors does not exist; make it first"),
        (["own"], "takes DATASET/POISON or a cell, found 'own'"),
        (["own/lsp/cnn/erm/x"], "the seed of a cell"),
    ):
        assert command_line.main(["export", *arguments, "--format", "npz"]) == 2
        assert words in capsys.readouterr().err
    assert command_line.main(["export", "own/lsp/cnn/erm/0", "--format", "npz"]) == 0
    assert "wrote 30 images to exports/own-lsp-npz" in capsys.readouterr().out
    assert command_line.main(["export", "own/lsp", "--format", "npz"]) == 2
    assert "exports/own-lsp-npz exists and is not empty" in capsys.readouterr().err
    assert load_split(POISON / "train.safetensors")[0].images.equal(poisoned.images)
