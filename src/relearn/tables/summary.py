"""The table of all numbers, for other programs to read."""

import pandas

from relearn.registry import register
from relearn.reporting.summaries import BLOCK, CELL, clean_reference, groups


@register
def summary(records: pandas.DataFrame) -> pandas.DataFrame:
    """One row per cell over its seeds, all numbers.

    Accuracies in percent, with sample sd; `trapped` is the share of seeds; `vs_clean` is the mean as percent of the
    mean accuracy of erm on clean data of the same dataset and architecture, a gap where the grid has no such cell.
    """
    table = groups(records.astype({"trapped": float}), CELL).agg(
        n=("seed", "size"),
        mean=("accuracy", "mean"),
        sd=("accuracy", "std"),
        oracle_mean=("oracle_accuracy", "mean"),
        oracle_sd=("oracle_accuracy", "std"),
        oracle_epoch=("oracle_epoch", "mean"),
        passes=("passes", "mean"),
        acm=("acm", "mean"),
        ratio=("ratio", "mean"),
        trapped=("trapped", "mean"),
    )
    table = table.reset_index().astype(dict.fromkeys(CELL, str))
    table["vs_clean"] = 100 * table["mean"] / table.join(clean_reference(records), on=BLOCK)["clean"]
    return table
