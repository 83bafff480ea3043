"""`relearn report`: everything that is known of the grid of params.yaml in one HTML page, the same bytes every time."""

from collections.abc import Iterable
from pathlib import Path

import pandas

from relearn import grid, registry
from relearn.errors import UserError
from relearn.params import Params
from relearn.reporting import gathering, markup
from relearn.reporting.pages import curves, gallery, provenance, records, tables
from relearn.reporting.rendering import render
from relearn.reporting.summaries import plain_methods
from relearn.runtime import files, structures

COMMAND = "snakemake --cores 2"


def write(params: Params, out: Path) -> str:
    """Write the page and return the line for the terminal.

    Raises UserError, and writes nothing, when no cell has a record, and for a record that `aggregate` would reject.
    """
    cells, missing = grid.cells(params), gathering.without_record(params)
    if len(missing) == len(cells):
        raise UserError(
            f"none of the {len(cells)} cells of the grid has a record yet, so there is no report; run: {COMMAND}"
        )
    absent = set(missing)
    found = gathering.records(params, [cell for cell in cells if cell not in absent])
    text = page(params, found, missing)
    files.write_text(out, text)
    size = len(text.encode()) / 1e6
    return f"{out}: {_counted(len(cells), missing)} ({size:.1f} MB)"


def page(params: Params, found: dict[grid.Cell, dict], missing: list[grid.Cell]) -> str:
    """The whole page from the records of cells and the files beside them; `missing` are the cells without a record."""
    frame = as_read(gathering.row(cell, record) for cell, record in found.items())
    shown, notes = _curves(found)
    images, hidden = gallery.gallery(params)
    parts = {
        "Tables": _tables(params, frame.assign(plain=_plain(params, frame)), found),
        "Curves": [shown, *map(_note, notes)],
        "Images": [*images, *map(_note, hidden)],
        "Figures": _figures(params, frame),
        "Provenance": provenance.provenance(params, list(found)),
        "Records": records.sections(found),
    }
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in parts)
    lead = [markup.paragraph(_sizes(found) + ".", "lead")]
    if missing:
        names = markup.bullets(missing)
        lead += [
            _note(_counted(len(found) + len(missing), missing) + "."),
            markup.folded("Cells without a record", names),
        ]
    body = [*lead, f"<nav>{links}</nav>"]
    for name, inside in parts.items():
        body += [f'<section id="{name.lower()}"><h2>{name}</h2>', *inside, "</section>"]
    title = f"relearn: {', '.join(dict.fromkeys(cell.dataset for cell in found))}"
    return markup.document(title, body, script=True)


def as_read(rows: Iterable[dict]) -> pandas.DataFrame:
    """Records as a table reads them from records.csv, where numbers have six decimals."""
    numbers = (structures.NUMBER, structures.SHARE)

    def read(name: str, value: object) -> object:
        number = structures.RECORDS.get(name, structures.NUMBER) in numbers and value is not None
        return float(f"{value:.6f}") if number else value

    return pandas.DataFrame([{name: read(name, value) for name, value in row.items()} for row in rows])


def _plain(params: Params, frame: pandas.DataFrame) -> pandas.Series:
    """Which records are of plain training, by the methods of the whole grid: those of plain training may be missing."""
    methods = dict.fromkeys(cell.method for cell in grid.cells(params))
    return frame["method"].isin(plain_methods({name: params.entry("methods", name).name for name in methods}))


def _counted(cells: int, missing: list[grid.Cell]) -> str:
    if missing:
        return f"{len(missing)} of {cells} cells have no record yet: run {COMMAND}"
    return f"all {cells} cells have a record"


def _sizes(found: dict[grid.Cell, dict]) -> str:
    """How many cells there are, and of what."""
    axes = {"datasets": "dataset", "poisons": "poison", "architectures": "arch", "methods": "method", "seeds": "seed"}
    counts = {words: len({getattr(cell, axis) for cell in found}) for words, axis in axes.items()}
    listed = ", ".join(f"{count} {words.removesuffix('s') if count == 1 else words}" for words, count in counts.items())
    return (
        f"{len(found)} cell{'' if len(found) == 1 else 's'}: {listed}. Accuracies are on clean test images, in percent"
    )


def _note(words: object) -> str:
    return markup.paragraph(words, "note")


def _tables(params: Params, frame: pandas.DataFrame, found: dict) -> list[str]:
    anchors = {records.group_names(cell): records.group_anchor(cell) for cell in found}

    def address(names: dict[str, str]) -> str | None:
        return anchors.get(tuple(names[name] for name in records.CELL))

    parts = []
    for name in params.names("tables"):
        says = registry.load("tables", params.entry("tables", name).name).__doc__ or ""
        parts += [f"<h3>{markup.text(name)}</h3>", markup.paragraph(says.split("\n\n")[0].replace("`", ""), "small")]
        try:
            parts.append(tables.table(params.build("tables", name, frame), address))
        except UserError as error:  # a part of the grid may lack what a table needs
            parts.append(_note(error))
    return parts or [_note("params.yaml asks for no table.")]


def _curves(found: dict[grid.Cell, dict]) -> tuple[str, list[str]]:
    """The curves of the cells whose history is here, and a sentence about the others."""
    histories = {
        cell: [(row["epoch"], row["test_accuracy"]) for row in gathering.epochs(cell, record)]
        for cell, record in found.items()
        if cell.path("train", "history").exists()
    }
    absent = len(found) - len(histories)
    notes = [f"{absent} of {len(found)} cells have no history here (results/runs)."] if absent else []
    if not histories:
        return "", notes
    anchors = {cell: records.anchor(cell) for cell in histories}
    return curves.curves(histories, _chance(histories), anchors), notes


def _chance(cells: Iterable[grid.Cell]) -> dict[str, float]:
    """The accuracy of guessing, in percent, for every data set whose classes are known here."""
    paths = {cell.dataset: cell.path("prepare", "info") for cell in cells}
    here = {dataset: path for dataset, path in paths.items() if path.exists()}
    counts = {dataset: len(files.read_json(path, structures.DATA_INFO)["classes"]) for dataset, path in here.items()}
    return {dataset: 100 / count for dataset, count in counts.items() if count}


def _figures(params: Params, frame: pandas.DataFrame) -> list[str]:
    """The figures as they are in results/figures; with a warning where they may be of other records."""
    parts = []
    summary = grid.path("aggregate", "records")
    same = summary.exists() and summary.read_bytes() == render(frame)["csv"].encode()
    if not same:
        parts.append(_note(f"{summary} is not of these records, so figures may be of others: run {COMMAND}"))
    for name in params.names("figures"):
        path = grid.path("plot", "png", figure=name)
        parts.append(f"<h3>{markup.text(name)}</h3>")
        parts.append(markup.image(path.read_bytes(), name, "drawn") if path.exists() else _note(f"{path} is not here."))
    return parts
