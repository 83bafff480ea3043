"""`relearn diff A B`: two sets of results, cell by cell, and the settings of params.yaml that differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas

from relearn import grid, params
from relearn.errors import UserError, one_line
from relearn.reporting import markup
from relearn.reporting.gathering import some
from relearn.reporting.pages import tables
from relearn.reporting.rendering import render
from relearn.reporting.summaries import CELL, groups
from relearn.runtime import files, structures
from relearn.runtime.yaml_loader import read_yaml

SUMMARY = grid.path("aggregate", "records")
SINGLE = Path(grid.RULES["evaluate"].outputs["record"].partition("/{")[0])  # the folder of single records
ORDER = ["dataset", "poison", "arch", "method"]  # as cells are spelled
KEYS = [*ORDER, "seed"]
ABSENT = "not set"


@dataclass(frozen=True)
class Side:
    """One set of results: what the user called it, its records, a row for each cell, and its settings if it has any.

    `settings` are those of params.yaml by dotted key, as they stand there; None for a single file.
    """

    name: str
    records: pandas.DataFrame
    settings: dict[str, str] | None


@dataclass(frozen=True)
class Comparison:
    """What two sets of results have in common and what not.

    `differences` has a row for each cell without its seed: the mean accuracies in percent over the seeds that both
    have, the mean and sample sd of B - A over these, and their number `n`. `settings` has a row for each that differs.
    """

    a: Side
    b: Side
    differences: pandas.DataFrame
    only_a: list[str]
    only_b: list[str]
    settings: pandas.DataFrame


def side(given: str) -> Side:
    """Read a folder of the project, or a records.csv.

    Of a folder that is results/summary/records.csv, or without it every record.json in results/metrics. Raises
    UserError for a path that has no records, for a damaged file, and for a cell that is there twice.
    """
    path = files.expanded(given)
    if path.is_dir():
        rows = _of_folder(path)
        settings = _settings(path / params.FILE)
    else:
        rows, settings = files.read_rows(path, structures.RECORDS), None
    if not rows:
        raise UserError(f"{given} has no records: neither {SUMMARY} nor a record.json in {SINGLE}; name another")
    records = pandas.DataFrame(rows)
    twice = records[records.duplicated(KEYS)]
    if len(twice):
        raise UserError(f"{given} has two records of {_names(twice)[0]}; a cell has one")
    return Side(given, records, settings)


def compare(a: Side, b: Side) -> Comparison:
    """Compare the accuracies of the cells that both have. Raises UserError when there is none."""
    both = a.records.merge(b.records, on=KEYS, suffixes=("_a", "_b"), validate="one_to_one")
    if both.empty:
        raise UserError(
            f"{a.name} and {b.name} have no cell in common: {len(a.records)} and {len(b.records)} cells, such as "
            f"{_names(a.records)[0]} and {_names(b.records)[0]}"
        )
    both["difference"] = both["accuracy_b"] - both["accuracy_a"]
    found = groups(both, CELL).agg(
        A=("accuracy_a", "mean"),
        B=("accuracy_b", "mean"),
        difference=("difference", "mean"),
        sd=("difference", "std"),
        n=("difference", "size"),
    )
    common = set(_names(both))
    only_a, only_b = ([name for name in _names(one.records) if name not in common] for one in (a, b))
    differences = found.reset_index().astype(dict.fromkeys(CELL, str)).rename(columns={"difference": "B - A"})
    return Comparison(a, b, differences, only_a, only_b, _different(a.settings, b.settings))


def lines(found: Comparison) -> str:
    """The comparison for a terminal: a table of the differences, what only one has, and settings that differ."""
    said = [*render(found.differences)["md"].splitlines(), "", *summary(found)]
    for name, cells in (("A", found.only_a), ("B", found.only_b)):
        said += [f"only in {name}: {len(cells)} cells: {some(cells)}"] if cells else []
    said.append(_of_settings(found))
    if len(found.settings):
        said += render(found.settings)["md"].splitlines()
    return "\n".join(map(one_line, said))


def page(found: Comparison) -> str:
    """The comparison as an HTML page."""
    parts = [*map(markup.paragraph, summary(found)), tables.table(found.differences, lambda names: None)]
    for name, cells in (("A", found.only_a), ("B", found.only_b)):
        parts += [f"<h2>Only in {name}</h2>", markup.bullets(cells) or markup.paragraph("No cell.")]
    parts += ["<h2>Settings</h2>", markup.paragraph(_of_settings(found))]
    if len(found.settings):
        parts.append(tables.table(found.settings, lambda names: None))
    return markup.document("relearn diff", parts, script=True)


def summary(found: Comparison) -> list[str]:
    """Sentences: what was compared, and how far apart the two are at most."""
    table = found.differences
    place = table["B - A"].abs().idxmax()
    largest, cell = table["B - A"][place], "/".join(table.loc[place, ORDER])
    cells = f"{int(table['n'].sum())} cells in both ({len(table)} without seeds)"
    return [
        f"A is {found.a.name}, B is {found.b.name}; clean test accuracy after the last epoch, in percent",
        f"{cells}; the largest mean difference is {largest:+.2f}, of {cell}",
    ]


def _of_folder(folder: Path) -> list[dict]:
    if (folder / SUMMARY).exists():
        return files.read_rows(folder / SUMMARY, structures.RECORDS)
    found = []
    for path in sorted((folder / SINGLE).rglob("record.json")):
        record = files.read_json(path, structures.RECORD)
        found.append(record["cell"] | record["result"])
    return found


def _names(records: pandas.DataFrame) -> list[str]:
    """The cells of records, as they are spelled."""
    return ["/".join(map(str, row)) for row in records[KEYS].itertuples(index=False)]


def _settings(path: Path) -> dict[str, str] | None:
    """The settings of a params.yaml by dotted key, as they stand there; None without the file."""
    if not path.exists():
        return None
    try:
        return dict(_dotted("", read_yaml(path)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _dotted(place: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [
            pair for key, inner in value.items() for pair in _dotted(f"{place}.{key}" if place else str(key), inner)
        ]
    return [(place, str(value))]


def _different(a: Mapping[str, str] | None, b: Mapping[str, str] | None) -> pandas.DataFrame:
    """The settings that are not the same, a row each; none where either side has no settings."""
    rows = []
    if a is not None and b is not None:
        around = {key[:place] for key in (*a, *b) for place, sign in enumerate(key) if sign == "."}
        for key in dict.fromkeys([*a, *b]):
            values = a.get(key, ABSENT), b.get(key, ABSENT)
            # an entry without settings here that has some there: those are the difference
            rows += [(key, *values)] if values[0] != values[1] and key not in around else []
    return pandas.DataFrame(rows, columns=["setting", "A", "B"])


def _of_settings(found: Comparison) -> str:
    missing = [one.name for one in (found.a, found.b) if one.settings is None]
    if missing:
        verb = "has" if len(missing) == 1 else "have"
        return f"settings were not compared: {' and '.join(missing)} {verb} no {params.FILE}"
    count = len(found.settings)
    return f"{params.FILE}: {count or 'no'} setting{'' if count == 1 else 's'} differ{'s' if count == 1 else ''}"
