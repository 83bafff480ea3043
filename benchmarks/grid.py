"""What the workflow costs beside its jobs, by the number of cells."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import scale
from benchmarks.options import Options
from benchmarks.timing import head, number, row
from relearn import grid, params


def report(options: Options) -> Iterator[str]:
    """A table with a row per size of grid: wall seconds and CPU seconds of each command."""
    yield (
        "## Grid\n\nSeconds, and CPU seconds in brackets, in a project with placeholders for outputs (n = 1). "
        "`benchmarks/scale.py` measures more commands.\n"
    )
    made = ("`snakemake -n`, nothing made", "`relearn adopt`, all made", "`snakemake -n`, all adopted")
    yield head("cells", "jobs", "`relearn grid --write`", *made)
    for cells in options.cells:
        yield row(*_costs(cells))


def _costs(cells: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        scale.copy(Path(folder), cells)
        with contextlib.chdir(folder):
            checked, clock = params.load(), scale.Clock(Path(folder))
            found = [clock.measured("relearn grid --write"), clock.measured("snakemake -n")]
            scale.write_placeholders(checked)
            clock.measured("dvc commit --force --quiet")  # adopt believes only what DVC has recorded
            found += [clock.measured("relearn adopt"), clock.measured("snakemake -n")]
            sizes = [f"{len(grid.cells(checked)):,}", f"{len(grid.jobs(checked)):,}"]
    return [*sizes, *(f"{number(wall)} ({number(cpu)})" for wall, cpu, _ in found)]
