"""The commands `report` and `diff`: arguments only, so that the command line answers without pandas."""

import argparse

from relearn.runtime import files

REPORT = "results/report.html"


def add(commands: argparse._SubParsersAction) -> None:
    """Add the two commands to those of the command line."""
    words = "write the results of the grid as one HTML page: tables, curves, images, records"
    report = commands.add_parser("report", help=words, description=words)
    report.add_argument("--out", metavar="FILE", default=REPORT, help=f"default: {REPORT}")
    report.set_defaults(run=_report)
    words = "compare the accuracies of two folders of the project, or of two records.csv, cell by cell"
    diff = commands.add_parser("diff", help=words, description=words)
    for name in ("a", "b"):
        diff.add_argument(name, metavar=name.upper(), help="a folder with results, or a records.csv")
    diff.add_argument("--out", metavar="FILE", help="write it as an HTML page, too")
    diff.set_defaults(run=_diff)


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
