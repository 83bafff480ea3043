"""params.yaml: read it, check all of it, and resolve every entry to its full settings. Needs no torch."""

import math
import re
from pathlib import Path

from relearn import registry
from relearn.errors import UserError, listed, shown
from relearn.registry import Entry, Setting, suggest
from relearn.registry.sections import COMMON, Compute, Recipe, Surrogate, schema
from relearn.runtime.files import expanded
from relearn.runtime.yaml_loader import read_yaml

FILE = Path("params.yaml")
LONGEST_NAME = 40  # four of them, and a seed, are the name of a file
NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST_NAME - 1}}}")
MOST_CELLS = 100_000
AXES = tuple(registry.SECTIONS[axis] for axis in ("dataset", "poison", "arch", "method"))  # of a block of the grid
SECTIONS = ("compute", "train", *registry.SECTIONS.values(), "grid")


class Params:
    """A checked params.yaml. `raw` is its content; everything else is resolved: defaults filled in, `use` followed."""

    def __init__(self, raw: dict):
        self.raw = raw

    @property
    def compute(self) -> dict:
        """The settings of `compute:`."""
        return _resolved(schema(Compute), self.raw.get("compute"))

    @property
    def recipe(self) -> dict:
        """The settings of `train:`."""
        return _resolved(schema(Recipe), self.raw.get("train"))

    def recipe_of(self, arch: str, method: str | None = None) -> dict:
        """The recipe of an architecture: `train:`, overridden by its `recipe`.

        With a `method` its `epochs` override too, if the entry sets them.
        """
        own = self.settings("architectures", arch)["recipe"] or {}
        recipe = _resolved(schema(Recipe), (self.raw.get("train") or {}) | own)
        epochs = self.settings("methods", method)["epochs"] if method else None
        return recipe | ({"epochs": epochs} if epochs else {})

    def recipe_section(self, arch: str) -> str:
        """Where the recipe of an architecture can be changed: in its own `recipe` if it has one, else in `train`."""
        return f"architectures.{arch}.recipe" if self.settings("architectures", arch)["recipe"] else "train"

    @property
    def architectures(self) -> dict[str, tuple[str, dict]]:
        """The registered name and the own settings of every entry of `architectures:`."""
        return {
            name: (self.entry("architectures", name).name, self.own_settings("architectures", name))
            for name in self.names("architectures")
        }

    def names(self, section: str) -> list[str]:
        """The names in a section, in the order of the file."""
        return list(self.raw.get(section) or {})

    def entry(self, section: str, name: str) -> Entry:
        """What the entry `name` of a section uses. Raises UserError for an unknown name."""
        return registry.entry(section, used(name, self._given(section, name)))

    def settings(self, section: str, name: str) -> dict:
        """All settings of an entry. Raises UserError for an unknown name."""
        return _resolved(self._declared(section, name) + COMMON.get(section, ()), self._given(section, name))

    def own_settings(self, section: str, name: str) -> dict:
        """The settings of what an entry registers, without those that all entries of the section have."""
        return _resolved(self._declared(section, name), self._given(section, name))

    def build(self, section: str, name: str, *arguments):
        """Call what an entry registers, with `arguments` and its own settings; this imports its file."""
        made = registry.load(section, self.entry(section, name).name)
        return made(*arguments, **self.own_settings(section, name))

    def paths(self, section: str, name: str) -> dict[str, str]:
        """The user's files and folders that an entry reads, by setting."""
        settings = self.settings(section, name)
        found = {s.name: settings[s.name] for s in self._declared(section, name) if s.kind == "InputPath"}
        return {key: str(expanded(value)) for key, value in found.items() if value is not None}

    def named(self, section: str, name: str, annotation: str):
        """The value of an entry's setting of this annotation, such as "SurrogateName"; None if it has none."""
        settings = self.settings(section, name)
        return next((settings[s.name] for s in self._declared(section, name) if s.kind == annotation), None)

    def target_arch(self, poison: str) -> str | None:
        """The architecture that a poison is crafted on: of its surrogate, else its own; None if it needs no model."""
        surrogate = self.named("poisons", poison, "SurrogateName")
        if surrogate:
            return self.settings("surrogates", surrogate)["arch"]
        return self.named("poisons", poison, "ArchitectureName")

    def _declared(self, section: str, name: str) -> tuple[Setting, ...]:
        return schema(Surrogate) if section == "surrogates" else self.entry(section, name).settings

    def _given(self, section: str, name: str) -> dict:
        entries = self.raw.get(section) or {}
        if name not in entries:
            raise UserError(f"unknown {section.removesuffix('s')} '{name}' in params.yaml; {suggest(name, entries)}")
        return entries[name] or {}


def used(name: str, settings: dict) -> str:
    """The registered name an entry stands for: its `use`, else its own name."""
    return settings.get("use", name)


def load(path: Path = FILE) -> Params:
    """Read and check a params file. Raises UserError that lists every error in it."""
    try:
        raw = read_yaml(path)
    except FileNotFoundError:
        # without presets this is no project
        remedy = ", or get one with: relearn preset quickstart" if Path("workflow/presets").is_dir() else ""
        raise UserError(f"there is no {path} here; run this in the root of the project{remedy}") from None
    found = errors(raw) or registry.consistency.errors(Params(raw))
    if len(found) == 1:
        raise UserError(f"{path}: {found[0]}")
    if found:
        raise UserError(f"{path} has {len(found)} errors: {listed(found)}")
    return Params(raw)


def errors(raw) -> list[str]:
    """Everything that is wrong with the content of a params file, one line each."""
    if not isinstance(raw, dict):
        return [f"must be a mapping with the sections {', '.join(SECTIONS)}, found {type(raw).__name__}"]
    found = [f"unknown section '{key}'; {suggest(key, SECTIONS)}" for key in raw if key not in SECTIONS]
    found += [f"section '{key}' is missing or empty" for key in (*AXES, "grid") if not raw.get(key)]
    wrong = [key for key in SECTIONS if raw.get(key) is not None and not isinstance(raw[key], dict)]
    if wrong:
        return found + [
            f"{key} must be a mapping of names to settings, found {type(raw[key]).__name__}" for key in wrong
        ]
    found += _setting_errors("compute", schema(Compute), raw.get("compute") or {}, raw)
    found += _setting_errors("train", schema(Recipe), raw.get("train") or {}, raw)
    for section in registry.SECTIONS.values():
        for name, settings in (raw.get(section) or {}).items():
            found += entry_errors(section, name, settings, raw)
    for name, block in (raw.get("grid") or {}).items():
        found += _block_errors(f"grid.{name}", block, raw)
    return found or _cell_errors(raw)


def entry_errors(section: str, name, settings, raw: dict) -> list[str]:
    """Everything that is wrong with an entry of a section, one line each; `raw` has the entries that it may name."""
    if not isinstance(name, str):
        return [f"{section}: a name must be text, found {shown(name)}; put it in quotes, or choose another"]
    where = f"{section}.{name}"
    if not NAME.fullmatch(name):
        return [
            f"{where}: a name is lower-case letters, digits and underscores and begins with a letter, "
            f"at most {LONGEST_NAME} of them"
        ]
    if settings is not None and not isinstance(settings, dict):
        return [f"{where} must be a mapping of settings, found {shown(settings)}"]
    settings = dict(settings or {})
    if section == "surrogates":
        return _setting_errors(where, schema(Surrogate), settings, raw)
    known, uses = registry.entries(section), used(name, settings)
    if not isinstance(settings.pop("use", ""), str):
        return [f"{where}.use: must be text, found {shown(uses)}"]
    if uses not in known:
        return [f"unknown {section.removesuffix('s')} '{uses}' in {section}; {suggest(uses, known)}"]
    return _setting_errors(where, known[uses].settings + COMMON.get(section, ()), settings, raw)


def _setting_errors(where: str, declared: tuple[Setting, ...], given: dict, raw: dict) -> list[str]:
    by_name = {s.name: s for s in declared}
    found = [f"{where}: unknown setting '{key}'; {suggest(key, by_name)}" for key in given if key not in by_name]
    found += [
        f"{where}: setting '{s.name}' is missing"
        for s in declared
        if s.default is registry.REQUIRED and s.name not in given
    ]
    for key in by_name.keys() & given.keys():
        error = by_name[key].error(given[key])
        if error:
            found.append(f"{where}.{key}: {error}")
        elif by_name[key].kind == "RecipeSettings" and given[key] is not None:
            found += _setting_errors(f"{where}.{key}", schema(Recipe), given[key], raw)
    for annotation, section in registry.NAMED.items():
        for s in declared:
            value, names = given.get(s.name, s.default), raw.get(section) or {}
            named = {annotation: [value], f"list[{annotation}]": value}.get(s.kind)
            for name in named if isinstance(named, list) else []:
                if isinstance(name, str) and name not in names:
                    found.append(f"{where}.{s.name}: '{name}' is not in {section}; {suggest(name, names)}")
    return sorted(found)


def _block_errors(where: str, block, raw: dict) -> list[str]:
    axes = (*AXES, "seeds")
    if not isinstance(block, dict):
        return [f"{where} must be a mapping with {', '.join(axes)}, found {shown(block)}"]
    found = [f"{where}: unknown key '{key}'; {suggest(key, axes)}" for key in block if key not in axes]
    for axis in axes:
        values = block.get(axis)
        if values == "all" and axis != "seeds":
            continue
        if not isinstance(values, list) or not values:
            choice = "" if axis == "seeds" else ", or all"
            found.append(f"{where}.{axis} must be a list of at least one{choice}, found {shown(values)}")
            continue
        if axis == "seeds":
            found += [
                f"{where}.seeds: a seed is {registry.TYPES['Seed'][0]}, found {shown(v)}"
                for v in values
                if not registry.TYPES["Seed"][1](v)
            ]
            continue
        known = list(raw.get(axis) or {})  # a list, because what stands there may be anything, also unhashable
        found += [
            f"unknown {axis.removesuffix('s')} {shown(v)} in {where}; {suggest(v, known)}"
            for v in values
            if v not in known
        ]
    return found


def _cell_errors(raw: dict) -> list[str]:
    """An error for a grid, right in all else, of more cells than anyone can mean: both engines would hang."""
    axes = (*AXES, "seeds")
    blocks = raw["grid"].values()
    count = sum(math.prod(len(raw[axis] if b[axis] == "all" else b[axis]) for axis in axes) for b in blocks)
    return [f"grid has {count:,} cells; at most {MOST_CELLS:,} can be run"] if count > MOST_CELLS else []


def _resolved(declared: tuple[Setting, ...], given: dict | None) -> dict:
    return {s.name: s.resolved(given or {}) for s in declared}
