"""The resolved settings behind a file, back to the data. A job writes them into what it makes."""

from collections.abc import Callable
from typing import Any

from relearn.grid import inputs
from relearn.grid.mixed import mixed
from relearn.grid.paths import Cell
from relearn.grid.pretrained import pretrained
from relearn.grid.trained_on import trained_on
from relearn.params import Params

Given = dict[str, Any]
Own = tuple[tuple[str, Given] | None, dict]  # the rule and arguments of the job read, if any; the settings added to its


def settings(
    params: Params, rule: str, /, *, inherited: dict | None = None, starts: dict | None = None, **given
) -> dict:
    """All settings, resolved, that the output of a job depends on, back to the data.

    Without more they are those of params.yaml as it stands; `aggregate` compares records with these. A job that writes
    them beside its numbers gives what it found in the headers of its inputs instead: `inherited`, the settings of the
    split it has read, and `starts`, those of what else it starts from, as "surrogate_settings",
    "pretraining_settings" and, by poison, "mixed_settings".
    """
    upstream, own = _OWN[rule](params, starts or {}, **given)
    if upstream is None:
        return own
    if inherited is None:
        inherited = settings(params, upstream[0], **upstream[1])
    return inherited | own


def _prepare(params: Params, _: dict, dataset: str) -> Own:
    return None, {"dataset": _entry(params, "datasets", dataset)}


def _surrogate(params: Params, _: dict, dataset: str, surrogate: str) -> Own:
    own = params.settings("surrogates", surrogate)
    model = {"surrogate": own, "architecture": _entry(params, "architectures", own["arch"])}
    shared = {"compute": params.compute, "train": params.recipe_of(own["arch"])}
    return ("prepare", {"dataset": dataset}), shared | model


def _poison(params: Params, starts: dict, dataset: str, poison: str) -> Own:
    own = _entry(params, "poisons", poison)
    arch = params.named("poisons", poison, "ArchitectureName")
    if arch:
        own |= {"compute": params.compute, "architecture": _entry(params, "architectures", arch)}
    own |= _surrogate_settings(params, "poisons", poison, dataset, starts)
    if parts := mixed(params, poison):
        found = starts.get("mixed_settings") or {
            part: settings(params, "poison", dataset=dataset, poison=part) for part in parts
        }
        own |= {"mixed_settings": found}
    return ("prepare", {"dataset": dataset}), {"poison": own}


def _purify(params: Params, _: dict, dataset: str, poison: str, purification: str) -> Own:
    own = {"purification": {"compute": params.compute} | _entry(params, "purifications", purification)}
    return ("poison", {"dataset": dataset, "poison": poison}), own


def _pretrain(params: Params, _: dict, dataset: str, poison: str, arch: str, pretraining: str, seed: int) -> Own:
    own = {
        "compute": params.compute,
        "train": params.recipe_of(arch),
        "architecture": _entry(params, "architectures", arch),
        "pretraining": _entry(params, "pretraining", pretraining),
    }
    return ("poison", {"dataset": dataset, "poison": poison}), own


def _train(params: Params, starts: dict, cell: Cell) -> Own:
    own = {
        "compute": params.compute,
        "train": params.recipe_of(cell.arch),
        "architecture": _entry(params, "architectures", cell.arch),
        "method": _entry(params, "methods", cell.method),
    }
    own["method"] |= _surrogate_settings(params, "methods", cell.method, cell.dataset, starts)
    own["method"] |= _pretraining_settings(params, cell, starts)
    return trained_on(params, cell), own


_OWN: dict[str, Callable[..., Own]] = {
    "prepare": _prepare,
    "surrogate": _surrogate,
    "poison": _poison,
    "purify": _purify,
    "pretrain": _pretrain,
    "train": _train,
    "evaluate": _train,
}


def _entry(params: Params, section: str, name: str) -> dict:
    """An entry's settings and what it uses; of a user's input the content, wherever it lies and however named.

    The recipe of an architecture is not among them: `train` is what it makes of the shared one.
    """
    digests = {key: f"sha256:{inputs.digest(found)}" for key, found in inputs.sums(params, section, name).items()}
    settings = (params.own_settings if section == "architectures" else params.settings)(section, name)
    return settings | {"use": params.entry(section, name).name} | digests


def _surrogate_settings(params: Params, section: str, name: str, dataset: str, starts: dict) -> dict:
    """The settings of the surrogate that an entry names, if any, as `starts` or else params.yaml has them."""
    surrogate = params.named(section, name, "SurrogateName")
    if not surrogate:
        return {}
    found = starts.get("surrogate_settings")
    return {"surrogate_settings": found or settings(params, "surrogate", dataset=dataset, surrogate=surrogate)}


def _pretraining_settings(params: Params, cell: Cell, starts: dict) -> dict:
    """The same of the pretraining that the method of a cell names."""
    coordinates = pretrained(params, cell)
    if not coordinates:
        return {}
    return {"pretraining_settings": starts.get("pretraining_settings") or settings(params, "pretrain", **coordinates)}
