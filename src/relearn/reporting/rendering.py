"""How tables become text and figures become files: the same bytes on every run, in one house style."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy
import pandas
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.rcsetup import cycler

from relearn.runtime.files import atomic

Arguments = ParamSpec("Arguments")

# Okabe and Ito's colours, which colour-blind readers can distinguish; the order puts the strongest contrast first.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D46")
# Methods that many grids have keep their colours from one grid to the next; the others share what is left.
STANDING = {"erm": 0, "pst": 1, "view": 2, "label_free": 3, "supervised": 4}
DASHES = ("-", (0, (4, 1.2)), (0, (1.2, 0.9)), (0, (5, 1, 1, 1)))  # of the first eight methods, of the next eight, ...
MARKERS = "osD^"
PAPER = (
    7.0  #: inches, the text width of a page: figures of panels are no wider, so that print keeps the size of letters
)
GAP = "–"  #: stands where a table has no number

# Matplotlib writes its version and the time into files unless these fields are empty.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
}
TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
        **{sign: f"\\{sign}" for sign in "_%&#${}"},
    }
)


def render(frame: pandas.DataFrame) -> dict[str, str]:
    """The table as 'csv', 'md' and 'tex' text.

    Floats have six decimals in CSV and two elsewhere; a missing value is an empty field in CSV and a dash elsewhere.
    Columns of text are aligned left, columns of numbers right.
    """
    header = [str(name) for name in frame.columns]
    rows = [[cell_text(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    texts = [any(cell[:1].isalpha() for cell in column) for column in zip(*rows, strict=True)] or [True] * len(header)
    return {
        "csv": frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"),
        "md": _markdown(header, rows, texts),
        "tex": _tex(header, rows, texts),
    }


def cell_text(value: object) -> str:
    """What a table shows for a value: a float with two decimals, a missing one as a dash."""
    if pandas.isna(value):
        return GAP
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def style() -> dict[Any, Any]:
    """Matplotlib settings of the house style."""
    return {
        "axes.prop_cycle": cycler(color=PALETTE),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.linewidth": 0.6,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "figure.titlesize": 9,
        "figure.titleweight": "bold",
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
        "font.size": 8,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "lines.linewidth": 1.3,
        "lines.solid_capstyle": "round",
        "pdf.fonttype": 42,
        "text.parse_math": False,  # a class may be called $x$
        "svg.hashsalt": "relearn",  # otherwise the ids in an SVG are drawn anew each time
        "xtick.labelsize": 7,
        "xtick.major.width": 0.6,
        "ytick.labelsize": 7,
        "ytick.major.width": 0.6,
    }


def styled(function: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """The same function, drawing in the house style; matplotlib's own settings stay as they were."""

    @functools.wraps(function)
    def draw(*args: Arguments.args, **settings: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(style()):
            return function(*args, **settings)

    return draw


def looks(names: list[str]) -> dict[str, dict[str, Any]]:
    """Colour, line style and marker of each method, no two alike among 32.

    `names` are all methods of a grid, not only those drawn, so that they look the same in every figure of it. Those of
    `STANDING` have the same colour in every grid. After the eighth, colours come again with another line and marker.
    """
    count = len(PALETTE)
    free = [place for place in range(count) if place not in {STANDING[name] for name in names if name in STANDING}]
    others = [name for name in names if name not in STANDING]
    places = {name: STANDING[name] for name in names if name in STANDING}
    places |= dict(zip(others, [*free, *range(count, count + len(others))], strict=False))
    return {
        name: {
            "color": PALETTE[places[name] % count],
            "linestyle": DASHES[places[name] // count % len(DASHES)],
            "marker": MARKERS[places[name] // count % len(MARKERS)],
        }
        for name in names
    }


def sections(heights: dict[str, float], width: float) -> tuple[Figure, list[SubFigure]]:
    """A figure of titled sections from top to bottom; `heights` gives the title and height in inches of each."""
    figure = Figure(figsize=(width, sum(heights.values())), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=list(heights.values()), squeeze=False)[:, 0]
    for part, title in zip(parts, heights, strict=True):
        part.suptitle(title)
    return figure, list(parts)


def grid_of_panels(counts: Iterable[int], most: int) -> int:
    """How many panels to put side by side, at most `most`: the fewest with which the largest section needs no row more.

    `counts` are the panels of each section.
    """
    largest = max(counts)
    return math.ceil(largest / math.ceil(largest / most))


def tidy(axes: numpy.ndarray, used: int) -> None:
    """Remove the panels after the first `used`, and give numbers to the x axes of those above a removed one."""
    for axis in axes.flat[used:]:
        axis.remove()
    for axis in axes.flat[max(0, used - axes.shape[1]) : used]:
        axis.tick_params(labelbottom=True)


def readable_on(colour: Sequence[float] | numpy.ndarray) -> str:
    """Black or white, whichever has more contrast to a colour (R, G, B, ...) in 0..1, by the formula of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def legend_handles(axes: Iterable[Axes]) -> dict[str, Artist]:
    """The labels of everything drawn on `axes`, each once, and one drawn thing for each."""
    drawn = (pair for axis in axes for pair in zip(*axis.get_legend_handles_labels(), strict=True))
    return {label: handle for handle, label in drawn}


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as png, pdf or svg, by the suffix of `path`, without time, version or random ids in it."""
    kind = Path(path).suffix.removeprefix(".")
    with atomic(path) as temporary, matplotlib.rc_context(style()):
        figure.savefig(temporary, format=kind, dpi=150, metadata=METADATA[kind])


def _markdown(header: list[str], rows: list[list[str]], texts: list[bool]) -> str:
    marks = [":--" if text else "--:" for text in texts]
    lines = [header, marks, *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def _tex(header: list[str], rows: list[list[str]], texts: list[bool]) -> str:
    head, *body = (" & ".join(cell.translate(TEX) for cell in line) + r" \\" for line in [header, *rows])
    columns = "".join("l" if text else "r" for text in texts)
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"
