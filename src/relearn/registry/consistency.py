"""Settings that are fine alone but impossible together, found before any job. Needs no torch."""

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

from relearn.registry.discovery import Entry
from relearn.registry.settings import group_count_error


class Declared(Protocol):
    """What is asked of a params file whose settings are fine one by one; `relearn.params.Params` describes it."""

    raw: dict

    @property
    def recipe(self) -> dict: ...  # noqa: D102
    def recipe_of(self, arch: str) -> dict: ...  # noqa: D102
    def recipe_section(self, arch: str) -> str: ...  # noqa: D102
    def names(self, section: str) -> list[str]: ...  # noqa: D102
    def entry(self, section: str, name: str) -> Entry: ...  # noqa: D102
    def settings(self, section: str, name: str) -> dict: ...  # noqa: D102
    def named(self, section: str, name: str, annotation: str) -> Any: ...  # noqa: D102


def errors(params: Declared) -> list[str]:
    """Everything that is wrong with settings together, one line each."""
    return [*_recipe(params), *_surrogates(params), *_checkpoints(params), *_groups(params), *_mixtures(params)]


def _recipe(params: Declared) -> Iterator[str]:
    shared = list(_recipe_errors(params.recipe))
    yield from (f"train: {error}" for error in shared)
    for arch in params.names("architectures"):
        found = [error for error in _recipe_errors(params.recipe_of(arch)) if error not in shared]
        yield from (f"{params.recipe_section(arch)}: {error}" for error in found)


def _recipe_errors(recipe: dict) -> Iterator[str]:
    if recipe["nesterov"] and not recipe["momentum"]:
        yield "nesterov needs a momentum above 0; give one, or set nesterov: false"
    part, batch = recipe["micro_batch"] or 0, recipe["batch"]
    if part > batch:
        yield f"micro_batch is {part}, more than batch, {batch}; give a smaller one"
    if recipe["label_smoothing"] == 1:
        yield "label_smoothing is 1, which removes all information from the labels; give less"


def _surrogates(params: Declared) -> Iterator[str]:
    for name in params.names("surrogates"):
        own = params.settings("surrogates", name)
        epochs = own["epochs"] or params.recipe_of(own["arch"])["epochs"]
        if own["checkpoints"] > epochs:
            yield f"surrogates.{name}: {epochs} epochs give no {own['checkpoints']} checkpoints; give fewer checkpoints"


def _checkpoints(params: Declared) -> Iterator[str]:
    """Poisons that need more checkpoints than their surrogate stores."""
    for name in params.names("poisons"):
        wanted = params.named("poisons", name, "CheckpointCount")
        surrogate = params.named("poisons", name, "SurrogateName")
        if wanted is None or surrogate is None:
            continue
        stored = params.settings("surrogates", surrogate)["checkpoints"]
        if wanted > stored:
            yield (
                f"poisons.{name}: it needs {wanted} checkpoints of its surrogate, but surrogates.{surrogate} has "
                f"{stored}; set checkpoints: {wanted} there, or fewer models here"
            )


def _groups(params: Declared) -> Iterator[str]:
    """Methods that speak of layer groups which an architecture that they train does not have."""
    pairs: dict[tuple[str, str], None] = {}
    for block in params.raw["grid"].values():
        axes = [params.names(axis) if block[axis] == "all" else block[axis] for axis in ("methods", "architectures")]
        pairs |= dict.fromkeys(itertools.product(*axes))
    for method, arch in pairs:
        groups = params.entry("architectures", arch).groups
        settings = params.settings("methods", method)
        for setting in params.entry("methods", method).settings if groups else ():
            value, where = settings[setting.name], f"methods.{method}.{setting.name}"
            if setting.kind in ("GroupCount", "list[GroupCount]"):
                counts = value if isinstance(value, list) else [value]
                found = [group_count_error(count, groups) for count in counts if count is not None]
                yield from (f"{where}: for architectures.{arch} it {error}" for error in found if error)


def _mixtures(params: Declared) -> Iterator[str]:
    """Poisons that mix others, one of them twice, or in the end themselves."""
    mixed = {name: params.named("poisons", name, "list[PoisonName]") or [] for name in params.names("poisons")}
    for name, parts in mixed.items():
        twice = next((part for part in parts if parts.count(part) > 1), None)
        if twice is not None:
            yield f"poisons.{name}: it mixes '{twice}' twice; name each poison once"
        circle = _circle(mixed, (name,))
        if circle and min(circle) == name:  # each circle is told once
            yield f"poisons.{name}: it mixes itself, {' > '.join(circle)}; take one of them out"


def _circle(mixed: dict[str, list[str]], path: tuple[str, ...]) -> tuple[str, ...]:
    """A way from the first of `path` back to it; empty if there is none."""
    for part in mixed[path[-1]]:
        if part == path[0]:
            return (*path, part)
        if part not in path:
            found = _circle(mixed, (*path, part))
            if found:
                return found
    return ()
