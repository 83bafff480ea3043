"""Export: a poisoned training set of the grid in formats that others load."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from relearn import grid, params
from relearn.crafting.exchange import images, publishing
from relearn.data import Split, load_split, save_tensors
from relearn.errors import UserError
from relearn.runtime.files import read_json
from relearn.runtime.image_files import visible

LOADING = {
    "safetensors": "`safetensors.torch.load_file('poison.safetensors')`: images (N, H, W, 3) uint8, labels (N,) int64",
    "npz": "`numpy.load('poison.npz')`: data (N, H, W, 3) uint8, targets (N,) int64",
    "pt": "`torch.load('poison.pt', weights_only=True)`: data (N, H, W, 3) uint8, labels (N,) int64",
    "png": "`data/<index>.png`, and labels.csv; the index is the place in the original dataset",
    "parquet": "`datasets.load_dataset(FOLDER)`: image, label",
    "imagefolder": "`torchvision.datasets.ImageFolder('train')`: a folder per class",
}


def export_poison(argument: str, format: str, out: Path) -> dict:
    """Write DATASET/POISON, or the poison of a cell, to a new folder in one of `FORMATS`; returns its manifest.

    Beside it come a data card, a manifest and checksums. Raises UserError for a poison that is not made yet.
    """
    parts = argument.split("/")
    if len(parts) == 5:
        grid.parse("train", argument)
    elif len(parts) != 2:
        raise UserError(f"relearn export takes DATASET/POISON or a cell, found '{argument}'")
    dataset, poison = parts[:2]
    path = grid.path("poison", "train", dataset=dataset, poison=poison)
    if not path.is_file():
        raise UserError(f"{path} does not exist; make it first: relearn poison {dataset}/{poison}")
    train, facts = load_split(path)
    info = read_json(grid.path("poison", "info", dataset=dataset, poison=poison))
    manifest = {
        "dataset": dataset,
        "poison": poison,
        "format": format,
        "images": list(train.images.shape),
        "classes": facts["classes"],
        "declared": info.get("declared"),
        "measured": info.get("measured"),
        "rounding": info.get("rounding"),
        "settings": facts["settings"],
    }
    with publishing.new_folder(out) as folder:
        FORMATS[format](folder, train, manifest)
        publishing.describe(folder, manifest, _card(manifest, train))
    return manifest


def _card(manifest: dict, train: Split) -> str:
    declared, measured = manifest["declared"] or {}, manifest["measured"] or {}
    facts = {
        "images": f"{len(train)} of {train.images.shape[2]}x{train.images.shape[1]} pixels, uint8",
        "classes": ", ".join(manifest["classes"][:20]) + (", ..." if len(manifest["classes"]) > 20 else ""),
        "budget": _budget(declared),
        "L-inf of the change (mean, 1/255)": f"{measured.get('linf_mean', 0):.2f}",
        "L2 of the change (mean, 1/255)": f"{measured.get('l2_mean', 0):.1f}",
        "order": "that of the dataset",
        "load it with": LOADING[manifest["format"]],
        "made with": f"relearn, poison `{manifest['poison']}`; settings in {publishing.MANIFEST}",
    }
    text = (
        f"Training images of `{manifest['dataset']}`, poisoned: networks trained on them are meant to fail on clean "
        "images. Labels are unchanged. The licence of the original images applies."
    )
    return publishing.card(f"{manifest['dataset']}, {manifest['poison']}", facts, text)


def _budget(declared: dict) -> str:
    """What the poison promises, in words."""
    norm, value, free = declared.get("norm"), declared.get("value"), declared.get("free")
    if norm == "none":
        return "none"
    words = f"{norm} {value} ({'pixels' if norm == 'l0' else '1/255'})"
    return f"{words}, but for {free} pixels of each image" if free else words


def _safetensors(folder: Path, train: Split, manifest: dict) -> None:
    tensors = {"images": train.images, "labels": train.labels}
    save_tensors(folder / "poison.safetensors", tensors, {"manifest": manifest})


def _npz(folder: Path, train: Split, manifest: dict) -> None:
    np.savez(folder / "poison.npz", data=train.images.numpy(), targets=train.labels.numpy())


def _pt(folder: Path, train: Split, manifest: dict) -> None:
    torch.save({"data": train.images, "labels": train.labels}, folder / "poison.pt")


def _png(folder: Path, train: Split, manifest: dict) -> None:
    (folder / "data").mkdir()
    for image, index in zip(train.images.numpy(), train.index.tolist(), strict=True):
        (folder / "data" / f"{index}.png").write_bytes(images.png_bytes(image))
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("index", "label"))
        writer.writerows(zip(train.index.tolist(), train.labels.tolist(), strict=True))


def _parquet(folder: Path, train: Split, manifest: dict) -> None:
    """Rows of an image, as the bytes of a PNG file, and a label, described as a Hugging Face dataset is."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError("parquet files need pyarrow; pip install 'relearn[parquet]'") from None
    features = {"image": {"_type": "Image"}, "label": {"names": manifest["classes"], "_type": "ClassLabel"}}
    rows = [
        {"bytes": images.png_bytes(image), "path": f"{index}.png"}
        for image, index in zip(train.images.numpy(), train.index.tolist(), strict=True)
    ]
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema(
        [("image", struct), ("label", pyarrow.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pyarrow.table({"image": pyarrow.array(rows, struct), "label": train.labels.numpy()}, schema)
    (folder / "data").mkdir()
    parquet.write_table(table, folder / "data" / "train-00000-of-00001.parquet", row_group_size=1000)


def _imagefolder(folder: Path, train: Split, manifest: dict) -> None:
    """A folder per class; the names are those of the user's own files where the dataset is a folder of his."""
    classes = manifest["classes"]
    if any("/" in name or name in ("", ".", "..") for name in classes):
        raise UserError("a class has a name that no folder can have; choose another format")
    names = _original_names(manifest["dataset"], classes, train)
    manifest["names"] = "those of the original files" if names else "the place in the dataset"
    own = [f"{index}.png" for index in train.index.tolist()] if names is None else names
    for row, name in enumerate(own):
        of_class = folder / "train" / classes[int(train.labels[row])]
        of_class.mkdir(parents=True, exist_ok=True)
        (of_class / name).write_bytes(images.png_bytes(train.images[row].numpy()))


def _original_names(dataset: str, classes: list[str], train: Split) -> list[str] | None:
    """The names that the user's own files have as PNG files, by row; None for a dataset that is no folder of his.

    Raises UserError when the folder is no longer what the dataset was made of.
    """
    if not params.FILE.is_file():
        return None
    checked = params.load()
    if dataset not in checked.names("datasets"):
        return None
    base = next((Path(p) for p in checked.paths("datasets", dataset).values() if Path(p, "train").is_dir()), None)
    if base is None:
        return None
    errors: list[str] = []
    of_class = {name: [file.name for file in visible(base / "train" / name, errors)] for name in classes}
    count = sum(map(len, of_class.values()))
    labels = [label for label, name in enumerate(classes) for _ in of_class[name]]
    if errors or count != (train.originals or len(train)) or torch.tensor(labels)[train.index].ne(train.labels).any():
        raise UserError(
            f"{base} is no longer the folder that {dataset} was made of; run relearn prepare and poison again"
        )
    names = [name for label in classes for name in images.png_names(of_class[label])]
    return [names[index] for index in train.index.tolist()]


FORMATS: dict[str, Callable[[Path, Split, dict], None]] = {
    "safetensors": _safetensors,
    "npz": _npz,
    "pt": _pt,
    "png": _png,
    "parquet": _parquet,
    "imagefolder": _imagefolder,
}
