"""Both engines in one results/: what one made, the other takes over, and never anything stale. Needs no torch."""

import base64
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from relearn import grid
from relearn.engines import dvc
from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime import files
from relearn.runtime.hashing import file_digest, settings_hash

SNAKEMAKE = Path(".snakemake")  # where Snakemake keeps its record of every file that it made
ADOPTING = "RELEARN_ADOPTING"  # set for the Snakemake that runs for this command, so that `check_results` lets it pass
CHANGED = "not the files that DVC recorded"
OTHER_SETTINGS = "made with other settings than params.yaml now has"
OLD = 1  # seconds; Snakemake takes a file of time 0 for a missing one
MISSING = object()
RUNNING = "Snakemake is running here, or was killed; wait for it, or: snakemake --unlock"


def adopt(params: Params) -> str:
    """Let Snakemake take over what DVC has recorded, and run everything else again; returns a line per kind of result.

    A job is clean when its files, inputs, sources and settings are those of dvc.lock, its files carry the settings of
    params.yaml, and all of its inputs come from clean jobs. Raises UserError, with nothing changed, where that cannot
    be judged: without dvc.lock or an engine, or when dvc.yaml is out of date.
    """
    dvc.check_written(params)
    _check_idle()
    jobs = grid.jobs(params)
    reasons = _reasons(params, jobs)
    # first, so that a kill adopts nothing stale
    _mark_outdated([name for job in jobs if reasons[job] for name in job.outputs])
    clean = [job for job in jobs if not reasons[job]]
    if clean:
        targets = (job.outputs[0] for job in clean)
        _run("snakemake", "--cores", "1", "--touch", "--force", "--", *targets)
    left = [name for job in clean for name in job.outputs if not _snakemake_file("metadata", name).exists()]
    if left or (left := _foreign(clean)):
        raise UserError(f"{_some(left)} not adopted: another program changes results/; run again: relearn adopt")
    lines = [f"{_outputs(clean)} adopted by Snakemake"]
    for reason in dict.fromkeys(filter(None, reasons.values())):
        lines.append(f"{_outputs([job for job in jobs if reasons[job] == reason])} to run again: {reason}")
    return "\n".join(lines)


def record_in_dvc(params: Params) -> str:
    """Let DVC record a complete run of Snakemake; returns what was done, in a line.

    Raises UserError when Snakemake has a job to run, or a file is not as Snakemake left it or carries other settings.
    """
    dvc.check_written(params)
    jobs = grid.jobs(params)
    _check_copies(jobs)
    foreign = _foreign(jobs)
    if foreign:
        raise UserError(
            f"{_some(foreign)} not as Snakemake left it; take over what DVC made with: relearn adopt; "
            "or delete it and run snakemake"
        )
    if "Nothing to be done" not in _run("snakemake", "--cores", "1", "--dry-run"):
        raise UserError("Snakemake has jobs to run (snakemake -n lists them); finish them first: snakemake --cores 8")
    other = [name for job in jobs for name in job.outputs if not _has_settings(params, job, name)]
    if other:
        raise UserError(f"{_some(other)} {OTHER_SETTINGS}; delete and run: snakemake --cores 8")
    moved = [job.outputs[0] for job in jobs if job.rule == "inputs" and not _lists_inputs(params, job)]
    if moved:  # Snakemake sees that too, unless it was told not to look at `params`
        raise UserError(f"{_some(moved)} not the list of your files as they are; delete and run: snakemake --cores 8")
    times = {name: os.stat(name) for job in jobs for name in job.outputs}
    _run("dvc", "commit", "--force", "--quiet")
    for name, was in times.items():  # DVC replaces them by copies from its cache, newer than Snakemake left them
        os.utime(name, ns=(was.st_atime_ns, was.st_mtime_ns))
    return f"{_outputs(jobs)} recorded by DVC"


def check_results(jobs: list[grid.Job]) -> None:
    """Raises UserError when dvc.lock exists and Snakemake cannot say of a file in results/ what made it.

    Snakemake judges such a file by its time alone, and would take what DVC brought for the result of any settings.
    """
    foreign = _foreign(jobs) if dvc.LOCK.exists() and not adopts() else []
    if foreign:
        raise UserError(
            f"{_some(foreign)} not as Snakemake left it, as after dvc repro, pull or checkout; "
            "let it judge first: relearn adopt"
        )


def adopts() -> bool:
    """Whether this process is the Snakemake that `relearn adopt` runs."""
    return bool(os.environ.get(ADOPTING))


def _check_idle() -> None:
    """Raises UserError without Snakemake, and where one runs: its jobs would change what is judged here."""
    if not shutil.which("snakemake"):
        raise UserError(_not_installed("snakemake"))
    if any(SNAKEMAKE.glob("locks/*.lock")):
        raise UserError(RUNNING)


def _check_copies(jobs: list[grid.Job]) -> None:
    """Raises UserError where DVC makes links to its cache of results: their times are those of the cache.

    Equal files share one, and Snakemake's `--touch` and this module would change it for all, each time anew.
    """
    allowed = _run("dvc", "config", "cache.type")
    kinds = [kind for kind in ("symlink", "hardlink") if kind in allowed]
    if kinds or any(Path(name).is_symlink() for job in jobs for name in job.outputs):
        raise UserError(
            f"results are links to DVC's cache (cache.type {kinds[0] if kinds else 'was symlink'}), by whose times "
            "Snakemake cannot judge; let DVC copy: dvc config cache.type reflink,copy && dvc checkout --relink"
        )


def _reasons(params: Params, jobs: list[grid.Job]) -> dict[grid.Job, str]:
    """Why each job must run again; "" for one that is clean. The order of `jobs` has every job after its inputs."""
    recorded = dvc.read_stages()
    _check_copies(jobs)
    md5 = functools.cache(lambda name: file_digest(Path(name), "md5"))  # DVC trusts cache and times; here all is read
    reasons: dict[grid.Job, str] = {}
    stale: set[str] = set()
    for job in jobs:
        reasons[job] = _reason(params, job, recorded.get(dvc.stage_name(job)), md5)
        if reasons[job] in ("", OTHER_SETTINGS) and stale & set(job.inputs):
            reasons[job] = "made from these"
        if reasons[job]:
            stale |= set(job.outputs)
    return reasons


def _reason(params: Params, job: grid.Job, recorded: dvc.Recorded | None, md5: Callable[[str], str | None]) -> str:
    if not all(Path(output).is_file() for output in job.outputs):
        return "missing"
    if recorded is None or set(recorded.outputs) != set(job.outputs):
        return "not in dvc.lock"
    if recorded.outputs != {output: md5(output) for output in job.outputs}:
        return CHANGED
    if not dvc.is_current(job, recorded, grid.values(params, job.keys), md5):
        return "settings, sources or inputs have changed since DVC recorded them"
    if not all(_has_settings(params, job, output) for output in job.outputs):
        return OTHER_SETTINGS
    if job.rule == "inputs" and not _lists_inputs(params, job):
        return "your files have changed since DVC recorded them"
    return ""


def _lists_inputs(params: Params, job: grid.Job) -> bool:
    """Whether the list of the user's files is that of the files as they are."""
    return Path(job.outputs[0]).read_bytes() == grid.listing(params, *job.entries[0]).encode()


def _has_settings(params: Params, job: grid.Job, name: str) -> bool:
    """Whether a file carries the settings of params.yaml; true of a file that carries none."""
    carries = job.rule in ("prepare", "surrogate", "poison", "purify", "pretrain", "train", "evaluate")
    if not carries or not name.endswith((".json", ".safetensors")):
        return True
    try:
        found = (_header(name) if name.endswith(".safetensors") else files.read_json(Path(name)))["settings"]
    except (UserError, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        return False
    return settings_hash(found) == settings_hash(grid.settings(params, job.rule, **grid.parse(job.rule, job.argument)))


def _header(name: str) -> dict:
    """The facts in the header of a safetensors file: its length in eight bytes, then JSON."""
    with open(name, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(json.loads(file.read(min(length, os.path.getsize(name))))["__metadata__"]["facts"])


def _foreign(jobs: list[grid.Job]) -> list[str]:
    """Files that exist, but not as Snakemake left them: it has no record of them, or one of another time.

    `snakemake -n` does this for every file of the grid: two looks at the disk each, for those where they take long.
    """
    found = []
    running = {path for path in SNAKEMAKE.joinpath("incomplete").rglob("*") if path.is_file()}
    for name in (name for job in jobs for name in job.outputs):
        try:
            time = os.stat(name).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            continue
        if running and _snakemake_file("incomplete", name) in running:  # or killed: Snakemake knows that itself
            continue
        recorded = _endtime(_snakemake_file("metadata", name))
        if recorded is MISSING and time == OLD:  # marked by `_mark_outdated`: it will run again
            continue
        if recorded != time:
            found.append(name)
    return found


def _endtime(record: Path) -> object:
    """The time of a file as Snakemake left it; None where its record is damaged, MISSING where it has none."""
    try:
        found = json.loads(record.read_bytes())
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError, RecursionError):
        return None
    return found.get("endtime") if isinstance(found, dict) else None


def _snakemake_file(kind: str, name: str) -> Path:
    """Snakemake's own file about an output: its name is that of the output in base64, cut where it gets too long."""
    text = base64.urlsafe_b64encode(name.encode()).decode()
    *folders, last = [text[start : start + 254] for start in range(0, len(text), 254)]
    return SNAKEMAKE.joinpath(kind, *(f"@{part}" for part in folders), last)


def _mark_outdated(names: list[str]) -> None:
    """Make Snakemake run again what makes these files: without a record, and older than their sources."""
    for name in names:
        if _snakemake_file("metadata", name).exists():  # as `snakemake --cleanup-metadata` does, but in no time
            for kind in ("incomplete", "metadata"):
                _snakemake_file(kind, name).unlink(missing_ok=True)
        if Path(name).exists():
            os.utime(name, (OLD, OLD))


def _run(program: str, *arguments: str) -> str:
    """What a program prints. Raises UserError when it is not installed or fails."""
    environment = os.environ | {ADOPTING: "1"}
    try:
        done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(_not_installed(program)) from None
    if "cannot be locked" in done.stderr:
        raise UserError(RUNNING)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        reason = next((line for line in lines if "rror" in line), lines[-1])
        raise UserError(f"{program} {arguments[0]} failed: {reason}")
    return done.stdout + done.stderr if program == "snakemake" else done.stdout


def _not_installed(program: str) -> str:
    return f"{program} is not installed here, and relearn adopt needs both engines; install it with: make install"


def _outputs(jobs: list[grid.Job]) -> str:
    return f"{sum(len(job.outputs) for job in jobs)} outputs"


def _some(names: list[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more are"
