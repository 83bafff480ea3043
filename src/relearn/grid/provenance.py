"""The resolved settings behind a file, back to the data. A job writes them into what it makes."""

from collections.abc import Callable
from typing import Any

from relearn.grid import inputs
from relearn.grid.paths import Cell
from relearn.params import Params

Given = dict[str, Any]
Own = tuple[tuple[str, Given] | None, dict]  # the rule and arguments of the job read, if any; the settings added to its


def settings(
    params: Params, rule: str, /, *, inherited: dict | None = None, surrogate_settings: dict | None = None, **given
) -> dict:
    """All settings, resolved, that the output of a job depends on, back to the data.

    Without more they are those of params.yaml as it stands; `aggregate` compares records with these. A job that writes
    them beside its numbers gives what it found in the headers of its inputs instead: `inherited`, the settings of the
    split it has read, and `surrogate_settings`, those of the weights it starts from.
    """
    upstream, own = _OWN[rule](params, surrogate_settings, **given)
    if upstream is None:
        return own
    if inherited is None:
        inherited = settings(params, upstream[0], **upstream[1])
    return inherited | own


def _prepare(params: Params, _: dict | None, dataset: str) -> Own:
    return None, {"dataset": _entry(params, "datasets", dataset)}


def _surrogate(params: Params, _: dict | None, dataset: str, surrogate: str) -> Own:
    own = params.settings("surrogates", surrogate)
    model = {"surrogate": own, "architecture": _entry(params, "architectures", own["arch"])}
    return ("prepare", {"dataset": dataset}), {"compute": params.compute, "train": params.recipe} | model


def _poison(params: Params, found: dict | None, dataset: str, poison: str) -> Own:
    own = _entry(params, "poisons", poison)
    arch = params.named("poisons", poison, "ArchitectureName")
    if arch:
        own |= {"compute": params.compute, "architecture": _entry(params, "architectures", arch)}
    own |= _surrogate_settings(params, "poisons", poison, dataset, found)
    return ("prepare", {"dataset": dataset}), {"poison": own}


def _train(params: Params, found: dict | None, cell: Cell) -> Own:
    own = {
        "compute": params.compute,
        "train": params.recipe,
        "architecture": _entry(params, "architectures", cell.arch),
        "method": _entry(params, "methods", cell.method),
    }
    own["method"] |= _surrogate_settings(params, "methods", cell.method, cell.dataset, found)
    return ("poison", {"dataset": cell.dataset, "poison": cell.poison}), own


_OWN: dict[str, Callable[..., Own]] = {
    "prepare": _prepare,
    "surrogate": _surrogate,
    "poison": _poison,
    "train": _train,
    "evaluate": _train,
}


def _entry(params: Params, section: str, name: str) -> dict:
    """An entry's settings and what it uses; of a user's input the content, wherever it lies and however named."""
    digests = {key: f"sha256:{inputs.digest(found)}" for key, found in inputs.sums(params, section, name).items()}
    return params.settings(section, name) | {"use": params.entry(section, name).name} | digests


def _surrogate_settings(params: Params, section: str, name: str, dataset: str, found: dict | None) -> dict:
    """The settings of the surrogate that an entry names, if any, as `found` or as params.yaml has them."""
    surrogate = params.named(section, name, "SurrogateName")
    if not surrogate:
        return {}
    return {"surrogate_settings": found or settings(params, "surrogate", dataset=dataset, surrogate=surrogate)}
