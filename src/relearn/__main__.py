"""The command line: arguments only."""

import argparse
import errno
import importlib
import signal
import sys

from relearn import adopt, estimates, grid, isa, locks, params, presets, stages, verify
from relearn.errors import Fault

HELP = {
    "sources": "list the source files a kind of job runs",
    "prepare": "make or fetch a data set",
    "surrogate": "train the model that poisons are crafted on",
    "poison": "craft a poisoned training set",
    "train": "train a victim",
    "evaluate": "write the record of a cell",
    "aggregate": "gather all records of the grid",
    "tabulate": "make a table",
    "plot": "draw a figure",
}

REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; make room, then run the same again")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 2 for a user's mistake, told in one line."""
    try:
        options = _parser().parse_args(arguments)
        return options.run(options) or 0
    except Fault as fault:
        print(f"relearn: {fault}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:
        print(
            f"relearn: {error.strerror or error}: {error.filename or ''}{REMEDIES.get(error.errno, '')}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the impatient press twice
        print("relearn: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="relearn", description="Train on unlearnable examples; measure the trap; escape it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for step, words in HELP.items():
        command = commands.add_parser(
            step, help=words, description=f"{words}: {' '.join(grid.STEPS[step].outputs.values())}"
        )
        if grid.STEPS[step].argument:
            command.add_argument(
                "argument", metavar=grid.STEPS[step].argument.replace("{", "").replace("}", "").upper()
            )
        command.set_defaults(run=_step, step=step, argument="")
    check = commands.add_parser("check-params", help="check params.yaml and workflow/grid.yaml; every fault at once")
    check.set_defaults(run=_check)
    show = commands.add_parser("grid", help="print the cells of the grid, or write workflow/grid.yaml for DVC")
    show.add_argument("--write", action="store_true")
    show.set_defaults(run=_grid)
    preset = commands.add_parser("preset", help="put a preset in place as params.yaml, and its grid")
    preset.add_argument("name", metavar="NAME", nargs="?")
    preset.set_defaults(run=_preset)
    plan = commands.add_parser("plan", help="cells, passes per image, estimated time and disk, before anything runs")
    plan.add_argument(
        "--write",
        action="store_true",
        help=f"write {estimates.FILE} too, by which Snakemake asks a cluster for time and memory",
    )
    plan.set_defaults(run=_plan)
    bridge = commands.add_parser("adopt", help="let Snakemake take over what DVC calls clean, and make the rest again")
    bridge.add_argument(
        "--dvc", action="store_true", help="the other direction: let DVC record a complete run of Snakemake"
    )
    bridge.set_defaults(run=_adopt)
    check = commands.add_parser(
        "verify", help="compare the bytes of every artifact with dvc.lock, or with another clone"
    )
    check.add_argument("other", metavar="OTHER", nargs="?", help="the root of another clone of the project")
    check.set_defaults(run=_verify)
    return parser


def _step(options) -> None:
    coords = grid.coordinates(options.step, options.argument)
    checked = params.load()
    if "seed" in coords:
        grid.cell(options.argument)
    node = grid.node(checked, options.step, **coords)
    grid.check_inputs([node])
    isa.pin(checked.compute["isa"])
    with locks.alone(node):
        importlib.import_module(f"relearn.steps.{options.step}").run(checked, **coords)


def _check(options) -> None:
    checked = params.load()
    nodes = grid.nodes(checked)
    grid.check_inputs(nodes)
    stages.check_written(checked)
    print(f"params.yaml is good: {len(grid.cells(checked))} cells, {len(nodes)} jobs")


def _grid(options) -> None:
    checked = params.load()
    if options.write:
        stages.write(checked)
    else:
        print("\n".join(map(str, grid.cells(checked))))


def _preset(options) -> None:
    if options.name is None:
        print("\n".join(presets.names()))
    else:
        presets.install(options.name)


def _adopt(options) -> None:
    print(adopt.give(params.load()) if options.dvc else adopt.take(params.load()))


def _verify(options) -> int:
    lines, equal = verify.compare(params.load(), options.other)
    print("\n".join(lines))
    return 0 if equal else 1


def _plan(options) -> None:
    from relearn import plan

    print(plan.plan(params.load(), options.write))


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
