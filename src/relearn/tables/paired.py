"""Each method against one of them, seed by seed."""

import pandas

from relearn.errors import UserError
from relearn.registry import PositiveFraction, register
from relearn.reporting import summaries
from relearn.reporting.statistics import half_width
from relearn.reporting.summaries import BLOCK, CELL, groups

PAIR = [*BLOCK, "poison", "seed"]  # what two cells of a pair share: initial weights, batches and images


@register
def paired(
    records: pandas.DataFrame, *, baseline: str = "erm", confidence: PositiveFraction = 0.95
) -> pandas.DataFrame:
    """Accuracy after the last epoch minus that of `baseline` with the same seed, in percentage points.

    One row per dataset, arch, poison and method: the mean difference over the `pairs` of seeds that both have, and its
    confidence interval by Student's t over these. One pair gives no interval, and the table says so. The interval is of
    the seeds alone: every pair has the same poisoned images. Raises UserError when the grid has no method of this name,
    and for a confidence of 1, whose interval has no end.
    """
    summaries.present_methods(records, [baseline])
    if confidence == 1:
        raise UserError("paired: an interval of confidence 1 is infinite; give less, such as 0.95")
    theirs = records[records["method"] == baseline].set_index(PAIR)["accuracy"].rename("theirs")
    others = records[records["method"] != baseline].join(theirs, on=PAIR)
    others = others.assign(difference=others["accuracy"] - others["theirs"])
    cells = groups(others, CELL)["difference"]
    table = cells.agg([("mean", "mean"), ("pairs", "count"), ("half", lambda values: half_width(values, confidence))])
    found = table.reset_index()
    interval = [
        _interval(row.mean_, row.half, row.pairs) for row in found.rename(columns={"mean": "mean_"}).itertuples()
    ]
    shown = {
        f"minus {baseline}": [_signed(value) for value in found["mean"]],
        f"{100 * confidence:g} % interval": interval,
    }
    return found[[*CELL, "pairs"]].assign(**shown)


def _signed(value: float) -> str | None:
    return None if pandas.isna(value) else f"{value:+.1f}"


def _interval(mean: float, half: float, pairs: int) -> str | None:
    """The interval as text; what stands in its place for a single pair, None for none."""
    if pairs < 2:
        return "none of one pair" if pairs else None
    return f"{mean - half:+.1f} to {mean + half:+.1f}"
