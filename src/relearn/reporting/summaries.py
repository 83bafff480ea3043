"""What tables and figures share: the order of names, groups of cells, and mean ± sd as text."""

from collections.abc import Iterable, Iterator, Mapping

import pandas
from pandas.core.groupby import DataFrameGroupBy

from relearn.errors import UserError
from relearn.registry import suggest

CELL = ["dataset", "arch", "poison", "method"]  #: columns that name a cell, apart from its seed
BLOCK = ["dataset", "arch"]  #: columns that name a block of a table or a section of a figure


def names(frame: pandas.DataFrame, column: str) -> list:
    """The values of `column` in the order of their first appearance, which is the order of params.yaml."""
    return list(frame[column].unique())


def in_order(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The same frame, whose names sort by first appearance instead of by alphabet.

    Grouping such a frame keeps the order of params.yaml even where a block lacks a poison or a method.
    """
    plain = (key for key in CELL if frame[key].dtype != "category")  # what is in order already keeps its order
    return frame.assign(**{key: pandas.Categorical(frame[key], names(frame, key), ordered=True) for key in plain})


def groups(frame: pandas.DataFrame, keys: list[str]) -> DataFrameGroupBy:
    """Rows of `frame` grouped by `keys`, the groups in the order of params.yaml; only groups that have rows."""
    return in_order(frame).groupby(keys, observed=True, sort=True)


def blocks(frame: pandas.DataFrame) -> Iterator[tuple[str, pandas.DataFrame]]:
    """Title and rows of each (dataset, arch), all in the order of params.yaml."""
    for pair, rows in groups(in_order(frame).sort_values(CELL, kind="stable"), BLOCK):
        yield ", ".join(pair), rows.astype(dict.fromkeys(CELL, str))


def present_methods(frame: pandas.DataFrame, methods: list[str]) -> list[str]:
    """Those of `methods` that the frame has. Raises UserError if it has none of them."""
    known = names(frame, "method")
    found = [method for method in methods if method in known]
    if not found:
        raise UserError(f"no cell of the grid uses the methods {methods}; {suggest(' '.join(methods[:1]), known)}")
    return found


def mean_sd(values: pandas.Series) -> str | None:
    """Mean and sample standard deviation as text, '71.0 ± 1.4'; of a single value only the mean, of none None."""
    values = values.dropna()
    mean = f"{values.mean():.1f}" if len(values) else None
    return mean if len(values) < 2 else f"{mean} ± {values.std(ddof=1):.1f}"


def value_range(numbers: Iterable[float]) -> str:
    """One number, or the smallest and the largest, '2–3', where they differ."""
    numbers = list(numbers)
    low, high = int(min(numbers)), int(max(numbers))
    return str(low) if low == high else f"{low}–{high}"


def on_clean(frame: pandas.DataFrame) -> pandas.Series:
    """Which rows are of clean data: those whose poison uses `clean`, whatever it is called."""
    return frame["poison_use"] == "clean"


def clean_once(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The rows of clean data, one for each method and seed, and of histories for each of their epochs.

    Of several entries that use `clean` all have the same images, and so the same runs, which are no further seeds.
    """
    keys = [key for key in (*BLOCK, "method", "seed", "epoch") if key in frame]
    return frame[on_clean(frame)].drop_duplicates(keys)


def by_erm(frame: pandas.DataFrame) -> pandas.Series:
    """Which rows are of plain training: those whose method uses `erm`; of several such methods only the one so called.

    Of several none of which is called `erm` there is no telling which is plain: no row. A frame that has only a part of
    the grid's methods does not tell either: there the column `plain`, if it has one, says it.
    """
    if "plain" in frame:
        return frame["plain"]
    return frame["method"].isin(plain_methods(dict(zip(frame["method"], frame["method_use"], strict=True))))


def plain_methods(uses: Mapping[str, str]) -> list[str]:
    """The methods that are plain training, of those of a whole grid: `uses` says what each of them uses."""
    found = [method for method, use in uses.items() if use == "erm"]
    return found if len(found) < 2 else [method for method in found if method == "erm"]


def clean_reference(records: pandas.DataFrame) -> pandas.Series:
    """The mean accuracy of erm on clean data, in percent, by dataset and architecture, named `clean`."""
    plain = clean_once(records[by_erm(records)])
    return plain.groupby(BLOCK)["accuracy"].mean().rename("clean")


def by_method(records: pandas.DataFrame, value: str, header: str = "{}") -> pandas.DataFrame:
    """Mean ± sd of `value` over seeds: a row per dataset, arch and poison, a column per method.

    The column `n` is the number of seeds. `header` is the pattern of the methods' column names. A method that a poison
    was not run with leaves a gap. Raises UserError for a method whose column would be called as another.
    """
    refuse_same("method", {header.format(name): name for name in names(records, "method")}, [*BLOCK, "poison", "n"])
    cells = groups(records, CELL)[value]
    table = cells.apply(mean_sd).unstack("method")
    counts = cells.size().unstack("method")
    table.columns = [header.format(method) for method in table.columns]
    table["n"] = [value_range(row.dropna()) for _, row in counts.iterrows()]
    return table.reset_index()


def refuse_same(what: str, columns: Mapping[str, str], taken: Iterable[str]) -> None:
    """Raises UserError where a column that is called after a method or a poison would stand in the place of another.

    `columns` gives the name behind each such column, `what` it is, and `taken` are the columns that a table has anyway.
    """
    for column in taken:
        if column in columns:
            raise UserError(
                f"the {what} '{columns[column]}' is called as a column '{column}' that the table has anyway, and would "
                "take its place; give it another name in params.yaml"
            )


def only(
    frame: pandas.DataFrame, column: str, wanted: list[str] | None, always: pandas.Series | None = None
) -> pandas.DataFrame:
    """The rows whose `column` is one of `wanted` (null: all), and those of `always` whatever they are.

    Raises UserError for a name that no row has.
    """
    if wanted is None:
        return frame
    known = names(frame, column)
    for name in wanted:
        if name not in known:
            raise UserError(f"no cell of the grid has the {column} '{name}'; {suggest(name, known)}")
    chosen = frame[column].isin(wanted)
    return frame[chosen if always is None else chosen | always.reindex(frame.index)]
