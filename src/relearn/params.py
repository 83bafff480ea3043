"""params.yaml: read it, check all of it, and resolve every entry to its full settings. Needs no torch."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from relearn import registry
from relearn.errors import Fault
from relearn.registry import ArchitectureName, Count, Entry, Index, NonNegative, Positive, Setting, Share, nearest  # noqa: F401

FILE = Path("params.yaml")
NAME = re.compile(r"[a-z][a-z0-9_]*")
AXES = ("datasets", "poisons", "architectures", "methods")


@dataclass(frozen=True)
class Compute:
    """`compute:`, what bytes depend on beside the settings: CPU threads of a step, the precision of training, and CPU instructions."""

    threads: "Count" = 1
    precision: "Literal['float32', 'bfloat16']" = "float32"  # noqa: F821
    isa: "Literal['native', 'avx2', 'sse4']" = "native"  # noqa: F821


@dataclass(frozen=True)
class Recipe:
    """`train:`, the recipe every method shares: SGD with warm-up and cosine decay to 0, random crop and flip."""

    epochs: "Count" = 60
    batch: "Count" = 128
    lr: "Positive" = 0.1
    warmup_steps: "Index" = 20
    momentum: "NonNegative" = 0.9
    nesterov: "bool" = True
    weight_decay: "NonNegative" = 5e-4
    crop_pad: "Index" = 4
    flip: "bool" = True
    probe: "Count" = 2000
    checkpoint_epochs: "Count" = 5


@dataclass(frozen=True)
class Surrogate:
    """An entry of `surrogates:`, a model trained on clean images with the shared recipe, shared by the poisons that name it."""

    arch: "ArchitectureName"
    epochs: "Count | None" = None
    seed: "Index" = 0
    checkpoints: "Count" = (
        1  # how many of its training, evenly spread and the last included, attacks on an ensemble get
    )


@dataclass(frozen=True)
class Poisoning:
    """What every entry of `poisons:` may say beside the settings of its poison: the share of the images that is poisoned."""

    ratio: "Share" = 1.0


def schema(declaration: type) -> tuple[Setting, ...]:
    """The settings a dataclass declares."""
    required = dataclasses.MISSING
    fields = dataclasses.fields(declaration)
    return tuple(Setting(f.name, f.type, registry.REQUIRED if f.default is required else f.default) for f in fields)


COMMON = {"poisons": schema(Poisoning)}  # settings that all entries of a section have


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

    @property
    def architectures(self) -> dict[str, tuple[str, dict]]:
        """The registered name and the settings of every entry of `architectures:`."""
        return {
            name: (self.entry("architectures", name).name, self.settings("architectures", name))
            for name in self.names("architectures")
        }

    def names(self, section: str) -> list[str]:
        """The names in a section, in the order of the file."""
        return list(self.raw.get(section) or {})

    def entry(self, kind: str, name: str) -> Entry:
        """What the entry `name` of a section uses. Raises Fault for an unknown name."""
        return registry.entry(kind, used(name, self._raw_settings(kind, name)))

    def settings(self, kind: str, name: str) -> dict:
        """All settings of an entry. Raises Fault for an unknown name."""
        return _resolved(self._declared(kind, name) + COMMON.get(kind, ()), self._raw_settings(kind, name))

    def paths(self, kind: str, name: str) -> list[str]:
        """The user's files and folders an entry reads."""
        settings = self.settings(kind, name)
        found = [settings[s.name] for s in self.entry(kind, name).settings if s.kind == "InputPath"]
        return [str(Path(value).expanduser()) for value in found if value is not None]

    def named(self, kind: str, name: str, annotation: str) -> str | None:
        """What an entry's setting of this annotation ("ArchitectureName", "SurrogateName") says; None if it has none."""
        settings = self.settings(kind, name)
        return next((settings[s.name] for s in self._declared(kind, name) if s.kind == annotation), None)

    def _declared(self, kind: str, name: str) -> tuple[Setting, ...]:
        return schema(Surrogate) if kind == "surrogates" else self.entry(kind, name).settings

    def _raw_settings(self, kind: str, name: str) -> dict:
        section = self.raw.get(kind) or {}
        if name not in section:
            raise Fault(f"unknown {kind.removesuffix('s')} '{name}': params.yaml has none; {nearest(name, section)}")
        return section[name] or {}


def used(name: str, settings: dict) -> str:
    """The registered name an entry stands for: its `use`, else its own name."""
    return str(settings.get("use", name))


def load(path: Path = FILE) -> Params:
    """Read and check a params file. Raises Fault that lists every fault in it."""
    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)
    except FileNotFoundError:
        raise Fault(
            f"there is no {path} here; run this in the root of the project, or take one with: relearn preset quickstart"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Fault(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    found = faults(raw)
    if len(found) == 1:
        raise Fault(f"{path}: {found[0]}")
    if found:
        raise Fault(f"{path} has {len(found)} faults:\n" + "\n".join(f"  {fault}" for fault in found))
    return Params(raw)


def faults(raw) -> list[str]:
    """Everything that is wrong with the content of a params file, one line each."""
    sections = ("compute", "train", *AXES[:2], "surrogates", *AXES[2:], "grid", "tables", "figures")
    if not isinstance(raw, dict):
        return [f"must be a mapping with the sections {', '.join(sections)}, found {type(raw).__name__}"]
    found = [f"unknown section '{key}'; {nearest(key, sections)}" for key in raw if key not in sections]
    found += [f"section '{key}' is missing or empty" for key in (*AXES, "grid") if not raw.get(key)]
    wrong = [key for key in sections if not isinstance(raw.get(key) or {}, dict)]
    if wrong:
        return found + [
            f"{key} must be a mapping of names to settings, found {type(raw[key]).__name__}" for key in wrong
        ]
    found += _setting_faults("compute", schema(Compute), raw.get("compute") or {}, raw)
    found += _setting_faults("train", schema(Recipe), raw.get("train") or {}, raw)
    for name, settings in (raw.get("surrogates") or {}).items():
        found += _entry_faults("surrogates", name, settings, raw)
    for kind in registry.KINDS:
        for name, settings in (raw.get(kind) or {}).items():
            found += _entry_faults(kind, name, settings, raw)
    for name, block in (raw.get("grid") or {}).items():
        found += _block_faults(f"grid.{name}", block, raw)
    return found


def _entry_faults(kind: str, name, settings, raw: dict) -> list[str]:
    where = f"{kind}.{name}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return [f"{where}: a name is lower-case letters, digits and underscores and begins with a letter"]
    if settings is not None and not isinstance(settings, dict):
        return [f"{where} must be a mapping of settings, found {settings!r}"]
    settings = dict(settings or {})
    if kind == "surrogates":
        return _setting_faults(where, schema(Surrogate), settings, raw)
    known, uses = registry.entries(kind), used(name, settings)
    settings.pop("use", None)
    if uses not in known:
        return [f"unknown {kind.removesuffix('s')} '{uses}' in {kind}; {nearest(uses, known)}"]
    return _setting_faults(where, known[uses].settings + COMMON.get(kind, ()), settings, raw)


def _setting_faults(where: str, declared: tuple[Setting, ...], given: dict, raw: dict) -> list[str]:
    by_name = {s.name: s for s in declared}
    found = [f"{where}: unknown setting '{key}'; {nearest(key, by_name)}" for key in given if key not in by_name]
    found += [
        f"{where}: setting '{s.name}' is missing"
        for s in declared
        if s.default is registry.REQUIRED and s.name not in given
    ]
    for key in by_name.keys() & given.keys():
        fault = by_name[key].fault(given[key])
        if fault:
            found.append(f"{where}.{key}: {fault}")
    for section, annotation in (("architectures", "ArchitectureName"), ("surrogates", "SurrogateName")):
        for s in declared:
            value = given.get(s.name, s.default)
            names = raw.get(section) or {}
            if s.kind == annotation and isinstance(value, str) and value not in names:
                found.append(f"{where}.{s.name}: '{value}' is not in {section}; {nearest(value, names)}")
    return sorted(found)


def _block_faults(where: str, block, raw: dict) -> list[str]:
    axes = (*AXES, "seeds")
    if not isinstance(block, dict):
        return [f"{where} must be a mapping with {', '.join(axes)}, found {block!r}"]
    found = [f"{where}: unknown key '{key}'; {nearest(key, axes)}" for key in block if key not in axes]
    for axis in axes:
        values = block.get(axis)
        if values == "all" and axis != "seeds":
            continue
        if not isinstance(values, list) or not values:
            found.append(
                f"{where}.{axis} must be a list of at least one{'' if axis == 'seeds' else ', or all'}, found {values!r}"
            )
            continue
        if axis == "seeds":
            found += [
                f"{where}.seeds: a seed is a whole number, 0 or more, found {v!r}"
                for v in values
                if type(v) is not int or v < 0
            ]
            continue
        known = list(raw.get(axis) or {})  # a list, because what stands there may be anything, also unhashable
        found += [
            f"unknown {axis.removesuffix('s')} {v!r} in {where}; {nearest(v, known)}" for v in values if v not in known
        ]
    return found


def _resolved(declared: tuple[Setting, ...], given: dict | None) -> dict:
    return {s.name: s.resolved(given or {}) for s in declared}


class Loader(yaml.SafeLoader):
    """Safe YAML in which a repeated key is an error and 5e-4 is a number, as it is for DVC."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if repeated is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{repeated}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
