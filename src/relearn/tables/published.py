"""Figures that others have published, beside ours of the same cell."""

import csv
from pathlib import Path

import pandas

from relearn.errors import UserError
from relearn.registry import InputPath, register, suggest
from relearn.reporting.summaries import BLOCK, CELL, clean_reference, groups, mean_sd
from relearn.runtime import structures
from relearn.runtime.files import expanded

KEY = ["dataset", "poison", "method"]
COLUMNS: structures.Columns = {
    **dict.fromkeys((*KEY, "network"), structures.TEXT),
    **dict.fromkeys(("accuracy", "n", "clean"), structures.SHARE),
    **dict.fromkeys(("paper", "place", "note"), structures.TEXT),
}


@register
def published(
    records: pandas.DataFrame,
    *,
    file: InputPath = "workflow/published/cifar10.csv",
    same: list[str] | None = None,
) -> pandas.DataFrame:
    """Ours and the published accuracy on clean test images, in percent, a row for each published figure of a cell.

    Ours is the mean ± sample sd of the last epoch over `n` seeds. `vs clean` is in percent of the accuracy of plain
    training on clean data, of each its own, a gap where that is not known: networks and recipes differ, so compare
    these. `file` is a CSV with the columns of `COLUMNS`, whose dataset, poison and method are the names of params.yaml;
    `same` are further names, `OURS=PUBLISHED`, of data sets, poisons or methods. Raises UserError for a file of another
    kind, for a name in `same` that it does not have or that is given twice, and when it has no cell of the grid.
    """
    theirs = _read(Path(expanded(file)))
    names = _names(same or [], {name for column in KEY for name in theirs[column]}, file)
    cells = groups(records, CELL)["accuracy"].agg([("accuracy", mean_sd), ("mean", "mean"), ("n", "size")])
    ours = cells.reset_index().astype(dict.fromkeys(CELL, str))
    ours["vs clean"] = 100 * ours["mean"] / ours.join(clean_reference(records), on=BLOCK)["clean"]
    for column in KEY:
        ours[f"their {column}"] = ours[column].replace(names)
    theirs_by = [f"their {column}" for column in KEY]
    rows = ours.merge(theirs, left_on=theirs_by, right_on=KEY, suffixes=("", " of others"))
    if rows.empty:
        known = sorted(set(theirs["method"]))
        raise UserError(
            f"published: {file} has no cell of the grid; it has the methods {', '.join(known)} on "
            f"{', '.join(sorted(set(theirs['dataset'])))}; say which of yours they are with same: [OURS=PUBLISHED]"
        )
    rows["published vs clean"] = 100 * rows["accuracy of others"] / rows["clean"]
    rows["source"] = [
        ", ".join(filter(None, parts)) for parts in rows[["paper", "place", "note"]].itertuples(index=False)
    ]
    rows["published n"] = [None if pandas.isna(n) else str(int(n)) for n in rows["n of others"]]
    return rows.rename(columns={"accuracy of others": "published"})[
        [*CELL, "accuracy", "n", "vs clean", "published", "published n", "published vs clean", "network", "source"]
    ]


def _names(same: list[str], known: set[str], file: str) -> dict[str, str]:
    """The published name by ours. Raises UserError for one of ours with two, and one that the file does not have."""
    found: dict[str, str] = {}
    for ours, name in map(_pair, same):
        if name not in known:
            raise UserError(f"published: same says {ours}={name}, but {file} has no '{name}'; {suggest(name, known)}")
        if found.setdefault(ours, name) != name:
            raise UserError(f"published: same gives '{ours}' two names, {found[ours]} and {name}; leave one out")
    return found


def _pair(entry: str) -> tuple[str, str]:
    """The two names of `OURS=PUBLISHED`."""
    ours, equals, theirs = entry.partition("=")
    if not (ours and equals and theirs):
        raise UserError(f"published: same takes names as OURS=PUBLISHED, such as erm_gray=gray, found '{entry}'")
    return ours, theirs


def _read(path: Path) -> pandas.DataFrame:
    """The rows of the file. Raises UserError, with the line and the value, for one that is not of this kind."""
    try:
        with open(path, encoding="utf-8", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            lines, header = list(reader), reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"published: {path} is not CSV in UTF-8 ({error}); correct it") from None
    missing = [name for name in COLUMNS if name not in header]
    if missing or not lines:
        raise UserError(f"published: {path} has no {', '.join(missing) or 'rows'}; it needs {', '.join(COLUMNS)}")
    return pandas.DataFrame([_row(path, number, line) for number, line in enumerate(lines, 2)])


def _row(path: Path, number: int, line: dict) -> dict:
    row = {}
    for name, kind in COLUMNS.items():
        try:
            row[name] = None if line[name] is None else kind.parse(line[name])
            accepted = line[name] is not None and kind.accepts(row[name])  # of a line that is too short it is None
        except ValueError:
            accepted = False
        if not accepted:
            raise UserError(
                f"published: {path}, line {number}: {name} must be {kind.words}, found {line[name]!r}; correct it"
            )
    return row
