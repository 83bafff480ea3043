"""Compare the bytes of every artifact with dvc.lock, or with another clone of the project. Needs no torch."""

from collections import Counter
from pathlib import Path

from relearn import grid, params, records, stages
from relearn.errors import Fault
from relearn.params import Params

KINDS = ("equal", "different", "missing here", "missing there")


def compare(checked: Params, other: str | None) -> tuple[list[str], bool]:
    """A line per artifact of the grid, a summary, and the environments where they differ; and whether all are equal.

    Without `other` by the MD5 sums of dvc.lock, and so is what DVC's cache has of them, from where a bad file would come back
    or be pushed; else by SHA-256 with the same files below `other`. Raises Fault when there is nothing to compare with.
    """
    there = Path(other).expanduser() if other is not None else None
    if there is not None and (there / params.FILE).is_file() and there.samefile("."):
        raise Fault(f"{other} is this very folder; name another clone")
    if there is not None and not (there / params.FILE).is_file():
        raise Fault(f"{other} is no clone of the project: it has no {params.FILE}")
    recorded = stages.locked() if there is None else {}
    lines, corrupt, count, environments = [], [], Counter(), Counter()
    for item in grid.nodes(checked):
        known = recorded.get(stages.name(item), {})
        for name in item.outputs:
            theirs = known.get(name) if there is None else stages.digest(there / name, "sha256")
            kind = _kind(stages.digest(Path(name), "md5" if there is None else "sha256"), theirs)
            lines.append(f"{kind:13} {name}")
            count[kind] += 1
        if there is None:
            objects = {stages.cached(md5): md5 for md5 in known.values()}
            corrupt += [path for path, md5 in objects.items() if stages.digest(path, "md5") not in (None, md5)]
        else:
            environments[_environments(item, there)] += len(item.outputs)
    lines.append(
        ", ".join(f"{count[kind]} {kind}" for kind in KINDS)
        + f", compared with {stages.LOCK if there is None else other}"
    )
    if corrupt:
        lines += [f"{'corrupt':13} {path}" for path in dict.fromkeys(corrupt)]
        lines.append("delete these and what is different above, then: dvc pull")
    for (ours, theirs), outputs in environments.items():
        if ours != theirs:
            lines += [f"{outputs} artifacts were made in two environments:", f"  here:  {ours}", f"  there: {theirs}"]
    return lines, count["equal"] == count.total() and not corrupt


def _kind(ours: str | None, theirs: str | None) -> str:
    if ours is None or theirs is None:
        return "missing here" if ours is None else "missing there"
    return "equal" if ours == theirs else "different"


def _environments(item: grid.Node, there: Path) -> tuple[str, str]:
    """The fingerprints beside a node's outputs, here and there; two equal ones if either side has none."""
    beside = grid.beside(item.step, "run.json", **grid.coordinates(item.step, item.argument))
    if not beside.is_file() or not (there / beside).is_file():
        return "", ""
    ours, theirs = (
        # the numbers in it are seconds and memory, what is text says where it ran
        ", ".join(f"{key} {value}" for key, value in records.read_json(path).items() if isinstance(value, str))
        for path in (beside, there / beside)
    )
    return ours, theirs
