"""Both engines over one results/: what one made, the other takes over, and never anything stale. Needs no torch."""

import base64
import json
import os
import subprocess
from pathlib import Path

from relearn import grid, records, stages
from relearn.errors import Fault
from relearn.params import Params

MEMORY = Path(".snakemake")  # where Snakemake keeps its record of every file it made
ADOPTING = "RELEARN_ADOPTING"  # set for the Snakemake that runs below this command, so that `check` lets it pass
CHANGED = "not the files DVC recorded"
OLD = 1  # seconds; Snakemake takes a file of time 0 for a missing one


def take(params: Params) -> str:
    """Let Snakemake take over what DVC calls clean, and make it run everything else again; what was done, a line per kind.

    Clean is a node whose files, inputs, sources and settings are those of dvc.lock, whose files carry the settings of
    params.yaml, and all of whose inputs come from clean nodes. Raises Fault, with nothing changed, where that cannot be
    judged: without dvc.lock or an engine, or when workflow/grid.yaml is out of date.
    """
    stages.check_written(params)
    nodes = grid.nodes(params)
    reasons = _judged(params, nodes)
    _forget(
        [name for item in nodes if reasons[item] for name in item.outputs]
    )  # first, so that a kill adopts nothing stale
    clean = [item for item in nodes if not reasons[item]]
    if clean:
        _snakemake("--cores", "1", "--quiet", "all", "--touch", "--force", "--", *(item.outputs[0] for item in clean))
    lines = [f"{_outputs(clean)} adopted by Snakemake"]
    for reason in dict.fromkeys(filter(None, reasons.values())):
        lines.append(f"{_outputs([item for item in nodes if reasons[item] == reason])} to run again: {reason}")
    return "\n".join(lines)


def give(params: Params) -> str:
    """Let DVC record a complete run of Snakemake; what was done, in a line.

    Raises Fault when Snakemake has something to do, when a file is not as Snakemake left it, or carries other settings.
    """
    stages.check_written(params)
    nodes = grid.nodes(params)
    foreign = _foreign(nodes)
    if foreign:
        raise Fault(
            f"{_some(foreign)} not as Snakemake left it; take over what DVC made with: relearn adopt; or delete it and run snakemake"
        )
    if "Nothing to be done" not in _snakemake("--cores", "1", "--dry-run"):
        raise Fault("Snakemake has jobs to run (snakemake -n lists them); finish them first: snakemake --cores 8")
    other = [name for item in nodes for name in item.outputs if not _carries(params, item, name)]
    if other:
        raise Fault(
            f"{_some(other)} made with other settings than params.yaml now has; delete and run: snakemake --cores 8"
        )
    times = {name: os.stat(name) for item in nodes for name in item.outputs}
    _run("dvc", "commit", "--force", "--quiet")
    for name, was in times.items():  # DVC puts copies from its cache in their place, newer than Snakemake left them
        os.utime(name, ns=(was.st_atime_ns, was.st_mtime_ns))
    return f"{_outputs(nodes)} recorded by DVC"


def check(nodes: list[grid.Node]) -> None:
    """Raises Fault when dvc.lock is here and Snakemake cannot say of a file in results/ what made it.

    Snakemake judges such a file by its time alone, and would take what DVC brought for the result of any settings.
    """
    foreign = _foreign(nodes) if stages.LOCK.exists() and not os.environ.get(ADOPTING) else []
    if foreign:
        raise Fault(
            f"{_some(foreign)} not as Snakemake left it, as after dvc repro, pull or checkout; let it judge first: relearn adopt"
        )


def _judged(params: Params, nodes: list[grid.Node]) -> dict[grid.Node, str]:
    """Why each node must run again; nothing for one that is clean. The order of `nodes` has every node after its inputs."""
    recorded = stages.locked()
    status = json.loads(_run("dvc", "status", "--json").strip().splitlines()[-1])
    reasons, stale = {}, set()
    for item in nodes:
        reasons[item] = _reason(params, item, recorded, status) or (
            "made from these" if stale & set(item.inputs) else ""
        )
        if reasons[item]:
            stale |= set(item.outputs)
    return reasons


def _reason(params: Params, item: grid.Node, recorded: dict, status: dict) -> str:
    name = stages.name(item)
    if not all(Path(output).is_file() for output in item.outputs):
        return "missing"
    if set(recorded.get(name, {})) != set(item.outputs):
        return "not in dvc.lock"
    if name in status:
        outputs = any("changed outs" in entry for entry in status[name] if isinstance(entry, dict))
        return CHANGED if outputs else "settings, sources or inputs have changed since DVC recorded them"
    if any(stages.digest(Path(output), "md5") != md5 for output, md5 in recorded[name].items()):
        return CHANGED  # by DVC clean: it does not hash what it put there itself, and trusts its cache and most remotes
    if not all(_carries(params, item, output) for output in item.outputs):
        return "made with other settings than params.yaml now has"
    return ""


def _carries(params: Params, item: grid.Node, name: str) -> bool:
    """Whether a file carries the settings of params.yaml; true of a file that carries none."""
    if item.step not in ("prepare", "surrogate", "poison", "train", "evaluate") or not name.endswith(
        (".json", ".safetensors")
    ):
        return True
    try:
        carried = (_header(name) if name.endswith(".safetensors") else records.read_json(name))["settings"]
    except (Fault, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        return False
    step = "train" if item.step == "evaluate" else item.step
    return records.settings_hash(carried) == records.settings_hash(
        grid.settings(params, step, **grid.coordinates(item.step, item.argument))
    )


def _header(name: str) -> dict:
    """The facts in the header of a safetensors file: its length in eight bytes, then JSON."""
    with open(name, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(json.loads(file.read(min(length, os.path.getsize(name))))["__metadata__"]["facts"])


def _foreign(nodes: list[grid.Node]) -> list[str]:
    """Files that are there, but not as Snakemake left them: it has no record of them, or one of another time."""
    found = []
    for name in (name for item in nodes for name in item.outputs if Path(name).exists()):
        if _memory("incomplete", name).exists():  # of a job that runs or was killed: Snakemake knows that itself
            continue
        record = _memory("metadata", name)
        if not record.exists() and os.stat(name).st_mtime == OLD:  # marked by `_forget`: it will run again
            continue
        if not record.exists() or records.read_json(record).get("endtime") != os.stat(name).st_mtime:
            found.append(name)
    return found


def _memory(kind: str, name: str) -> Path:
    """Snakemake's own file about an output: its name is that of the output in base64, cut where a file name gets too long."""
    text = base64.urlsafe_b64encode(name.encode()).decode()
    *folders, last = [text[start : start + 254] for start in range(0, len(text), 254)]
    return MEMORY.joinpath(kind, *(f"@{part}" for part in folders), last)


def _forget(names: list[str]) -> None:
    """Make Snakemake run again what makes these files: without a record and old, they are older than their sources."""
    there = [name for name in names if Path(name).exists()]
    known = [name for name in names if _memory("metadata", name).exists()]
    if known:
        _snakemake("--cores", "1", "--quiet", "all", "--cleanup-metadata", *known)
    for name in there:
        os.utime(name, (OLD, OLD))


def _snakemake(*arguments: str) -> str:
    return _run("snakemake", *arguments)


def _run(program: str, *arguments: str) -> str:
    """What a program prints. Raises Fault when it is not installed or fails."""
    try:
        done = subprocess.run([program, *arguments], env=os.environ | {ADOPTING: "1"}, capture_output=True, text=True)
    except FileNotFoundError:
        raise Fault(
            f"{program} is not installed here, and relearn adopt needs both engines; install it with: make install"
        ) from None
    if "cannot be locked" in done.stderr:
        raise Fault("Snakemake is running here, or was killed; wait for it, or: snakemake --unlock")
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise Fault(f"{program} {arguments[0]} failed: {next((line for line in said if 'rror' in line), said[-1])}")
    return done.stdout + done.stderr if program == "snakemake" else done.stdout


def _outputs(nodes: list[grid.Node]) -> str:
    return f"{sum(len(item.outputs) for item in nodes)} outputs"


def _some(names: list[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more are"
