"""The command line: arguments only."""

import argparse
import errno
import importlib
import io
import signal
import sys
from typing import NoReturn

from relearn import grid, params, registry
from relearn.crafting.exchange import commands as exchange
from relearn.engines import bridge, dvc, locks, presets, verify
from relearn.errors import UserError, one_line
from relearn.reporting.pages import commands as pages
from relearn.rules.planning import estimates
from relearn.runtime import cpu, files, memory

HELP = {
    "sources": "list the source files that every job of a rule runs",
    "inputs": "list the files of yours that an entry of params.yaml reads",
    "prepare": "make or download a dataset",
    "surrogate": "train the model that poisons are crafted on",
    "poison": "craft a poisoned training set",
    "purify": "make another training set of a poisoned one",
    "pretrain": "train on the poisoned images, without their labels or with, what methods start from",
    "train": "train a victim",
    "evaluate": "write the record of a cell",
    "aggregate": "gather all records of the grid",
    "tabulate": "make a table",
    "plot": "draw a figure",
}

FULL = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, then run the same command again")
MISTAKES = (  # what the system refuses for a reason that the user can mend
    dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give yourself the right to read and write it")
    | dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.EEXIST), "something of another kind has that name; move it away"
    )
    | dict.fromkeys((errno.ENAMETOOLONG,), "choose shorter names")
    | dict.fromkeys((errno.ELOOP,), "its links lead in a circle; correct them")
    | dict.fromkeys((errno.ENOENT,), "correct the name, or make it")
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 2 for a mistake of the user's, 1 for a failure of the machine.

    Either is one line on standard error. `relearn verify` also returns 1 where bytes differ; an interruption gives 130.
    """
    try:
        options = _parser().parse_args(arguments)
        registry.check_package()
        return options.run(options) or 0
    except UserError as error:
        return _failed(str(error), 2)
    except BrokenPipeError:
        return 0
    except OSError as error:
        remedy = (FULL | MISTAKES).get(error.errno or 0)
        what = ": ".join(map(str, filter(None, (error.strerror or error, error.filename))))
        return _failed("; ".join(filter(None, (what, remedy))), 2 if error.errno in MISTAKES else 1)
    except MemoryError:
        return _failed("out of memory; choose smaller settings, or a machine with more", 1)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # many press it twice
        return _failed("interrupted", 130)


def _failed(message: str, code: int) -> int:
    print(f"relearn: {one_line(message)}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are a user's mistake like any other: one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help says what it takes")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="relearn", description="Train on unlearnable examples; measure the learning trap; escape it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, words in HELP.items():
        rule = grid.RULES[name]
        command = commands.add_parser(name, help=words, description=f"{words}: {' '.join(rule.outputs.values())}")
        if rule.argument:
            metavar = rule.argument.replace("{", "").replace("}", "").upper()
            command.add_argument("argument", metavar=metavar)
        command.set_defaults(run=_run_job, rule=name, argument="")
    check = commands.add_parser("check-params", help="check params.yaml and dvc.yaml; lists every error at once")
    check.set_defaults(run=_check)
    cells = commands.add_parser("grid", help="print the cells of the grid, or write dvc.yaml")
    cells.add_argument("--write", action="store_true", help="write dvc.yaml, a stage per job")
    cells.set_defaults(run=_grid)
    preset = commands.add_parser("preset", help="list the presets, or write one to params.yaml, and its dvc.yaml")
    preset.add_argument("name", metavar="NAME", nargs="?")
    preset.set_defaults(run=_preset)
    plan = commands.add_parser("plan", help="cells, passes per image, estimated time and disk, before anything runs")
    plan.add_argument(
        "--write",
        action="store_true",
        help=f"write {estimates.FILE} too, by which Snakemake asks a cluster for time and memory",
    )
    plan.add_argument(
        "--speed",
        action="append",
        default=[],
        metavar="[ARCH=]NUMBER",
        help="images per second, forward and backward, of another device, of one architecture or of all others; "
        "can be given several times, and replaces measuring here",
    )
    plan.set_defaults(run=_plan)
    adopt = commands.add_parser("adopt", help="let Snakemake take over what DVC calls clean, and run the rest again")
    adopt.add_argument("--dvc", action="store_true", help="the other direction: let DVC record a run of Snakemake")
    adopt.set_defaults(run=_adopt)
    compare = commands.add_parser("verify", help="compare the bytes of every artifact with dvc.lock or another clone")
    compare.add_argument("other", metavar="OTHER", nargs="?", help="the root of another clone of the project")
    compare.add_argument(
        "--delete",
        action="store_true",
        help="delete artifacts that differ from dvc.lock and corrupt objects of DVC's cache",
    )
    compare.set_defaults(run=_verify)
    _add_data_check(commands)
    _add_redraw(commands)
    exchange.add(commands)
    pages.add(commands)
    return parser


def _add_data_check(commands) -> None:
    """`relearn check`, which needs no project."""
    data = commands.add_parser(
        "check", help="is this data unlearnable? a folder of images, or a split file; needs no params.yaml"
    )
    data.add_argument("path", metavar="PATH", help="a folder with train/CLASS/ or CLASS/, or a .safetensors split")
    data.add_argument("--clean", metavar="FOLDER", help="clean test images of the same classes")
    data.add_argument("--original", metavar="PATH", help="the same images without perturbation, for pictures only")
    data.add_argument("--minutes", type=_positive(float), default=10.0, help="how long it may take (default 10)")
    data.add_argument("--seed", type=int, default=0, help="of every random draw (default 0)")
    data.add_argument("--out", metavar="FOLDER", help="for check.json and check.html (default ./relearn-check-NAME)")
    for name, words in (
        ("images", "how many images to use"),
        ("epochs", "epochs of plain training"),
        ("width", "width of the network"),
        ("threads", "threads of the CPU"),
    ):
        data.add_argument(f"--{name}", type=_positive(int), metavar="N", help=f"{words} (default: by the time)")
    data.set_defaults(run=_check_data)


def _add_redraw(commands) -> None:
    """`relearn redraw`, which needs no params.yaml."""
    words = "draw the figures of published records anew"
    redraw = commands.add_parser("redraw", help=words, description=f"{words}: FOLDER/figures.yaml lists them")
    redraw.add_argument("folder", metavar="FOLDER", help="with figures.yaml, records.csv and histories.csv")
    redraw.add_argument("figures", metavar="FIGURE", nargs="*", help="only these")
    redraw.add_argument("--format", choices=("png", "pdf", "svg"), default="png")
    redraw.set_defaults(run=_redraw)


def _positive(kind: type):
    """A reader of numbers above 0 for the command line."""

    def number(text: str):
        if not 0 < (value := kind(text)) < float("inf"):
            raise ValueError(text)
        return value

    number.__name__ = "positive " + {int: "whole number", float: "number"}[kind]
    return number


def _run_job(options: argparse.Namespace) -> None:
    given = grid.parse(options.rule, options.argument)
    checked = params.load()
    job = grid.job(checked, options.rule, options.argument)
    grid.check_inputs(checked, [job])
    cpu.limit_cpu_instructions(checked.compute["isa"])
    memory.keep_freed()
    with locks.exclusive(job), memory.explained(job.command):
        before, code = grid.digests(checked, job), registry.source_digest(job.rule, job.sources)
        importlib.import_module(f"relearn.rules.{options.rule}").run(checked, **given)
        if grid.digests(params.Params(checked.raw), job) != before:  # of another object nothing is remembered
            raise UserError(f"files of yours changed while `{job.command}` read them; run it again")
        # the result is newer than the new code, so engines would take it for a result of that
        if registry.source_digest(job.rule, job.sources) != code:
            raise UserError(f"source files changed while `{job.command}` ran; run it again")


def _check(options: argparse.Namespace) -> None:
    checked = params.load()
    jobs = grid.jobs(checked)
    grid.check_inputs(checked, jobs)
    dvc.check_written(checked)
    print(f"params.yaml has no errors: {len(grid.cells(checked))} cells, {len(jobs)} jobs")


def _check_data(options: argparse.Namespace) -> None:
    from relearn.pst.check import found, run  # they need torch

    given = {name: value for name, value in vars(options).items() if name != "run"}
    with memory.explained("relearn check"):
        print(run.run(found.Options(**given)))


def _redraw(options: argparse.Namespace) -> None:
    from relearn.rules import redraw  # it needs pandas and matplotlib

    print("\n".join(map(str, redraw.run(files.expanded(options.folder), options.figures, options.format))))


def _grid(options: argparse.Namespace) -> None:
    checked = params.load()
    if options.write:
        dvc.write(checked)
    else:
        print("\n".join(map(str, grid.cells(checked))))


def _preset(options: argparse.Namespace) -> None:
    if options.name is None:
        print("\n".join(presets.names()))
    else:
        presets.install(options.name)


def _adopt(options: argparse.Namespace) -> None:
    print(bridge.record_in_dvc(params.load()) if options.dvc else bridge.adopt(params.load()))


def _verify(options: argparse.Namespace) -> int:
    lines, equal = verify.compare(params.load(), options.other, options.delete)
    print("\n".join(lines))
    return 0 if equal or options.delete else 1


def _plan(options: argparse.Namespace) -> None:
    checked = params.load()
    cpu.limit_cpu_instructions(checked.compute["isa"])
    memory.keep_freed()
    from relearn.rules.planning import plan  # it needs torch

    print(plan.plan(checked, options.write, options.speed))


def entry() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a sign gets its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())


if __name__ == "__main__":
    entry()
