"""The commands `report`, `diff` and `redraw`: arguments only, so that the command line answers without pandas."""

import argparse

from relearn.engines.arguments import Commands
from relearn.runtime import files

REPORT = "results/report.html"


def add(commands: Commands, group: str) -> None:
    """Add the three commands to a group of those of the command line."""
    report = commands.add(
        group,
        "report",
        "Write the results of the grid as one HTML page: tables, curves, images, records.",
        "relearn report",
    )
    report.add_argument("--out", metavar="FILE", default=REPORT, help=f"default: {REPORT}")
    report.set_defaults(run=_report)
    diff = commands.add(
        group,
        "diff",
        "Compare the accuracies of two folders of the project, or of two records.csv, cell by cell.",
        "relearn diff . ../other --out diff.html",
    )
    for name in ("a", "b"):
        diff.add_argument(name, metavar=name.upper(), help="a folder with results, or a records.csv")
    diff.add_argument("--out", metavar="FILE", help="write it as an HTML page, too")
    diff.set_defaults(run=_diff)
    redraw = commands.add(
        group,
        "redraw",
        "Draw figures from published records: those that FOLDER/figures.yaml lists.",
        "relearn redraw docs/results/pst_gpu",
        "It needs no params.yaml.",
    )
    redraw.add_argument("folder", metavar="FOLDER", help="with figures.yaml, records.csv and histories.csv")
    redraw.add_argument("figures", metavar="FIGURE", nargs="*", help="draw only these")
    redraw.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="default: png")
    redraw.set_defaults(run=_redraw)


def _report(options: argparse.Namespace) -> None:
    from relearn import params
    from relearn.reporting.pages import report  # it needs pandas

    print(report.write(params.load(), files.expanded(options.out)))


def _diff(options: argparse.Namespace) -> None:
    from relearn.reporting.pages import comparison

    found = comparison.compare(comparison.side(options.a), comparison.side(options.b))
    if options.out:
        files.write_text(files.expanded(options.out), comparison.page(found))
    print(comparison.lines(found))


def _redraw(options: argparse.Namespace) -> None:
    from relearn.rules import redraw  # it needs pandas and matplotlib

    print("\n".join(map(str, redraw.run(files.expanded(options.folder), options.figures, options.format))))
