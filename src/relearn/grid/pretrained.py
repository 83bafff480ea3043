"""Which pretraining the method of a cell starts from. Needs no torch."""

from relearn.grid.paths import Cell
from relearn.params import Params


def pretrained(params: Params, cell: Cell) -> dict | None:
    """The coordinates of the pretraining whose weights a cell's method starts from; None if it names none.

    A pretraining that is shared has the seed 0, any other that of the cell.
    """
    name = params.named("methods", cell.method, "PretrainingName")
    if not name:
        return None
    seed = 0 if params.settings("pretraining", name)["shared"] else cell.seed
    return {"dataset": cell.dataset, "poison": cell.poison, "arch": cell.arch, "pretraining": name, "seed": seed}
