"""Clean and poisoned images side by side."""

import math
import textwrap

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from relearn.errors import UserError
from relearn.registry import Positive, PositiveInt, register, suggest
from relearn.reporting.rendering import sections, styled

FACTORS = (100, 50, 20, 10, 5, 2, 1)  # of which a poison gets the largest that clips hardly anything, or 1
CLIPPED = 0.01  # of the values that a poison changes, at most so many are clipped
MIDDLE = 127  # the grey of no change, in 1/255
SIDE = 0.44  # inches, of an image


@register
@styled
def gallery(
    examples: dict,
    *,
    poisons: list[str] | None = None,
    amplify: Positive | None = None,
    classes: PositiveInt = 5,
) -> Figure:
    """The same images with every poison, and what it adds: a row per poison, a column per class.

    Above them the clean images. On the right the perturbation, times a factor, on mid-grey; the factor, the largest
    change (L-inf, in 1/255) and the PSNR (dB; peak 255, over all pixels) of the images shown stand beside it. The
    factor is `amplify`, or (null) for each poison the largest of 100, 50, 20, 10, 5, 2, 1 at which at most 1 % of
    what changes is clipped.
    `poisons` are those to draw (null: all), `classes` the columns at most. A section per dataset. Raises UserError for
    poisons that the grid does not have, or one that has only clean data.
    """
    found = [key for key, example in examples.items() if example["use"] != "clean"]
    if not found:
        raise UserError(
            "gallery: the grid has no poison but 'clean'; add one, or take 'gallery' out of 'figures' in params.yaml"
        )
    known = list(dict.fromkeys(poison for _, poison in found))
    for poison in poisons or ():
        if poison not in known:
            raise UserError(f"gallery: the grid has no poison '{poison}'; {suggest(poison, known)}")
    shown = {
        dataset: [poison for poison in poisons or known if (dataset, poison) in found]
        for dataset in dict.fromkeys(dataset for dataset, _ in found)
    }
    shown = {dataset: names for dataset, names in shown.items() if names}
    columns = min(classes, max(len(examples[key]["clean"]) for key in found))
    heights = {dataset: 0.8 + SIDE * 1.04 * (1 + len(names)) for dataset, names in shown.items()}
    figure, parts = sections(heights, width=2.6 + SIDE * (2 * columns + 0.5))
    for part, (dataset, names) in zip(parts, shown.items(), strict=True):
        _section(part.subplots(), {name: examples[dataset, name] for name in names}, amplify, columns)
    return figure


def _section(axis: Axes, poisons: dict[str, dict], amplify: float | None, columns: int) -> None:
    """Draw all rows of a dataset as one picture: clean images, then poisoned ones and perturbations."""
    first = next(iter(poisons.values()))
    clean = first["clean"][:columns].astype(float)
    count, high, wide, _ = clean.shape
    rows, facts = [(clean, numpy.full_like(clean, 255))], [""]
    for example in poisons.values():
        poisoned = example["poisoned"][:columns].astype(float)
        change = poisoned - example["clean"][:columns]
        factor = amplify or _factor(change)
        rows.append((poisoned, numpy.clip(MIDDLE + factor * change, 0, 255)))
        facts.append(f"×{factor:g}, {_strength(change)}")
    edge = max(1, high // 16)  # pixels of white around each image
    framed = numpy.pad(rows, ((0, 0), (0, 0), (0, 0), (0, edge), (0, edge), (0, 0)), constant_values=255)
    # (row, half, column, y, x, rgb) becomes a picture for each half: rows beside y, columns beside x
    size = (len(rows) * (high + edge), count * (wide + edge), 3)
    left, right = (framed[:, half].transpose(0, 2, 1, 3, 4).reshape(size) for half in (0, 1))
    between = numpy.full((size[0], wide // 2, 3), 255.0)
    axis.imshow(numpy.concatenate([left, between, right], 1)[:-edge, :-edge].astype("uint8"), interpolation="nearest")
    centres = wide / 2 - 0.5 + numpy.arange(count) * (wide + edge)
    heights = high / 2 - 0.5 + numpy.arange(len(rows)) * (high + edge)
    labels = ["\n".join(textwrap.wrap(label.replace("_", " "), 10)[:2]) for label in first["labels"][:columns]]
    axis.set_xticks(centres, labels, fontsize=6)
    axis.set_yticks(heights, ["clean", *poisons])
    axis.tick_params(length=0, labelbottom=False, labeltop=True)
    middle = size[1] + wide // 2 + (size[1] - edge) / 2
    axis.text(middle, heights[0], "perturbation", ha="center", va="center")
    for height, words in zip(heights, facts, strict=True):
        axis.text(2 * size[1] + wide // 2, height, words, ha="left", va="center", fontsize=6)
    axis.spines[:].set_visible(False)


def _factor(change: numpy.ndarray) -> float:
    changed = numpy.abs(change[change != 0])
    most = numpy.quantile(changed, 1 - CLIPPED, method="lower") if changed.size else 0.0
    return next((factor for factor in FACTORS if factor * most <= MIDDLE), 1)


def _strength(change: numpy.ndarray) -> str:
    """L-inf and PSNR in words; without any change the PSNR has no end."""
    error = float((change**2).mean())
    psnr = f"{10 * math.log10(255**2 / error):.1f} dB" if error else "no change"
    return f"L∞ {numpy.abs(change).max():.0f}, {psnr}"
