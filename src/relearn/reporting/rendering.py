"""How tables become text and figures become files: the same bytes on every run, in one house style."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import pandas
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.rcsetup import cycler

from relearn.runtime.files import atomic

Arguments = ParamSpec("Arguments")

# Okabe and Ito's colours, which colour-blind readers can distinguish; the order puts the strongest contrast first.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D46")
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


def colours(names: list[str]) -> dict[str, str]:
    """One fixed colour per name, by its place in the whole list; they repeat after the eighth."""
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}


def sections(heights: dict[str, float], width: float) -> tuple[Figure, list[SubFigure]]:
    """A figure of titled sections from top to bottom; `heights` gives the title and height in inches of each."""
    figure = Figure(figsize=(width, sum(heights.values())), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=list(heights.values()), squeeze=False)[:, 0]
    for part, title in zip(parts, heights, strict=True):
        part.suptitle(title)
    return figure, list(parts)


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
