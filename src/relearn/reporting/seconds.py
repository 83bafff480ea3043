"""What methods cost in seconds, from the `*.run.json` of their runs, which differ from run to run."""

from collections.abc import Iterable
from pathlib import Path

import pandas

from relearn.errors import UserError
from relearn.reporting.summaries import BLOCK, by_erm, groups
from relearn.runtime.run_report import read_report

COLUMNS = [*BLOCK, "device", "method", "n", "seconds", "relative to erm"]


def of_run(reports: Iterable[Path]) -> dict | None:
    """Seconds and device of a run from the reports of its jobs, its pretraining's and purification's among them.

    None where one is missing (the outputs were fetched), damaged, of another run than the outputs beside it, of another
    device than the others, or of a job that was resumed, whose earlier seconds are not known.
    """
    seconds, devices = 0.0, set()
    for path in reports:
        try:
            found = read_report(path)
            if found.get("resumed"):
                return None
            seconds += float(found["seconds"])
            devices.add(
                f"{found['device']}, {found['processor']}" if found["device"] == "cpu" else str(found["device"])
            )
        except (UserError, KeyError, TypeError, ValueError):
            return None
    return {"seconds": seconds, "device": devices.pop()} if len(devices) == 1 else None


def of_methods(runs: pandas.DataFrame) -> pandas.DataFrame:
    """The median seconds of a method's runs, one row per dataset, architecture, device and method.

    `runs` has a row per run: the names of its cell, whether its method is `plain` training, `seconds` and `device`.
    `relative to erm` is over the median of plain training on the same device, a gap where that has none.
    """
    keys = [*BLOCK, "device"]
    reference = runs[by_erm(runs)].groupby(keys)["seconds"].median().rename("erm")
    table = groups(runs, [*keys, "method"]).agg(n=("seconds", "size"), seconds=("seconds", "median")).reset_index()
    table = table.astype(dict.fromkeys([*keys, "method"], str))
    table["relative to erm"] = table["seconds"] / table.join(reference, on=keys)["erm"]
    return table[COLUMNS]
