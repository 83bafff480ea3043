"""Tables of the report: sortable, and with a link from every number of a cell to its record."""

import math
import re
from collections.abc import Callable

import pandas

from relearn.reporting import markup
from relearn.reporting.rendering import cell_text
from relearn.reporting.summaries import CELL

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?=$|[ %–×])")
Address = Callable[[dict[str, str]], str | None]  # the anchor of the cell of these names, if it has a record


def sort_key(value: object) -> float | None:
    """The number that a value of a table begins with, '81.0 ± 0.2' or '2–3'; None for a gap, or another text."""
    if isinstance(value, str):
        found = NUMBER.match(value)
        return float(found[0]) if found else None
    if isinstance(value, bool) or pandas.isna(value):
        return None
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None


def table(frame: pandas.DataFrame, address: Address) -> str:
    """The table as HTML, with the same text as in Markdown. A column sorts by number if all that stands in it are."""
    keys = [[sort_key(value) for value in frame.iloc[:, place]] for place in range(frame.shape[1])]
    texts = [[cell_text(value) for value in frame.iloc[:, place]] for place in range(frame.shape[1])]
    numeric = [
        any(key is not None for key in column)
        and all(key is not None or pandas.isna(value) for key, value in zip(column, frame.iloc[:, place], strict=True))
        for place, column in enumerate(keys)
    ]
    head = "".join(_head(name, number) for name, number in zip(frame.columns, numeric, strict=True))
    rows = []
    for line in range(len(frame)):
        known = {name: texts[list(frame.columns).index(name)][line] for name in CELL if name in frame.columns}
        cells = (
            _cell(texts[place][line], keys[place][line] if numeric[place] else None, numeric[place], link)
            for place, name in enumerate(frame.columns)
            for link in [None if name in CELL or keys[place][line] is None else _link(str(name), known, address)]
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="wide"><table class="sortable">{body}</table></div>'


def _head(name: object, numeric: bool) -> str:
    kind = ' class="number"' if numeric else ""
    return f'<th scope="col"{kind} aria-sort="none"><button type="button">{markup.text(name)}</button></th>'


def _cell(words: str, key: float | None, numeric: bool, link: str | None) -> str:
    inside = markup.text(words)
    if link:
        inside = f'<a href="#{markup.text(link)}">{inside}</a>'
    sort = "" if key is None else f' data-sort="{key!r}"'
    kind = ' class="number"' if numeric else ""
    return f"<td{kind}{sort}>{inside}</td>"


def _link(column: str, known: dict[str, str], address: Address) -> str | None:
    """The anchor of the cell that a value is of: its row names it, all but what its column is called after."""
    missing = [name for name in CELL if name not in known]
    if not missing:
        return address(known)
    called = re.fullmatch(r"(\w+)(?: \(.*\))?", column)
    return address(known | {missing[0]: called[1]}) if called and len(missing) == 1 else None
