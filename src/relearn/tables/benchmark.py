"""Many methods on many poisons, in one table."""

import pandas

from relearn.registry import register
from relearn.reporting import summaries
from relearn.reporting.summaries import BLOCK, blocks, clean_once, groups, mean_sd, names, on_clean, value_range

DECIMALS = 6  # of the accuracies in records.csv


@register
def benchmark(
    records: pandas.DataFrame,
    *,
    baseline: str = "erm",
    methods: list[str] | None = None,
    poisons: list[str] | None = None,
) -> pandas.DataFrame:
    """Clean test accuracy after the last epoch, in percent, methods by poisons: mean ± sample sd over seeds.

    Then, of each method: the mean over poisons (± sd over seeds, of their means), the worst poison, the mean rank over
    poisons among the methods that ran on all of them (1 is best; equal means share a rank), the accuracy on clean data
    and its difference to `baseline` there, seed by seed, and the work in passes relative to `baseline`. `n` is the
    number of seeds, a range where it differs. A method that was not run on every poison has no mean, worst and rank.
    `methods` and `poisons` choose some, null means all; clean data are no poison. Seconds are not in a table, since
    they differ from run to run: `results/summary/aggregate.seconds.md` has them. Raises UserError for names that no
    cell of the grid has, and for a poison whose column would be called as another.
    """
    summaries.present_methods(records, [baseline])
    chosen = summaries.only(summaries.only(records, "method", methods), "poison", poisons, always=on_clean(records))
    rows = [row for _, block in blocks(chosen) for row in _rows(block, records, baseline)]
    return pandas.DataFrame(rows, columns=list(dict.fromkeys([*BLOCK, "method", *_columns(chosen, baseline)])))


def _columns(chosen: pandas.DataFrame, baseline: str) -> list[str]:
    """The columns after the names, in order."""
    own = ["mean over poisons", "worst poison", "mean rank", "clean", f"clean minus {baseline}", "passes", "n"]
    poisons = names(chosen[~on_clean(chosen)], "poison")
    summaries.refuse_same("poison", {name: name for name in poisons}, [*BLOCK, "method", *own])
    return [*poisons, *own]


def _rows(block: pandas.DataFrame, records: pandas.DataFrame, baseline: str) -> list[dict]:
    """The rows of one dataset and architecture; `records` has the baseline even if the table leaves it out."""
    key = block[BLOCK].iloc[0]
    theirs = records[(records[BLOCK] == key).all(axis=1) & (records["method"] == baseline)]
    theirs = theirs[theirs["poison"].isin(names(block, "poison"))]
    poisoned, clean = block[~on_clean(block)], clean_once(block)
    means = groups(poisoned, ["poison", "method"])["accuracy"].mean().unstack("method")
    # rounded as records are: a mean of the same accuracies in another order may differ in its last bits
    ranks = means.dropna(axis="columns").round(DECIMALS).rank(axis="columns", ascending=False).mean()
    reference = clean_once(theirs).set_index("seed")["accuracy"].rename("theirs")
    work = theirs["passes"].mean()
    rows = []
    for method in names(block, "method"):
        own, own_clean = poisoned[poisoned["method"] == method], clean[clean["method"] == method]
        difference = own_clean["accuracy"] - own_clean.join(reference, on="seed")["theirs"]
        row = dict(key) | {"method": method}
        row |= {poison: mean_sd(cells["accuracy"]) for poison, cells in own.groupby("poison", sort=False)}
        row |= _over_poisons(own, means[method].astype(float)) if method in ranks else {}
        row |= {
            "mean rank": ranks.get(method),
            "clean": mean_sd(own_clean["accuracy"]),
            f"clean minus {baseline}": mean_sd(difference),
            "passes": block.loc[block["method"] == method, "passes"].mean() / work,
            "n": value_range(groups(block[block["method"] == method], ["poison"]).size()),
        }
        rows.append(row)
    return rows


def _over_poisons(own: pandas.DataFrame, means: pandas.Series) -> dict:
    """The mean over poisons of a method that ran on all of them, and the worst, from its records and its means."""
    of_seeds = own.pivot_table(index="seed", columns="poison", values="accuracy", observed=True)
    uneven = of_seeds.isna().any(axis=None)  # seeds that lack a poison: their means would not be of the same poisons
    mean = f"{means.mean():.1f}" if uneven else mean_sd(of_seeds.mean(axis=1))
    return {"mean over poisons": mean, "worst poison": f"{means.min():.1f} ({means.idxmin()})"}
