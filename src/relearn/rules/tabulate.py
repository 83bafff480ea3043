"""tabulate TABLE: make a table of the records."""

import pandas as pd

from relearn import grid
from relearn.params import Params
from relearn.reporting.rendering import render
from relearn.runtime import files, structures


def run(params: Params, table: str) -> None:
    """Write a table as CSV, Markdown and LaTeX."""
    records = pd.DataFrame(files.read_rows(grid.path("aggregate", "records"), structures.RECORDS))
    for suffix, text in render(params.build("tables", table, records)).items():
        files.write_text(grid.path("tabulate", suffix, table=table), text)
