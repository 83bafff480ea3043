"""tabulate TABLE: make a table of the records."""

import pandas as pd

from relearn import grid, records, registry
from relearn.params import Params
from relearn.rendering import render


def run(params: Params, table: str) -> None:
    """Write a table as CSV, Markdown and LaTeX."""
    frame = registry.load("tables", params.entry("tables", table).name)(
        pd.read_csv(records.existing(grid.path("aggregate", "records"))), **params.settings("tables", table)
    )
    for suffix, text in render(frame).items():
        records.write_text(grid.path("tabulate", suffix, table=table), text)
