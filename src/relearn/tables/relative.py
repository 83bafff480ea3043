"""Accuracy as a share of what clean data would give."""

import pandas

from relearn.errors import UserError
from relearn.registry import register
from relearn.reporting.summaries import BLOCK, blocks, by_method, clean_reference, on_clean


@register
def relative(records: pandas.DataFrame) -> pandas.DataFrame:
    """Accuracy after the last epoch as percent of the mean accuracy of erm on clean data.

    Both are of the same dataset and architecture. Poisons by methods, mean ± sample sd over seeds. The last row of a
    block is the mean over its poisons, `clean` not among them; a gap for a method that was not run on all of them.
    Blocks without erm on clean data are left out; raises UserError when that leaves none.
    """
    shares = 100 * records["accuracy"] / records.join(clean_reference(records), on=BLOCK)["clean"]
    known = records.assign(share=shares).dropna(subset="share")
    if known.empty:
        raise UserError(
            "relative: the grid has no cell of erm on the poison 'clean'; "
            "add one, or take 'relative' out of 'tables' in params.yaml"
        )
    table = by_method(known, "share")
    parts = []
    for _, block in blocks(known):
        key, poisoned = dict(block[BLOCK].iloc[0]), block[~on_clean(block)]
        parts.append(table[(table[BLOCK] == pandas.Series(key)).all(axis=1)])
        if len(poisoned):
            parts.append(pandas.DataFrame([key | _overall(poisoned)]))
    return pandas.concat(parts, ignore_index=True)[table.columns]


def _overall(poisoned: pandas.DataFrame) -> dict:
    """The last row of a block: for each method the mean over poisons of its means over seeds."""
    means = poisoned.groupby(["poison", "method"])["share"].mean().unstack("method")
    overall = means.mean(skipna=False).dropna()
    return {"poison": "mean over poisons"} | {method: f"{value:.1f}" for method, value in overall.items()}
