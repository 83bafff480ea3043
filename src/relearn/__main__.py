"""The command line: arguments only."""

import argparse
import errno
import importlib
import io
import signal
import sys

from relearn import grid, params, registry
from relearn.crafting.exchange import commands as exchange
from relearn.engines import arguments, bridge, dvc, locks, verify
from relearn.engines.arguments import natural, positive
from relearn.errors import UserError, one_line
from relearn.rules import results
from relearn.rules.planning import commands as planning
from relearn.runtime import cpu, memory

GROUPS = {
    "data": "For any data, without a project",
    "project": "An experiment, in the root of a clone of the project",
    "results": "Results of an experiment",
    "jobs": "Single jobs: Snakemake and DVC run these, in their order",
    "engines": "What only the engines and their files need",
}
JOBS = {  # rule: what it does, an example of its argument
    "prepare": ("Make or download a dataset.", "digits"),
    "surrogate": ("Train the model that poisons are crafted on.", "digits/small"),
    "poison": ("Poison a training set: craft the perturbation and add it.", "digits/em"),
    "purify": ("Purify a poisoned training set, for methods that train on the result.", "cifar10/em/dvae"),
    "pretrain": (
        "Pretrain a network on the poisoned images, with or without labels; methods start from it.",
        "cifar10/em/resnet18/contrastive/0",
    ),
    "train": ("Train a network on a poisoned training set (a victim).", "digits/lsp/cnn/pst/0"),
    "evaluate": (
        "Measure a trained network on clean test images and write the record of the cell.",
        "digits/lsp/cnn/pst/0",
    ),
    "aggregate": ("Collect the records of all cells of the grid.", ""),
    "tabulate": ("Make a table.", "accuracy"),
    "plot": ("Draw a figure.", "trap_curves"),
    "sources": ("List the source files that all jobs of a rule share.", "train"),
    "inputs": ("List the files of yours that an entry of params.yaml reads.", "datasets/images"),
}
LISTS = ("sources", "inputs")  # rules whose output only the engines read

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


def main(given: list[str] | None = None) -> int:
    """Run one command and return its exit code: 2 for a mistake of the user's, 1 for a failure of the machine.

    Either is one line on standard error. `relearn verify` also returns 1 where bytes differ; an interruption gives 130.
    """
    try:
        options = _parser().parse_args(given)
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


def _parser() -> arguments.Parser:
    about = "Train on unlearnable examples; measure the learning trap; escape it."
    parser = arguments.Parser(prog="relearn", description=about)
    version = importlib.import_module(registry.PACKAGE.name).__version__
    parser.add_argument("--version", action="version", version=f"relearn {version}", help="print the version and exit")
    commands = arguments.Commands(parser, GROUPS)
    _add_data_check(commands)
    exchange.add(commands, "data")
    planning.add_list(commands, "data")
    planning.add_preset(commands, "project")
    planning.add_plan(commands, "project")
    _add_project(commands)
    results.add(commands, "results")
    _add_results(commands)
    for name, (sentence, example) in JOBS.items():
        rule = grid.RULES[name]
        command = commands.add(
            "engines" if name in LISTS else "jobs",
            name,
            sentence,
            f"relearn {name} {example}".strip(),
            f"It writes {', '.join(rule.outputs.values())}.",
        )
        if rule.argument:
            metavar = rule.argument.replace("{", "").replace("}", "").upper()
            where = "the name of a rule" if name == "sources" else "names in params.yaml"
            command.add_argument("argument", metavar=metavar, help=where)
        command.set_defaults(run=_run_job, rule=name, argument="")
    return parser


def _add_project(commands: arguments.Commands) -> None:
    """Commands by which an experiment is set up."""
    check = commands.add(
        "project",
        "check-params",
        "Check params.yaml and dvc.yaml; all errors are listed at once.",
        "relearn check-params",
    )
    check.set_defaults(run=_check)
    cells = commands.add(
        "project", "grid", "Print the cells (experiments) of the grid, or write dvc.yaml.", "relearn grid --write"
    )
    cells.add_argument("--write", action="store_true", help="write dvc.yaml, with one stage per job")
    cells.set_defaults(run=_grid)


def _add_results(commands: arguments.Commands) -> None:
    """Commands that compare results, and let one engine take over those of the other."""
    compare = commands.add(
        "results",
        "verify",
        "Compare the bytes of every artifact with dvc.lock or another clone.",
        "relearn verify ../other",
    )
    compare.add_argument("other", metavar="OTHER", nargs="?", help="the root of another clone of the project")
    compare.add_argument(
        "--delete",
        action="store_true",
        help="delete artifacts that differ from dvc.lock and corrupt objects of DVC's cache",
    )
    compare.set_defaults(run=_verify)
    adopt = commands.add(
        "engines",
        "adopt",
        "Let Snakemake take over the results that DVC has recorded; it will run the other jobs again.",
        "relearn adopt --dvc",
    )
    adopt.add_argument("--dvc", action="store_true", help="the other direction: let DVC record a run of Snakemake")
    adopt.set_defaults(run=_adopt)


def _add_data_check(commands: arguments.Commands) -> None:
    """`relearn check`, which needs no project."""
    data = commands.add(
        "data",
        "check",
        "Say whether a dataset is unlearnable: a folder of images, or a split file.",
        "relearn check data/images --clean data/clean --minutes 5",
        "It trains networks on the images, in the time that --minutes allows; it needs no params.yaml.",
    )
    data.add_argument("path", metavar="PATH", help="a folder with train/CLASS/ or CLASS/, or a .safetensors split")
    data.add_argument("--clean", metavar="FOLDER", help="clean test images of the same classes")
    data.add_argument("--original", metavar="PATH", help="the same images without perturbation, for pictures only")
    data.add_argument("--minutes", type=positive(float), default=10.0, help="how long it may take (default 10)")
    data.add_argument("--seed", type=natural, default=0, help="seed of all random draws (default 0)")
    data.add_argument("--out", metavar="FOLDER", help="for check.json and check.html (default ./relearn-check-NAME)")
    for name, words in (
        ("images", "how many images to use"),
        ("epochs", "epochs of plain training"),
        ("width", "width of the network"),
        ("threads", "threads of the CPU"),
    ):
        data.add_argument(f"--{name}", type=positive(int), metavar="N", help=f"{words} (default: chosen automatically)")
    data.set_defaults(run=_check_data)


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


def _grid(options: argparse.Namespace) -> None:
    checked = params.load()
    if options.write:
        dvc.write(checked)
    else:
        print("\n".join(map(str, grid.cells(checked))))


def _adopt(options: argparse.Namespace) -> None:
    print(bridge.record_in_dvc(params.load()) if options.dvc else bridge.adopt(params.load()))


def _verify(options: argparse.Namespace) -> int:
    lines, equal = verify.compare(params.load(), options.other, options.delete)
    print("\n".join(lines))
    return 0 if equal or options.delete else 1


def entry() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a sign gets its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())


if __name__ == "__main__":
    entry()
