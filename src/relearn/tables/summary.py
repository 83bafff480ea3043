"""The table of all numbers, for other programs to read."""

import pandas

from relearn.probing.verdict import ANSWERS
from relearn.registry import register
from relearn.reporting.summaries import BLOCK, CELL, clean_reference, groups


@register
def summary(records: pandas.DataFrame) -> pandas.DataFrame:
    """One row per cell over its seeds, all numbers.

    Accuracies in percent, with sample sd; `kept` is the mean share of accuracy kept with perturbations hidden,
    `trapped`, `not_trapped` and `cannot_tell` count the verdicts; `vs_clean` is the mean as percent of the
    mean accuracy of erm on clean data of the same dataset and architecture, a gap where the grid has no such cell.
    """
    answers = {answer.replace(" ", "_"): records["verdict"] == answer for answer in ANSWERS}
    table = groups(records.assign(**answers), CELL).agg(
        n=("seed", "size"),
        mean=("accuracy", "mean"),
        sd=("accuracy", "std"),
        oracle_mean=("oracle_accuracy", "mean"),
        oracle_sd=("oracle_accuracy", "std"),
        oracle_epoch=("oracle_epoch", "mean"),
        passes=("passes", "mean"),
        acm=("acm", "mean"),
        kept=("kept", "mean"),
        **{answer: (answer, "sum") for answer in answers},
    )
    table = table.reset_index().astype(dict.fromkeys(CELL, str))
    table["vs_clean"] = 100 * table["mean"] / table.join(clean_reference(records), on=BLOCK)["clean"]
    return table
