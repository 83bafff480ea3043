"""How many training images a dataset has, and of which size, before and after it is prepared."""

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from relearn import grid, registry
from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime import files, structures
from relearn.runtime.hashing import settings_hash

Size = tuple[int, int, int]  # images, height, width


def size(params: Params, dataset: str) -> Size | None:
    """The size of the training split: as prepared, else as its module declares, else by the files of the user's folder.

    None for a dataset that is not prepared and says nothing. One that was prepared with other settings is not prepared.
    """
    if prepared := _prepared(params, dataset):
        return prepared
    settings, use = params.settings("datasets", dataset), params.entry("datasets", dataset).name
    declared = getattr(registry.module("datasets", use), "SIZES", {})
    if use in declared:
        return declared[use](settings)
    folders = [path for path in params.paths("datasets", dataset).values() if os.path.isdir(path)]
    side = settings.get("size")
    return (_files(Path(folders[0]), settings.get("train_per_class")), side, side) if folders and side else None


def _prepared(params: Params, dataset: str) -> Size | None:
    """The size of the prepared training split; None without one of the settings of params.yaml."""
    path = grid.path("prepare", "train", dataset=dataset)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            images, height, width, _ = file.get_slice("images").get_shape()
            facts = files.parsed_json(path, (file.metadata() or {}).get("facts", ""), structures.SPLIT)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is corrupt or not written by relearn ({error}); delete it and run again") from None
    now = params.settings("datasets", dataset) | {"use": params.entry("datasets", dataset).name}
    of_path = params.paths("datasets", dataset)  # digests in the file, which are not looked up for a plan
    then = facts["settings"].get("dataset")
    hashes = [
        settings_hash({key: value for key, value in known.items() if key not in of_path})
        for known in (now, then if isinstance(then, dict) else {})
    ]
    return (images, height, width) if hashes[0] == hashes[1] else None


def _files(folder: Path, per_class: int | None) -> int:
    """The files below `folder`/train, at most `per_class` of each class; those below `folder` if it has no train/."""
    root = folder / "train" if (folder / "train").is_dir() else folder
    counts = [sum(len(files) for _, _, files in os.walk(entry, followlinks=True)) for entry in root.iterdir()]
    return sum(count if per_class is None else min(count, per_class) for count in counts)
