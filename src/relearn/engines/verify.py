"""Compare the bytes of every artifact with dvc.lock, or with another clone of the project. Needs no torch."""

from collections import Counter
from pathlib import Path

from relearn import grid, params
from relearn.engines import dvc
from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime import files
from relearn.runtime.hashing import file_digest
from relearn.runtime.run_report import read_report

KINDS = ("equal", "different", "missing here", "missing there")


def compare(checked: Params, other: str | None, delete: bool = False) -> tuple[list[str], bool]:
    """A line per artifact of the grid, a summary, and the environments where they differ; and whether all are equal.

    Without `other` the MD5 sums are compared with those of dvc.lock, and so are those of the objects in DVC's cache,
    from where a corrupt file would come back or be pushed. Else SHA-256 sums are compared with those of the same files
    in `other`. With `delete`, artifacts that differ from dvc.lock and corrupt objects are deleted, and nothing else.
    Raises UserError when there is nothing to compare with.
    """
    if delete and other is not None:
        raise UserError("--delete goes by dvc.lock and not by another clone; run: relearn verify --delete")
    there = None if other is None else _clone(other)
    recorded = dvc.read_lock() if there is None else {}
    lines: list[str] = []
    different: list[Path] = []
    corrupt: list[Path] = []
    count: Counter[str] = Counter()
    environments: Counter[tuple[str, str]] = Counter()
    for job in grid.jobs(checked):
        known = recorded.get(dvc.stage_name(job), {})
        for name in job.outputs:
            theirs = known.get(name) if there is None else file_digest(there / name, "sha256")
            kind = _kind(file_digest(Path(name), "md5" if there is None else "sha256"), theirs)
            lines.append(f"{kind:13} {name}")
            count[kind] += 1
            different += [Path(name)] if kind == "different" else []
        if there is None:
            objects = {dvc.cached(md5): md5 for md5 in known.values()}
            corrupt += [path for path, md5 in objects.items() if file_digest(path, "md5") not in (None, md5)]
        else:
            environments[_environments(job, there)] += len(job.outputs)
    compared = dvc.LOCK if there is None else other
    lines.append(", ".join(f"{count[kind]} {kind}" for kind in KINDS) + f", compared with {compared}")
    if corrupt:
        lines += [f"{'corrupt':13} {path}" for path in dict.fromkeys(corrupt)]
    if delete:
        deleted = dict.fromkeys([*different, *corrupt])
        for path in deleted:
            path.unlink()
        lines.append(f"deleted {len(deleted)} files that are different or corrupt; fetch them again: dvc pull")
    elif corrupt:
        lines.append("delete these and what is different above with: relearn verify --delete; then: dvc pull")
    for (ours, theirs), outputs in environments.items():
        if ours != theirs:
            lines += [f"{outputs} artifacts were made in two environments:", f"  here:  {ours}", f"  there: {theirs}"]
    return lines, count["equal"] == count.total() and not corrupt


def _clone(other: str) -> Path:
    there = files.expanded(other)
    if not (there / params.FILE).is_file():
        raise UserError(f"{other} is not a clone of the project: it has no {params.FILE}")
    if there.samefile("."):
        raise UserError(f"{other} is this very folder; name another clone")
    return there


def _kind(ours: str | None, theirs: str | None) -> str:
    if ours is None or theirs is None:
        return "missing here" if ours is None else "missing there"
    return "equal" if ours == theirs else "different"


def _environments(job: grid.Job, there: Path) -> tuple[str, str]:
    """The environments in the run reports of a job, here and there; two equal ones if either side has none of it."""
    report = Path(job.outputs[0]).with_name(f"{job.rule}.run.json")
    try:
        reports = [read_report(path) for path in (report, there / report)]
    except UserError:
        return "", ""
    # the numbers in it are seconds and memory, the texts say where the job ran
    ours, theirs = (
        ", ".join(f"{key} {value}" for key, value in found.items() if isinstance(value, str)) for found in reports
    )
    return ours, theirs
