"""The grid: cells, every path, and every node of the DAG. The only code that expands params.yaml or spells a path.

Path patterns are Snakemake patterns and format strings at once. Both engines run the nodes made here: Snakemake asks
for them by wildcard, DVC reads them from workflow/grid.yaml (stages.py). Needs no torch.
"""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from relearn import registry
from relearn.errors import Fault
from relearn.params import AXES, Params

RESULTS = "results"
SECTIONS = {"arch": "architectures"} | {
    name: f"{name}s" for name in ("dataset", "poison", "method", "surrogate", "table", "figure")
}
CELL = "{dataset}/{poison}/{arch}/{method}/{seed}"


@dataclass(frozen=True)
class Step:
    """A kind of node: the spelling of its argument, and the patterns of what it writes, by name."""

    argument: str
    outputs: dict[str, str]


def _in(folder: str, argument: str, **files: str) -> Step:
    return Step(
        argument, {name: "/".join(filter(None, (RESULTS, folder, argument, file))) for name, file in files.items()}
    )


STEPS = {
    "sources": Step("{kind}", {"list": f"{RESULTS}/sources/{{kind}}.sha256"}),
    "prepare": _in("data", "{dataset}", train="train.safetensors", test="test.safetensors", info="data.json"),
    "surrogate": _in(
        "surrogates",
        "{dataset}/{surrogate}",
        model="model.safetensors",
        earlier="earlier.safetensors",
        info="surrogate.json",
    ),
    "poison": _in("poisons", "{dataset}/{poison}", train="train.safetensors", info="poison.json"),
    "train": _in(
        "runs",
        CELL,
        model="model.safetensors",
        history="history.csv",
        ticks="ticks.csv",
        embeddings="embeddings.csv",
        info="train.json",
    ),
    "evaluate": _in("metrics", CELL, record="record.json"),
    "aggregate": _in("summary", "", records="records.csv", histories="histories.csv", metrics="metrics.json"),
    "tabulate": Step("{table}", {suffix: f"{RESULTS}/tables/{{table}}.{suffix}" for suffix in ("csv", "md", "tex")}),
    "plot": Step("{figure}", {suffix: f"{RESULTS}/figures/{{figure}}.{suffix}" for suffix in ("png", "pdf")}),
}


@dataclass(frozen=True)
class Cell:
    """The unit of work."""

    dataset: str
    poison: str
    arch: str
    method: str
    seed: int

    def __str__(self) -> str:
        return CELL.format(**vars(self))


@dataclass(frozen=True)
class Node:
    """One job: what it runs, what it reads and writes. `reads` are dotted keys of params.yaml.

    Among `inputs` is a list of the source files that every job of the step runs; `sources` are those that only some run.
    """

    step: str
    argument: str
    inputs: tuple[str, ...]
    sources: tuple[str, ...]
    reads: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line, the same for both engines."""
        return " ".join(filter(None, ("relearn", self.step, self.argument)))


def coordinates(step: str, argument: str) -> dict[str, str]:
    """The coordinates an argument spells. Raises Fault when it is not of the step's form."""
    pattern = STEPS[step].argument
    names = [part[1:-1] for part in pattern.split("/")] if pattern else []
    values = argument.split("/") if argument else []
    if len(names) != len(values):
        raise Fault(
            f"relearn {step} takes {pattern.replace('{', '').replace('}', '').upper() or 'no argument'}, found '{argument}'"
        )
    return dict(zip(names, values))


def cell(argument: str) -> Cell:
    """The cell an id spells. Raises Fault when it is none."""
    found = coordinates("train", argument)
    if not re.fullmatch("0|[1-9][0-9]*", found["seed"]):
        raise Fault(f"the seed of a cell is a whole number, found '{found['seed']}' in '{argument}'")
    return Cell(**found | {"seed": int(found["seed"])})


def path(step: str, output: str, **coords) -> Path:
    """Where a step writes an output."""
    return Path(STEPS[step].outputs[output].format(**coords))


def beside(step: str, suffix: str, **coords) -> Path:
    """A file that no engine tracks, beside a step's outputs: `train.run.json`, `train.checkpoint.safetensors`."""
    return Path(next(iter(STEPS[step].outputs.values())).format(**coords)).with_name(f"{step}.{suffix}")


def log(step: str) -> str:
    """The pattern of a step's log."""
    return f"{RESULTS}/logs/{step}/{STEPS[step].argument or 'all'}.log"


def cells(params: Params) -> list[Cell]:
    """The grid expanded, in the order of the file; a cell in two blocks stands once."""
    found = {}
    for block in params.raw["grid"].values():
        axes = [params.names(axis) if block[axis] == "all" else block[axis] for axis in AXES]
        for coords in itertools.product(*axes, block["seeds"]):
            found[Cell(*coords)] = None
    return list(found)


def node(params: Params, step: str, **coords) -> Node:
    """The node of `step` at these coordinates (wildcards). Raises Fault for a name params.yaml does not have."""
    for coordinate, name in coords.items():
        if coordinate in SECTIONS:
            params.settings(SECTIONS[coordinate], name)  # raises for a name that is not there
    inputs, sources, reads = _NEEDS[step](params, **coords)
    shared = registry.step_sources(step)
    listed = (
        [] if step == "sources" else [path("sources", "list", kind=step)]
    )  # one file for the engines to watch, not twenty
    return Node(
        step,
        STEPS[step].argument.format(**coords),
        tuple(map(str, (*inputs, *listed))),
        tuple(
            registry.relative(file) for file in registry.sources(*shared, *sources) if not listed or file not in shared
        ),
        tuple(key for key in reads if _has(params, key)),
        tuple(pattern.format(**coords) for pattern in STEPS[step].outputs.values()),
    )


def nodes(params: Params) -> list[Node]:
    """Every node that the grid, tables and figures need, in an order in which they could run."""
    coords: dict[str, list[dict]] = {step: [] for step in STEPS} | {
        "sources": [{"kind": step} for step in STEPS if step != "sources"]
    }
    for item in cells(params):
        named = (
            params.named(kind, name, "SurrogateName")
            for kind, name in (("poisons", item.poison), ("methods", item.method))
        )
        coords["prepare"].append({"dataset": item.dataset})
        coords["surrogate"] += [{"dataset": item.dataset, "surrogate": surrogate} for surrogate in named if surrogate]
        coords["poison"].append({"dataset": item.dataset, "poison": item.poison})
        coords["train"].append(vars(item))
        coords["evaluate"].append(vars(item))
    coords["aggregate"].append({})
    coords["tabulate"] = [{"table": name} for name in params.names("tables")]
    coords["plot"] = [{"figure": name} for name in params.names("figures")]
    return [
        node(params, step, **dict(unique))
        for step, items in coords.items()
        for unique in dict.fromkeys(tuple(item.items()) for item in items)
    ]


def drawn_cells(params: Params, figure: str) -> list[Cell]:
    """The cells whose runs a figure reads: those its setting `list[CellName]` names. Raises Fault for one the grid does not have."""
    wanted = params.named("figures", figure, "list[CellName]")
    known = {str(item): item for item in cells(params)}
    if wanted == []:
        raise Fault(f"figures.{figure} names no cell; {registry.nearest('', known)}")
    for name in wanted or []:
        if name not in known:
            raise Fault(f"figures.{figure}: '{name}' is not a cell of the grid; {registry.nearest(name, known)}")
    return [known[name] for name in wanted or []]


def values(params: Params, reads: tuple[str, ...]) -> dict:
    """The value of each dotted key in the file as it stands; None where a key is absent."""
    parts = {key: key.partition(".") for key in reads}
    return {
        key: (params.raw.get(section) or {}).get(name) if name else params.raw.get(section)
        for key, (section, _, name) in parts.items()
    }


def settings(params: Params, step: str, **coords) -> dict:
    """All settings, resolved, that the output of prepare, surrogate, poison or train depends on, back to the data.

    A step writes them beside its numbers; `aggregate` compares them with params.yaml as it stands.
    """
    recipe = {"compute": params.compute, "train": params.recipe}
    if step == "prepare":
        return {"dataset": _entry(params, "datasets", coords["dataset"])}
    if step == "surrogate":
        own = params.settings("surrogates", coords["surrogate"])
        data = settings(params, "prepare", dataset=coords["dataset"])
        return data | recipe | {"surrogate": own, "architecture": _entry(params, "architectures", own["arch"])}
    if step == "poison":
        return settings(params, "prepare", dataset=coords["dataset"]) | {"poison": _crafting(params, **coords)}
    own = {
        kind: _entry(params, f"{kind}s", coords[short])
        for kind, short in (("architecture", "arch"), ("method", "method"))
    }
    own["method"] |= _surrogate(params, "methods", coords["method"], coords["dataset"], "taken_from")
    return settings(params, "poison", dataset=coords["dataset"], poison=coords["poison"]) | recipe | own


def check_inputs(wanted: list[Node]) -> None:
    """Raises Fault when a file or folder of the user's that one of these nodes reads is not there."""
    outside = dict.fromkeys(name for item in wanted for name in item.inputs if not name.startswith(f"{RESULTS}/"))
    missing = [name for name in outside if not Path(name).exists()]
    if missing:
        raise Fault(f"params.yaml names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not there")


def _entry(params: Params, kind: str, name: str) -> dict:
    """An entry's settings and what it uses; of a user's path only the last part, so that records are the same everywhere."""
    found = params.settings(kind, name) | {"use": params.entry(kind, name).name}
    paths = {s.name for s in params.entry(kind, name).settings if s.kind == "InputPath"}
    return {key: Path(value).name if key in paths and value is not None else value for key, value in found.items()}


def _crafting(params: Params, dataset: str, poison: str) -> dict:
    found = _entry(params, "poisons", poison)
    arch = params.named("poisons", poison, "ArchitectureName")
    if arch:
        found |= {"compute": params.compute, "architecture": _entry(params, "architectures", arch)}
    return found | _surrogate(params, "poisons", poison, dataset, "crafted_on")


def _surrogate(params: Params, kind: str, name: str, dataset: str, key: str) -> dict:
    """Under `key` the settings of the surrogate an entry names; nothing if it names none."""
    surrogate = params.named(kind, name, "SurrogateName")
    return {key: settings(params, "surrogate", dataset=dataset, surrogate=surrogate)} if surrogate else {}


def _has(params: Params, key: str) -> bool:
    section, _, name = key.partition(".")
    return section in params.raw and (not name or name in (params.raw[section] or {}))


def _weights(params: Params, kind: str, name: str, dataset: str, *outputs: str) -> list[Path]:
    """The weights of the surrogate an entry names, if it names one: its last ("model"), those before ("earlier")."""
    surrogate = params.named(kind, name, "SurrogateName")
    return [path("surrogate", output, dataset=dataset, surrogate=surrogate) for output in outputs] if surrogate else []


def _needs_sources(params: Params, kind: str):
    if kind not in (known := [step for step in STEPS if step != "sources"]):
        raise Fault(f"unknown kind of job '{kind}'; {registry.nearest(kind, known)}")
    return [], registry.step_sources(kind), []


def _needs_prepare(params: Params, dataset: str):
    return params.paths("datasets", dataset), [params.entry("datasets", dataset).path], [f"datasets.{dataset}"]


def _needs_surrogate(params: Params, dataset: str, surrogate: str):
    arch = params.settings("surrogates", surrogate)["arch"]
    inputs = [path("prepare", "train", dataset=dataset), path("prepare", "test", dataset=dataset)]
    sources = [params.entry("architectures", arch).path]
    return inputs, sources, ["compute", "train", f"surrogates.{surrogate}", f"architectures.{arch}"]


def _needs_poison(params: Params, dataset: str, poison: str):
    inputs = [
        path("prepare", "train", dataset=dataset),
        *params.paths("poisons", poison),
        *_weights(params, "poisons", poison, dataset, "model", "earlier"),
    ]
    sources, reads = [params.entry("poisons", poison).path], ["compute", f"poisons.{poison}"]
    surrogate = params.named("poisons", poison, "SurrogateName")
    arch = (
        params.settings("surrogates", surrogate)["arch"]
        if surrogate
        else params.named("poisons", poison, "ArchitectureName")
    )
    if arch:
        sources.append(params.entry("architectures", arch).path)
        reads.append(f"architectures.{arch}")
    return inputs, sources, reads


def _needs_train(params: Params, dataset: str, poison: str, arch: str, method: str, seed):
    inputs = [path("poison", "train", dataset=dataset, poison=poison), path("prepare", "test", dataset=dataset)]
    inputs += _weights(params, "methods", method, dataset, "model")
    sources = [params.entry("architectures", arch).path, params.entry("methods", method).path]
    return inputs, sources, ["compute", "train", f"architectures.{arch}", f"methods.{method}"]


def _needs_evaluate(params: Params, **coords):
    inputs = [path("train", name, **coords) for name in ("model", "history", "info")] + [
        path("prepare", "test", dataset=coords["dataset"])
    ]
    return (
        inputs,
        _needs_train(params, **coords)[1],
        ["compute", f"architectures.{coords['arch']}", f"methods.{coords['method']}"],
    )


def _needs_aggregate(params: Params):
    wanted = cells(params)
    inputs = [path("evaluate", "record", **vars(item)) for item in wanted] + [
        path("train", "history", **vars(item)) for item in wanted
    ]
    return inputs, [], ["compute", "train", "surrogates", *AXES, "grid"]


def _needs_tabulate(params: Params, table: str):
    return [path("aggregate", "records")], [params.entry("tables", table).path], [f"tables.{table}"]


def _needs_plot(params: Params, figure: str):
    entry = params.entry("figures", figure)
    inputs = [path("aggregate", name) for name in entry.arguments if name in STEPS["aggregate"].outputs]
    wanted = [name for name in ("info", *entry.arguments) if name in STEPS["train"].outputs]
    inputs += [path("train", name, **vars(item)) for item in drawn_cells(params, figure) for name in wanted]
    if "examples" in entry.arguments:
        pairs = dict.fromkeys((item.dataset, item.poison) for item in cells(params))
        inputs += [
            path("prepare", "train", dataset=dataset) for dataset in dict.fromkeys(dataset for dataset, _ in pairs)
        ]
        inputs += [path("poison", "train", dataset=dataset, poison=poison) for dataset, poison in pairs]
    return (
        inputs,
        [entry.path],
        [f"figures.{figure}", "grid"] if "examples" in entry.arguments else [f"figures.{figure}"],
    )


_NEEDS = {step: globals()[f"_needs_{step}"] for step in STEPS}
