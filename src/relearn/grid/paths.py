"""Rules, cells, and every path in ``results/``. Path patterns are Snakemake patterns and format strings at once."""

import re
from dataclasses import dataclass
from pathlib import Path

from relearn.errors import UserError
from relearn.runtime.structures import LARGEST

RESULTS = "results"
CELL = "{dataset}/{poison}/{arch}/{method}/{seed}"
PRETRAINING = "{dataset}/{poison}/{arch}/{pretraining}/{seed}"


@dataclass(frozen=True)
class Rule:
    """A kind of job: how its argument is spelled, and the patterns of the files it writes, by name."""

    argument: str
    outputs: dict[str, str]


def _in_folder(folder: str, argument: str, **files: str) -> Rule:
    return Rule(
        argument,
        {name: "/".join(filter(None, (RESULTS, folder, argument, file))) for name, file in files.items()},
    )


RULES = {
    "sources": Rule("{rule}", {"list": f"{RESULTS}/sources/{{rule}}.sha256"}),
    "inputs": Rule("{section}/{name}", {"list": f"{RESULTS}/inputs/{{section}}/{{name}}.sha256"}),
    "prepare": _in_folder("data", "{dataset}", train="train.safetensors", test="test.safetensors", info="data.json"),
    "surrogate": _in_folder(
        "surrogates",
        "{dataset}/{surrogate}",
        model="model.safetensors",
        earlier="earlier.safetensors",
        info="surrogate.json",
    ),
    "poison": _in_folder("poisons", "{dataset}/{poison}", train="train.safetensors", info="poison.json"),
    "purify": _in_folder(
        "purifications", "{dataset}/{poison}/{purification}", train="train.safetensors", info="purify.json"
    ),
    "pretrain": _in_folder(
        "pretraining", PRETRAINING, model="model.safetensors", history="history.csv", info="pretrain.json"
    ),
    "train": _in_folder(
        "runs",
        CELL,
        model="model.safetensors",
        history="history.csv",
        probes="probes.csv",
        embeddings="embeddings.csv",
        info="train.json",
    ),
    "evaluate": _in_folder("metrics", CELL, record="record.json"),
    "aggregate": _in_folder("summary", "", records="records.csv", histories="histories.csv", metrics="metrics.json"),
    "tabulate": Rule("{table}", {suffix: f"{RESULTS}/tables/{{table}}.{suffix}" for suffix in ("csv", "md", "tex")}),
    "plot": Rule("{figure}", {suffix: f"{RESULTS}/figures/{{figure}}.{suffix}" for suffix in ("png", "pdf")}),
}


@dataclass(frozen=True)
class Cell:
    """One experiment: a dataset, a poison, an architecture, a method and a seed."""

    dataset: str
    poison: str
    arch: str
    method: str
    seed: int

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """The cell that `text`, DATASET/POISON/ARCH/METHOD/SEED, spells. Raises UserError when it spells none."""
        return cls(**_split("train", text))

    def __str__(self) -> str:
        return CELL.format(**vars(self))

    def path(self, rule: str, output: str) -> Path:
        """Where a rule writes an output for this cell, or for the dataset or poison of it."""
        return path(rule, output, **vars(self))


def parse(rule: str, argument: str) -> dict:
    """The arguments of a rule's `run` that an argument of the command line spells: a cell, or names.

    Raises UserError when the argument is not of the form that the rule takes.
    """
    if RULES[rule].argument == CELL:
        return {"cell": Cell.parse(argument)}
    return _split(rule, argument)


def coordinates(given: dict) -> dict:
    """What `parse` gives, as the names that path patterns use."""
    return vars(given["cell"]) if "cell" in given else given


def path(rule: str, output: str, /, **coordinates) -> Path:
    """Where a rule writes an output."""
    return Path(RULES[rule].outputs[output].format(**coordinates))


def sidecar(rule: str, suffix: str, /, **coordinates) -> Path:
    """A file beside a rule's outputs that no engine tracks, such as `train.run.json`."""
    return path(rule, next(iter(RULES[rule].outputs)), **coordinates).with_name(f"{rule}.{suffix}")


def log(rule: str) -> str:
    """The pattern of a rule's log file."""
    return f"{RESULTS}/logs/{rule}/{RULES[rule].argument or 'all'}.log"


def _split(rule: str, argument: str) -> dict:
    """The names in an argument of a rule by coordinate; a seed as a number."""
    pattern = RULES[rule].argument
    names = [part[1:-1] for part in pattern.split("/")] if pattern else []
    values = argument.split("/") if argument else []
    if len(names) != len(values):
        form = "/".join(names).upper() or "no argument"
        raise UserError(f"relearn {rule} takes {form}, found '{argument}'")
    found = dict(zip(names, values, strict=True))
    return found | ({"seed": _seed(found["seed"], argument)} if "seed" in found else {})


def _seed(seed: str, argument: str) -> int:
    if not re.fullmatch("0|[1-9][0-9]*", seed):
        raise UserError(f"the seed of a cell is a whole number, 0 or more; found '{seed}' in '{argument}'")
    if int(seed[:20]) > LARGEST:
        raise UserError(f"the seed of a cell is at most {LARGEST}; found '{seed}'")
    return int(seed)
