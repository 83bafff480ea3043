"""The records of the report: a section for each cell without its seed, and in it the record of every seed."""

import json

from relearn.grid import Cell
from relearn.reporting import markup
from relearn.reporting.pages.provenance import date, run_report
from relearn.reporting.summaries import CELL
from relearn.runtime.files import rounded


def anchor(cell: Cell) -> str:
    """The place of a cell's record in the page."""
    return f"{group_anchor(cell)}-{cell.seed}"


def group_anchor(cell: Cell) -> str:
    """The place of the records of a cell's seeds."""
    return "-".join(("cell", cell.dataset, cell.poison, cell.arch, cell.method))


def group_names(cell: Cell) -> tuple[str, ...]:
    """The names of a cell in the order of the columns of tables."""
    return tuple(str(getattr(cell, name)) for name in CELL)


def sections(found: dict[Cell, dict]) -> list[str]:
    """HTML of all records, in the order of the grid."""
    groups: dict[str, list[Cell]] = {}
    for cell in found:
        groups.setdefault(group_anchor(cell), []).append(cell)
    parts = []
    for place, cells in groups.items():
        one = cells[0]
        title = f"{one.dataset} / {one.poison} / {one.arch} / {one.method}"
        seeds = "".join(_seed(cell, found[cell]) for cell in cells)
        parts.append(f'<section class="cell" id="{markup.text(place)}"><h3>{markup.text(title)}</h3>{seeds}</section>')
    return parts


def _seed(cell: Cell, record: dict) -> str:
    result = record["result"]
    words = (
        f"seed {cell.seed}: {result['accuracy']:.1f} % after the last epoch, {result['oracle_accuracy']:.1f} % at best "
        f"(epoch {result['oracle_epoch']}), {result['verdict']}"
    )
    inside = f"<pre>{markup.text(json.dumps(rounded(record), indent=2, sort_keys=True))}</pre>"
    report = run_report(cell)
    if report:
        made = (
            f"{report.get('device')}, commit {report.get('commit') or 'unknown'}, {date(report) or 'date not recorded'}"
        )
        inside = markup.paragraph(f"Trained on {made}.", "small") + inside
    path = cell.path("evaluate", "record").as_posix()
    return markup.folded(words, markup.paragraph(path, "small") + inside, anchor(cell))
