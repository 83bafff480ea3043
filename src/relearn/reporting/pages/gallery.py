"""Images of the report: of every data set the clean ones once, and each poison's beside its perturbation."""

from collections.abc import Iterable

import numpy as np

from relearn import grid
from relearn.errors import UserError
from relearn.params import Params
from relearn.reporting import examples, markup
from relearn.reporting.pictures import amplified, rows_png
from relearn.runtime import files
from relearn.runtime.hashing import settings_hash

PIXELS = 640  # a side of all images of a row together, so that large images are fewer


def gallery(params: Params) -> tuple[list[str], list[str]]:
    """The images of every data set of the grid as HTML, and sentences about those that cannot be shown."""
    parts: list[str] = []
    notes: list[str] = []
    pairs = dict.fromkeys((cell.dataset, cell.poison) for cell in grid.cells(params))
    for dataset in dict.fromkeys(dataset for dataset, _ in pairs):
        rows: list[str] = []
        for poison in (poison for name, poison in pairs if name == dataset):
            note = _missing(params, dataset, poison)
            if note:
                notes.append(note)
                continue
            example = examples.of_poison(params, dataset, poison)
            rows += [] if rows else [clean_row(example)]
            rows += [] if example["use"] == "clean" else [poison_row(poison, example, _size(dataset, poison))]
        if rows:
            parts += [f"<h3>{markup.text(dataset)}</h3>", f'<div class="gallery">{"".join(rows)}</div>']
    return parts, notes


def clean_row(example: dict) -> str:
    """The row of the clean images, with the names of their classes."""
    return _row("clean", "", [_strip("", example["clean"], example["labels"])])


def poison_row(name: str, example: dict, size: str) -> str:
    """The row of a poison: its images and, amplified around gray, what it changed; `size` says how much that is."""
    difference, factor = amplified(example["poisoned"].astype(float) - example["clean"])
    strips = [
        _strip("poisoned", example["poisoned"], example["labels"]),
        _strip(f"perturbation × {factor:.3g}", difference, example["labels"]),
    ]
    return _row(name, size, strips)


def _row(name: str, size: str, strips: Iterable[str]) -> str:
    head = f'<div class="name"><b>{markup.text(name)}</b>{markup.paragraph(size, "small") if size else ""}</div>'
    return f'<div class="shown">{head}{"".join(strips)}</div>'


def _strip(caption: str, images: np.ndarray, labels: list[str]) -> str:
    """Images side by side beneath the names of their classes."""
    count = max(1, min(len(images), PIXELS // images.shape[2]))
    names = "".join(f'<span title="{markup.text(label)}">{markup.text(label)}</span>' for label in labels[:count])
    words = f"{caption or 'clean'}: {', '.join(labels[:count])}"
    picture = markup.image(rows_png([images[:count]]), words, "pixels")
    says = f"<figcaption>{markup.text(caption)}</figcaption>" if caption else ""
    return f'<figure class="strip"><div class="labels">{names}</div>{picture}{says}</figure>'


def _missing(params: Params, dataset: str, poison: str) -> str | None:
    """A sentence that says why the images of a poison are not shown; None if they can be."""
    clean, info = (grid.path("prepare", output, dataset=dataset) for output in ("train", "info"))
    poisoned = grid.path("poison", "train", dataset=dataset, poison=poison)
    absent = [str(path) for path in (clean, info, poisoned) if not path.exists()]
    if absent:
        return f"Images of {dataset}/{poison} are not here: {', '.join(absent)}."
    made = {
        clean: grid.settings(params, "prepare", dataset=dataset),
        poisoned: grid.settings(params, "poison", dataset=dataset, poison=poison),
    }
    if any(settings_hash(examples.settings(path)) != settings_hash(expected) for path, expected in made.items()):
        return f"Images of {dataset}/{poison} were made with other settings than params.yaml now has; not shown."
    return None


def _size(dataset: str, poison: str) -> str:
    """What poison.json has measured, where it is there."""
    try:
        found = files.read_json(grid.path("poison", "info", dataset=dataset, poison=poison))["measured"]
        return f"L-inf {found['linf_mean']:.3g}, L2 {found['l2_mean']:.3g} (mean, 1/255), L0 {found['l0_mean']:.3g}"
    except (UserError, KeyError, TypeError, ValueError):
        return ""
