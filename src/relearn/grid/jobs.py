"""Every job of the DAG: what it reads, depends on and writes. The only code that expands the grid of params.yaml.

Both engines run the jobs made here: Snakemake asks for them by wildcard, DVC reads them from dvc.yaml
(relearn.engines.dvc). Needs no torch.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from relearn import registry
from relearn.errors import UserError
from relearn.grid import inputs as user_inputs
from relearn.grid.mixed import mixed, with_mixed
from relearn.grid.paths import PRETRAINING, RULES, Cell, coordinates, parse, path
from relearn.grid.pretrained import pretrained
from relearn.grid.trained_on import trained_on
from relearn.params import AXES, Params
from relearn.runtime.hashing import check_sum

LISTS = ("sources", "inputs")  # rules that list files which are not in results/, for the engines to watch


@dataclass(frozen=True)
class Job:
    """One job: what it runs, reads and writes. `keys` are the dotted keys of params.yaml that it depends on.

    Among `inputs` is the list of the source files that every job of the rule runs; `sources` are its own beside them.
    `entries` are the section and name of what the job uses and reads files of the user's: their lists are inputs, too.
    """

    rule: str
    argument: str
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    keys: tuple[str, ...]
    outputs: tuple[str, ...]
    entries: tuple[tuple[str, str], ...] = ()

    @property
    def command(self) -> str:
        """The command line, the same for both engines."""
        return " ".join(filter(None, ("relearn", self.rule, self.argument)))


class Needs(NamedTuple):
    """What a job needs: files of other jobs, registered entries of params.yaml, dotted keys, sources beside theirs."""

    inputs: list[Path]
    entries: list[tuple[str, str]]
    keys: list[str]
    sources: tuple[Path, ...] = ()


def cells(params: Params) -> list[Cell]:
    """The grid expanded, in the order of the file; a cell that two blocks have is listed once."""
    found: dict[Cell, None] = {}
    for block in params.raw["grid"].values():
        axes = [params.names(axis) if block[axis] == "all" else block[axis] for axis in AXES]
        for names in itertools.product(*axes, block["seeds"]):
            found[Cell(*names)] = None
    return list(found)


def job(params: Params, rule: str, argument: str) -> Job:
    """The job of `rule` with this argument. Raises UserError for a form or a name that params.yaml does not have."""
    given = parse(rule, argument)
    names = coordinates(given)
    for coordinate, name in names.items():
        if coordinate in registry.SECTIONS:
            params.settings(registry.SECTIONS[coordinate], name)  # raises for an unknown name
    inputs, used, keys, own = _NEEDS[rule](params, **given)
    sources = [*own, *(params.entry(section, name).path for section, name in used if rule not in LISTS)]
    files = set(registry.sources(*registry.rule_sources(rule), *sources))
    entries = [(section, name) for section, name in used if params.paths(section, name)]
    if rule not in LISTS:  # one file for the engines to watch instead of twenty, or of a folder
        lists = [path("inputs", "list", section=section, name=name) for section, name in entries]
        inputs = [*inputs, *lists, path("sources", "list", rule=rule)]
        files -= set(registry.rule_sources(rule))
    return Job(
        rule,
        argument,
        tuple(map(str, inputs)),
        tuple(map(registry.relative, sorted(files))),
        tuple(key for key in keys if _has_key(params, key)),
        tuple(pattern.format(**names) for pattern in RULES[rule].outputs.values()),
        tuple(entries),
    )


def jobs(params: Params) -> list[Job]:
    """Every job that the grid, tables and figures need, in an order in which they could run."""
    arguments: dict[str, list[str]] = {rule: [] for rule in RULES}
    arguments["sources"] = [rule for rule in RULES if rule not in LISTS]
    for cell in cells(params):
        poisons = with_mixed(params, cell.poison)
        users = [*(("poisons", poison) for poison in poisons), ("methods", cell.method)]
        surrogates = (params.named(section, name, "SurrogateName") for section, name in users)
        arguments["prepare"].append(cell.dataset)
        arguments["surrogate"] += [f"{cell.dataset}/{surrogate}" for surrogate in surrogates if surrogate]
        arguments["poison"] += [f"{cell.dataset}/{poison}" for poison in poisons]
        rule, made = trained_on(params, cell)
        if rule == "purify":
            arguments[rule].append(RULES[rule].argument.format(**made))
        if found := pretrained(params, cell):
            arguments["pretrain"].append(PRETRAINING.format(**found))
        arguments["train"].append(str(cell))
        arguments["evaluate"].append(str(cell))
    arguments["aggregate"] = [""]
    arguments["tabulate"] = params.names("tables")
    arguments["plot"] = params.names("figures")
    wanted = [job(params, rule, argument) for rule in RULES for argument in dict.fromkeys(arguments[rule])]
    entries = dict.fromkeys(entry for one in wanted for entry in one.entries)
    return [job(params, "inputs", f"{section}/{name}") for section, name in entries] + wanted


def plotted_cells(params: Params, figure: str) -> list[Cell]:
    """The cells whose runs a figure reads: those that its setting of type `list[CellName]` names.

    Raises UserError when that names one that the grid does not have.
    """
    wanted = params.named("figures", figure, "list[CellName]")
    if wanted is None:
        return []
    known = {str(cell): cell for cell in cells(params)}
    for name in wanted:
        if name not in known:
            raise UserError(f"figures.{figure}: '{name}' is not a cell of the grid; {registry.suggest(name, known)}")
    return [known[name] for name in wanted]


def values(params: Params, keys: tuple[str, ...]) -> dict:
    """The value of each dotted key in the file as it stands; None where a key is absent."""
    parts = {key: key.partition(".") for key in keys}
    return {
        key: (params.raw.get(section) or {}).get(name) if name else params.raw.get(section)
        for key, (section, _, name) in parts.items()
    }


def digests(params: Params, job: Job) -> dict[str, str]:
    """The SHA-256 of the user's files and folders that a job reads, by section, name and setting."""
    return {
        ".".join((*entry, key)): user_inputs.digest(found)
        for entry in job.entries
        for key, found in user_inputs.sums(params, *entry).items()
    }


def check_inputs(params: Params, wanted: list[Job]) -> None:
    """Raises UserError when a file or folder of the user's that one of these jobs reads is missing or another one."""
    entries = dict.fromkeys(entry for job in wanted for entry in job.entries)
    named = dict.fromkeys(name for entry in entries for name in params.paths(*entry).values())
    missing = [name for name in named if not os.path.exists(name)]
    if missing:
        verb = "does" if len(missing) == 1 else "do"
        raise UserError(f"params.yaml names {', '.join(missing)}, which {verb} not exist; correct the path")
    for section, name in entries:
        if expected := params.named(section, name, "Checksum"):
            found = user_inputs.sums(params, section, name)
            for setting, file in params.paths(section, name).items():
                check_sum(file, user_inputs.digest(found[setting]), expected)


def _has_key(params: Params, key: str) -> bool:
    section, _, name = key.partition(".")
    return section in params.raw and (not name or name in (params.raw[section] or {}))


def _weights(params: Params, section: str, name: str, dataset: str, *outputs: str) -> list[Path]:
    """The weights of the surrogate that an entry names, if any: of the last epoch ("model"), of earlier ones."""
    surrogate = params.named(section, name, "SurrogateName")
    return [path("surrogate", output, dataset=dataset, surrogate=surrogate) for output in outputs] if surrogate else []


def _sources(params: Params, rule: str) -> Needs:
    known = [name for name in RULES if name not in LISTS]
    if rule not in known:
        raise UserError(f"unknown rule '{rule}'; {registry.suggest(rule, known)}")
    return Needs([], [], [], registry.rule_sources(rule))


def _inputs(params: Params, section: str, name: str) -> Needs:
    if section not in registry.KINDS:
        raise UserError(f"unknown section '{section}'; {registry.suggest(section, registry.KINDS)}")
    if not params.paths(section, name):
        raise UserError(f"{section}.{name} names no file or folder of yours, so that there is nothing to list")
    return Needs([], [(section, name)], [])


def _prepare(params: Params, dataset: str) -> Needs:
    return Needs([], [("datasets", dataset)], [f"datasets.{dataset}"])


def _surrogate(params: Params, dataset: str, surrogate: str) -> Needs:
    arch = params.settings("surrogates", surrogate)["arch"]
    inputs = [path("prepare", split, dataset=dataset) for split in ("train", "test")]
    keys = ["compute", "train", f"surrogates.{surrogate}", f"architectures.{arch}"]
    return Needs(inputs, [("architectures", arch)], keys)


def _poison(params: Params, dataset: str, poison: str) -> Needs:
    inputs = [
        path("prepare", "train", dataset=dataset),
        *_weights(params, "poisons", poison, dataset, "model", "earlier"),
        *(path("poison", "train", dataset=dataset, poison=part) for part in mixed(params, poison)),
    ]
    entries, keys = [("poisons", poison)], ["compute", f"poisons.{poison}"]
    arch = params.target_arch(poison)
    if arch:
        entries.append(("architectures", arch))
        keys.append(f"architectures.{arch}")
    return Needs(inputs, entries, keys)


def _purify(params: Params, dataset: str, poison: str, purification: str) -> Needs:
    inputs = [path("poison", "train", dataset=dataset, poison=poison)]
    return Needs(inputs, [("purifications", purification)], ["compute", f"purifications.{purification}"])


def _pretrain(params: Params, dataset: str, poison: str, arch: str, pretraining: str, seed: int) -> Needs:
    inputs = [path("poison", "train", dataset=dataset, poison=poison)]
    entries = [("architectures", arch), ("pretraining", pretraining)]
    return Needs(inputs, entries, ["compute", "train", f"architectures.{arch}", f"pretraining.{pretraining}"])


def _train(params: Params, cell: Cell) -> Needs:
    rule, made = trained_on(params, cell)
    inputs = [path(rule, "train", **made), cell.path("prepare", "test")]
    if params.named("methods", cell.method, "CleanCount"):
        inputs.append(cell.path("prepare", "train"))
    inputs += _weights(params, "methods", cell.method, cell.dataset, "model")
    found = pretrained(params, cell)
    inputs += [path("pretrain", "model", **found)] if found else []
    entries = [("architectures", cell.arch), ("methods", cell.method)]
    keys = ["compute", "train", f"architectures.{cell.arch}", f"methods.{cell.method}"]
    # its file says how many passes it makes, which train.json counts
    own = (params.entry("purifications", made["purification"]).path,) if rule == "purify" else ()
    return Needs(inputs, entries, keys, own)


def _evaluate(params: Params, cell: Cell) -> Needs:
    inputs = [cell.path("train", output) for output in ("model", "history", "info")] + [cell.path("prepare", "test")]
    keys = ["compute", f"architectures.{cell.arch}", f"methods.{cell.method}"]
    return Needs(inputs, _train(params, cell).entries, keys)


def _aggregate(params: Params) -> Needs:
    wanted = cells(params)
    inputs = [cell.path("evaluate", "record") for cell in wanted] + [cell.path("train", "history") for cell in wanted]
    return Needs(inputs, [], ["compute", "train", "surrogates", "purifications", "pretraining", *AXES, "grid"])


def _tabulate(params: Params, table: str) -> Needs:
    return Needs([path("aggregate", "records")], [("tables", table)], [f"tables.{table}"])


def _plot(params: Params, figure: str) -> Needs:
    entry = params.entry("figures", figure)
    inputs = [path("aggregate", name) for name in entry.arguments if name in RULES["aggregate"].outputs]
    wanted = [name for name in ("info", *entry.arguments) if name in RULES["train"].outputs]
    inputs += [cell.path("train", name) for cell in plotted_cells(params, figure) for name in wanted]
    keys = [f"figures.{figure}"]
    known = cells(params)
    if "classes" in entry.arguments:
        inputs += dict.fromkeys(cell.path("prepare", "info") for cell in known)
        keys.append("grid")
    if "examples" in entry.arguments:
        inputs += dict.fromkeys(cell.path("prepare", "train") for cell in known)
        inputs += dict.fromkeys(cell.path("poison", "train") for cell in known)
        keys.append("grid")
    entries = [("figures", figure)]
    if "networks" in entry.arguments:
        for cell in plotted_cells(params, figure):
            inputs += [cell.path("train", "model"), cell.path("train", "history"), cell.path("prepare", "info")]
            inputs += [cell.path("prepare", "train"), cell.path("poison", "train")]
            entries += [("architectures", cell.arch), ("methods", cell.method)]
        keys += ["compute", *(f"{section}.{name}" for section, name in dict.fromkeys(entries[1:]))]
    return Needs(list(dict.fromkeys(inputs)), list(dict.fromkeys(entries)), list(dict.fromkeys(keys)))


_NEEDS: dict[str, Callable[..., Needs]] = {
    "sources": _sources,
    "inputs": _inputs,
    "prepare": _prepare,
    "surrogate": _surrogate,
    "poison": _poison,
    "purify": _purify,
    "pretrain": _pretrain,
    "train": _train,
    "evaluate": _evaluate,
    "aggregate": _aggregate,
    "tabulate": _tabulate,
    "plot": _plot,
}
