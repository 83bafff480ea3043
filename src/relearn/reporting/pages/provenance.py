"""Where and with what the records of the report were made, as far as that was recorded; not the present time."""

import datetime
import json
from collections import Counter
from importlib import metadata

from relearn import grid, params
from relearn.errors import UserError
from relearn.params import Params
from relearn.reporting import markup
from relearn.runtime.run_report import commit, read_report

RECORDED = ("device", "processor", "cpu_capability", "commit", "python", "torch", "numpy")  # texts of a run report
PACKAGES = ("relearn", "torch", "torchvision", "numpy", "pandas", "matplotlib", "pillow", "safetensors", "scikit-learn")


def provenance(checked: Params, cells: list[grid.Cell]) -> list[str]:
    """HTML that says how the runs of these cells and the page were made, and the recipe."""
    reports = [report for report in map(run_report, cells) if report]
    settings = checked.recipe | {f"compute: {key}": value for key, value in checked.compute.items()}
    sheets = {
        "The runs": markup.paragraph(_counted(len(reports), len(cells)), "small") + markup.pairs(_recorded(reports)),
        "The recipe": markup.pairs(_written(settings)),
        "This page": markup.pairs({"commit of the code": commit() or "not in a clone"} | _versions()),
    }
    side_by_side = "".join(f"<div><h3>{name}</h3>{inside}</div>" for name, inside in sheets.items())
    text = params.FILE.read_text(encoding="utf-8")
    return [
        f'<div class="sheets">{side_by_side}</div>',
        markup.folded(str(params.FILE), f"<pre>{markup.text(text)}</pre>"),
    ]


def run_report(cell: grid.Cell) -> dict | None:
    """What was recorded of the training of a cell; no engine tracks it, so None where that is not here, or damaged.

    None also for the report of another run than that of the cell's files.
    """
    try:
        return read_report(grid.sidecar("train", "run.json", **vars(cell)))
    except (UserError, OSError):
        return None


def date(report: dict) -> str | None:
    """The day on which a run finished, in UTC; None where it was not recorded."""
    try:
        finished = datetime.datetime.fromtimestamp(report["finished"], datetime.UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
    return finished.date().isoformat()


def _counted(reports: int, cells: int) -> str:
    if reports == cells:
        return f"From the run reports of all {cells} runs, train.run.json."
    rest = "Runs that were fetched have none, so where they were made is not known here."
    return f"From the run reports of {reports} of {cells} runs, train.run.json. {rest}"


def _recorded(reports: list[dict]) -> dict[str, str]:
    """Each text that the run reports have, and of how many runs where it is not of all; the first and last day."""
    rows = {}
    for key in RECORDED:
        counts = Counter(str(report[key]) for report in reports if report.get(key))
        if counts:
            several = len(counts) > 1
            rows[key] = ", ".join(f"{value} ({count})" if several else value for value, count in sorted(counts.items()))
    days = sorted(filter(None, map(date, reports)))
    if days:
        rows["finished (UTC)"] = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    return rows


def _written(settings: dict) -> dict[str, str]:
    """Settings as params.yaml would have them."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
