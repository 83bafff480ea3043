"""What a method costs where there is no poison."""

import pandas

from relearn.errors import UserError
from relearn.registry import register
from relearn.reporting.summaries import BLOCK, by_erm, clean_once, groups, mean_sd


@register
def clean_cost(records: pandas.DataFrame) -> pandas.DataFrame:
    """Clean test accuracy on the poison `clean`, in percent, and its difference to that of erm, seed by seed.

    Both are mean ± sample sd; `n` seeds have an accuracy, `pairs` of them have erm too. Seeds share initial weights and
    batches, so the paired difference varies less than the accuracies. `passes` is the mean work, 1 for plain training
    by the recipe. Raises UserError when the grid has no cell on clean data.
    """
    clean = clean_once(records.assign(plain=by_erm(records)))
    if clean.empty:
        raise UserError(
            "clean_cost: the grid has no cell with the poison 'clean'; "
            "add one, or take 'clean_cost' out of 'tables' in params.yaml"
        )
    erm = clean[clean["plain"]].set_index([*BLOCK, "seed"])["accuracy"]
    clean = clean.assign(difference=clean["accuracy"] - clean.join(erm.rename("erm"), on=[*BLOCK, "seed"])["erm"])
    table = groups(clean, [*BLOCK, "method"]).agg(
        accuracy=("accuracy", mean_sd),
        n=("accuracy", "size"),
        minus_erm=("difference", mean_sd),
        pairs=("difference", "count"),
        passes=("passes", "mean"),
    )
    return table.reset_index().rename(columns={"minus_erm": "minus erm"})
