"""workflow/grid.yaml: the nodes of the DAG as dvc.yaml loops over them, because DVC cannot expand the grid itself."""

import hashlib
from pathlib import Path

import yaml

from relearn import grid
from relearn.errors import Fault
from relearn.params import Params
from relearn.records import write_text

FILE = Path("workflow/grid.yaml")
LOCK = Path("dvc.lock")
CACHE = Path(".dvc/cache/files/md5")
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C; a dvc.lock of 1,000 cells has 7 MB
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

# Of the steps that dvc.yaml loops over: how many dependencies and keys of params.yaml its templates have places for.
PLACES = {
    "prepare": (4, 1),
    "surrogate": (5, 4),
    "poison": (9, 3),
    "train": (6, 4),
    "evaluate": (8, 3),
    "aggregate": (2, 8),
    "tabulate": (3, 1),
    "plot": (14, 2),
}


def render(params: Params) -> str:
    """The text of workflow/grid.yaml. Raises Fault when a node has more dependencies than dvc.yaml has places for."""
    steps: dict[str, dict] = {step: {} for step in PLACES}
    for item in (item for item in grid.nodes(params) if item.step in PLACES):
        shared = str(grid.path("sources", "list", kind=item.step))
        inputs, extra = [name for name in item.inputs if name != shared], list(item.sources)
        places, keys = PLACES[item.step]
        if len(inputs) + len(extra) > places:  # too many to list: DVC watches the folders they lie in
            inputs = list(
                dict.fromkeys(
                    "/".join(name.split("/")[:2]) if name.startswith(f"{grid.RESULTS}/") else name for name in inputs
                )
            )
        steps[item.step][_key(item)] = {
            "command": item.command,
            "deps": _padded(inputs + extra, places, item),
            "reads": _padded(list(item.reads), keys, item),
            "outs": list(item.outputs),
        }
    head = "# Generated from params.yaml by: relearn grid --write. DVC cannot expand the grid itself; do not edit.\n"
    return head + yaml.dump({"steps": steps}, Dumper=Dumper, sort_keys=False, width=160)


def write(params: Params) -> None:
    """Write workflow/grid.yaml."""
    write_text(FILE, render(params))


def check_written(params: Params) -> None:
    """Raises Fault when workflow/grid.yaml, which DVC reads, is not the grid of params.yaml."""
    if not FILE.exists() or FILE.read_text(encoding="utf-8") != render(params):
        raise Fault(f"{FILE} is not the grid of params.yaml; write it with: relearn grid --write")


def name(item: grid.Node) -> str:
    """What DVC calls the node, as in `dvc repro NAME`."""
    return f"{item.step}{'@' if item.step in PLACES else '_'}{_key(item)}"


def locked() -> dict[str, dict[str, str]]:
    """The MD5 of every output that dvc.lock has, by stage and path. Raises Fault when there is no such file, or it is broken."""
    if not LOCK.exists():
        raise Fault(
            f"there is no {LOCK} here, so DVC vouches for nothing; it comes with git, from dvc repro, or from: relearn adopt --dvc"
        )
    try:
        recorded = yaml.load(LOCK.read_text(encoding="utf-8"), Loader=Loader)["stages"]
        return {
            stage: {out["path"]: out["md5"] for out in content.get("outs", [])} for stage, content in recorded.items()
        }
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        raise Fault(f"{LOCK} is not what DVC writes; bring it back with: git checkout {LOCK}") from None


def digest(path: Path, algorithm: str) -> str | None:
    """The checksum of a file's content; nothing where there is no file."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def cached(md5: str) -> Path:
    """Where DVC's cache keeps the content of this MD5, unless `cache.dir` says otherwise."""
    return CACHE / md5[:2] / md5[2:]


def _key(item: grid.Node) -> str:
    return item.argument.replace("/", "-") or "all"


def _padded(items: list[str], count: int, item: grid.Node) -> list[str]:
    """`items` filled up by repeating the last, because a DVC template has a fixed number of places."""
    if len(items) > count:
        raise Fault(
            f"{item.command} depends on {len(items)} files or keys beside its step's own, dvc.yaml has {count} places: {items}"
        )
    return items + [items[-1]] * (count - len(items))
