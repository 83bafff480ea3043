"""The headline table's control: what early stopping could reach at best."""

import pandas

from relearn.registry import register
from relearn.reporting.summaries import by_method


@register
def oracle(records: pandas.DataFrame) -> pandas.DataFrame:
    """Clean test accuracy of the best epoch, in percent, chosen on the test data themselves: an oracle, not a method.

    Columns as in `accuracy`; a method is better than early stopping where its last epoch beats the oracle of erm.
    """
    return by_method(records, "oracle_accuracy", header="{} (oracle)")
