"""The headline table."""

import pandas

from relearn.registry import register
from relearn.reporting.summaries import by_method


@register
def accuracy(records: pandas.DataFrame) -> pandas.DataFrame:
    """Clean test accuracy after the last epoch, in percent: mean ± sample sd over seeds, poisons by methods.

    Nothing was chosen on test data. `n` is the number of seeds, a range where it differs between methods.
    """
    return by_method(records, "accuracy")
