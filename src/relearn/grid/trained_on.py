"""Which training split a cell trains on: the poisoned one, or what a purification made of it. Needs no torch."""

from relearn.grid.paths import Cell
from relearn.params import Params


def trained_on(params: Params, cell: Cell) -> tuple[str, dict]:
    """The rule that makes the training split of a cell, and the coordinates of its job."""
    names = {"dataset": cell.dataset, "poison": cell.poison}
    purification = params.named("methods", cell.method, "PurificationName")
    return ("purify", names | {"purification": purification}) if purification else ("poison", names)
