"""A tiny project in which everything is made, and the changes that the catalogue of bad inputs makes to its copies."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from safetensors.numpy import load_file, save_file

from relearn import __main__, grid, params

PARAMS = """\
compute: {threads: 1}
train: {epochs: 2, batch: 16, warmup_steps: 1, probe_size: 16, crop_pad: 1, checkpoint_epochs: 1}
datasets:
  mine: {use: folder, path: images, size: 16}
poisons:
  clean: {}
  lsp: {epsilon: 6}
  hypo: {surrogate: small, steps: 2}
  given: {use: external, file: noise.npy}
surrogates:
  small: {arch: cnn, epochs: 1}
architectures:
  cnn: {width: 8}
pretraining:
  look: {use: contrastive, epochs: 1, batch: 16}
methods:
  erm: {}
  pst: {probe_steps: 1}
  frozen: {use: frozen_pretrained, pretraining: look}
grid:
  main: {datasets: [mine], poisons: [clean, lsp], architectures: [cnn], methods: [erm, pst], seeds: [0, 1]}
  other: {datasets: [mine], poisons: [hypo, given], architectures: [cnn], methods: [erm], seeds: [0]}
  stage: {datasets: [mine], poisons: [lsp], architectures: [cnn], methods: [frozen], seeds: [0]}
tables:
  accuracy: {}
  clean_cost: {}
  relative: {}
  summary: {}
figures:
  trap_curves: {}
  gallery: {}
  accuracy_matrix: {}
  embedding: {cells: [mine/clean/cnn/erm/0]}
  stage_timeline: {cells: [mine/clean/cnn/pst/0]}
"""
CLASSES, COUNTS = 4, {"train": 8, "test": 4}
GONE = object()  # `!gone` in the table: this key is taken away


class Loader(yaml.SafeLoader):
    """YAML with `!times [text, count, ...]`, `!hex digits` and `!gone`, for what a table cannot spell out."""


def _times(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> str:
    parts = loader.construct_sequence(node)
    return "".join(text * count for text, count in zip(parts[::2], parts[1::2], strict=True))


Loader.add_constructor("!times", _times)
Loader.add_constructor("!hex", lambda loader, node: bytes.fromhex(loader.construct_scalar(node)))
Loader.add_constructor("!gone", lambda loader, node: GONE)


def make(folder: Path) -> None:
    """Make everything in `folder`, the current one: images, noise, splits, poisons, runs, records and their summary."""
    draw = np.random.default_rng(1)
    for part, count in COUNTS.items():
        for label in range(CLASSES):
            place = folder / "images" / part / f"class_{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 60, (16, 16, 3)) + 45 * label
                Image.fromarray(pixels.astype("uint8")).save(place / f"{number}.png")
    np.save(folder / "noise.npy", draw.integers(-4, 5, (CLASSES * COUNTS["train"], 16, 16, 3)).astype("int8"))
    (folder / "params.yaml").write_text(PARAMS)
    jobs = [job for job in grid.jobs(params.load()) if job.rule not in ("tabulate", "plot")]
    for command in ("grid --write", *(job.command.removeprefix("relearn ") for job in jobs)):
        assert __main__.main(command.split()) == 0, command


def change(folder: Path, entry: dict) -> None:
    """Change a copy of the project as an entry of the table says: what it wants to be of each kind, in this order."""
    for kind, apply in CHANGES.items():
        content = entry.get(kind, {})
        for name, wanted in content.items() if isinstance(content, dict) else [(name, None) for name in content]:
            apply(folder, name, wanted)


def _remove(folder: Path, name: str, _: None) -> None:
    shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def _folder(folder: Path, name: str, _: None) -> None:
    (folder / name).mkdir(parents=True)


def _copy(folder: Path, name: str, target: str) -> None:
    (folder / target).parent.mkdir(parents=True, exist_ok=True)
    if (folder / name).is_dir():
        shutil.copytree(folder / name, folder / target, dirs_exist_ok=True)
    else:
        shutil.copy(folder / name, folder / target)


def _link(folder: Path, name: str, target: str) -> None:
    (folder / name).symlink_to(target)


def _write(folder: Path, name: str, content: str | bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def _edit(folder: Path, old: str, new: str) -> None:
    _replace(folder, "params.yaml", {old: new})


def _replace(folder: Path, name: str, changes: dict[str, str]) -> None:
    text = (folder / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} does not have {old!r}"
        text = text.replace(old, new, 1)
    (folder / name).write_text(text)


def _cut(folder: Path, name: str, count: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:count])


def _put(content, dotted: str, value: object) -> None:
    *around, last = dotted.split(".")
    for key in around:
        content = content[int(key) if isinstance(content, list) else key]
    if value is GONE:
        del content[last]
    else:
        content[last] = value


def _json(folder: Path, name: str, changes: dict) -> None:
    content = json.loads((folder / name).read_text())
    for dotted, value in changes.items():
        _put(content, dotted, value)
    (folder / name).write_text(json.dumps(content))


def _metadata(path: Path) -> dict:
    length = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]


def _facts(folder: Path, name: str, changes: object) -> None:
    """Facts in the header of a safetensors file of ours, by dotted keys; what is no mapping stands in for all."""
    facts = json.loads(_metadata(folder / name)["facts"])
    if isinstance(changes, dict):
        for dotted, value in changes.items():
            _put(facts, dotted, value)
    else:
        facts = changes
    save_file(load_file(folder / name), folder / name, {"facts": json.dumps(facts)})


def _tensors(folder: Path, name: str, changes: dict) -> None:
    """Tensors of a safetensors file of ours, each as [shape, dtype, value] or `!gone`."""
    tensors, metadata = load_file(folder / name), _metadata(folder / name)
    for key, wanted in changes.items():
        if wanted is GONE:
            del tensors[key]
        else:
            tensors[key] = _array(wanted)
    save_file(tensors, folder / name, metadata)


def _npy(folder: Path, name: str, wanted: list) -> None:
    np.save(folder / name, _array(wanted))


def _array(wanted: list) -> np.ndarray:
    shape, dtype, value = wanted
    return np.full(shape, value, dtype)


CHANGES: dict[str, Callable] = {
    "remove": _remove,
    "folder": _folder,
    "link": _link,
    "copy": _copy,  # from: to
    "write": _write,
    "edit": _edit,  # params.yaml, old text: new text
    "replace": _replace,  # the same in another file
    "cut": _cut,  # so many bytes are left
    "json": _json,
    "facts": _facts,
    "tensors": _tensors,
    "npy": _npy,
}
