"""Curves of the report: clean test accuracy per epoch as SVG, a panel for each poison, a line for each cell."""

from collections.abc import Iterable
from dataclasses import dataclass

from relearn.grid import Cell
from relearn.reporting import markup
from relearn.reporting.rendering import PALETTE

Curve = list[tuple[int, float]]  # epoch and accuracy in percent
WIDTH, HEIGHT = 320, 200  # of a panel, in the units of its SVG
LEFT, RIGHT, TOP, BOTTOM = 34, 10, 8, 30
AXES = ("method", "poison", "seed")  #: what can be toggled
MOST_TICKS = 6


def curves(found: dict[Cell, Curve], chance: dict[str, float], anchors: dict[Cell, str]) -> str:
    """The section of the curves: switches, and for each dataset and architecture its panels.

    `chance` is the accuracy of guessing by dataset, in percent, where it is known.
    """
    methods = list(dict.fromkeys(cell.method for cell in found))
    parts = [f'<form class="switches">{"".join(_switches(axis, found, methods) for axis in AXES)}</form>']
    for dataset, arch in dict.fromkeys((cell.dataset, cell.arch) for cell in found):
        block = {cell: curve for cell, curve in found.items() if (cell.dataset, cell.arch) == (dataset, arch)}
        last = max(epoch for curve in block.values() for epoch, _ in curve)
        panels = (
            _Panel(poison, {cell: curve for cell, curve in block.items() if cell.poison == poison}, last)
            for poison in dict.fromkeys(cell.poison for cell in block)
        )
        drawn = (part.render(methods, chance.get(dataset), anchors) for part in panels)
        parts.append(f"<h3>{markup.text(f'{dataset}, {arch}')}</h3>")
        parts.append(f'<div class="panels">{"".join(drawn)}</div>')
    return "".join(parts)


def _switches(axis: str, found: Iterable[Cell], methods: list[str]) -> str:
    """A box for each value of an axis, all of them ticked."""
    values = list(dict.fromkeys(str(getattr(cell, axis)) for cell in found))
    boxes = []
    for value in values:
        sample = _sample(methods.index(value)) if axis == "method" else ""
        box = f'<input type="checkbox" data-axis="{axis}" value="{markup.text(value)}" checked>'
        boxes.append(f"<label>{box}{sample}{markup.text(value)}</label>")
    both = " ".join(f'<button type="button" data-all="{word}">{word}</button>' for word in ("all", "none"))
    return f'<fieldset><legend>{axis}</legend>{"".join(boxes)}<span class="both">{both}</span></fieldset>'


def _sample(place: int) -> str:
    line = f'<path class="{colour(place)}" d="M1 5H21"/>'
    return f'<svg class="sample" viewBox="0 0 22 10" width="22" height="10" aria-hidden="true">{line}</svg>'


def colour(place: int) -> str:
    """The classes of the style for the line of the method of this place: eight colours, then the same dashed."""
    return f"line colour{place % len(PALETTE)} dash{place // len(PALETTE) % 4}"


@dataclass(frozen=True)
class _Panel:
    """The curves of one poison; `last` is the last epoch of the axis."""

    poison: str
    found: dict[Cell, Curve]
    last: int

    def render(self, methods: list[str], chance: float | None, anchors: dict[Cell, str]) -> str:
        lines = [self._line(cell, curve, methods.index(cell.method), anchors) for cell, curve in self.found.items()]
        frame = [*self._frame(), *self._chance(chance)]
        shape = f'viewBox="0 0 {WIDTH} {HEIGHT}" data-left="{LEFT}" data-right="{WIDTH - RIGHT}"'
        shape += f' data-top="{TOP}" data-bottom="{HEIGHT - BOTTOM}" data-last="{self.last}"'
        words = f"clean test accuracy in percent per epoch, {self.poison}"
        drawing = f'<svg {shape} role="img" aria-label="{markup.text(words)}">{"".join(frame + lines)}</svg>'
        caption = f"<figcaption>{markup.text(self.poison)}</figcaption>"
        readout = '<p class="readout small" aria-hidden="true">&nbsp;</p>'
        return f'<figure class="panel" data-poison="{markup.text(self.poison)}">{caption}{drawing}{readout}</figure>'

    def _x(self, epoch: int) -> float:
        share = (epoch - 1) / (self.last - 1) if self.last > 1 else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def _frame(self) -> Iterable[str]:
        for percent in range(0, 101, 25):
            y = _y(percent)
            yield f'<path class="rule" d="M{LEFT} {y:.2f}H{WIDTH - RIGHT}"/>'
            yield f'<text class="tick left" x="{LEFT - 5}" y="{y + 3.5:.2f}">{percent}</text>'
        for epoch in ticks(self.last):
            yield f'<text class="tick" x="{self._x(epoch):.2f}" y="{HEIGHT - BOTTOM + 13}">{epoch}</text>'
        yield f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2:.2f}" y="{HEIGHT - 4}">epoch</text>'

    def _chance(self, percent: float | None) -> Iterable[str]:
        if percent is not None:
            yield f'<path class="chance" d="M{LEFT} {_y(percent):.2f}H{WIDTH - RIGHT}"/>'
            yield f'<text class="tick left" x="{WIDTH - RIGHT}" y="{_y(percent) - 3:.2f}">chance {percent:.3g} %</text>'

    def _line(self, cell: Cell, curve: Curve, place: int, anchors: dict[Cell, str]) -> str:
        points = " ".join(f"{self._x(epoch):.2f},{_y(accuracy):.2f}" for epoch, accuracy in curve)
        names = "".join(f' data-{axis}="{markup.text(getattr(cell, axis))}"' for axis in AXES)
        line = f'<polyline class="{colour(place)}" points="{points}"/>'
        dot = f'<circle class="{colour(place)}" cx="{points.split(",")[0]}" cy="{points.split(",")[1]}" r="2"/>'
        return f'<a class="curve" href="#{markup.text(anchors[cell])}"{names}>{line if len(curve) > 1 else dot}</a>'


def ticks(last: int) -> list[int]:
    """Whole epochs to write beneath an axis from 1 to `last`: the ends, and round numbers between them."""
    steps = (step * 10**power for power in range(7) for step in (1, 2, 5))
    step = next(step for step in steps if last / step <= MOST_TICKS)
    between = [epoch for epoch in range(step, last, step) if epoch > 1 and last - epoch >= step / 2]
    return list(dict.fromkeys([1, *between, last]))


def _y(percent: float) -> float:
    return TOP + (1 - percent / 100) * (HEIGHT - TOP - BOTTOM)
