"""workflow/estimates.json: what `relearn plan --write` expects of jobs, for Snakemake to ask a cluster for. Needs no torch."""

import sys
from pathlib import Path

from relearn.errors import Fault
from relearn.params import Params
from relearn.records import read_json, settings_hash, write_json

FILE = Path("workflow/estimates.json")
KEYS = {"mem_mb", "runtime"}  # megabytes and minutes, as Snakemake calls them


def write(params: Params, jobs: dict[str, dict[str, int]]) -> None:
    """Write the estimates of jobs, by command."""
    write_json(FILE, {"of": _of(params), "jobs": jobs})


def read(params: Params) -> dict[str, dict[str, int]]:
    """The estimates by command; none, said on standard error, if they were made for other settings. Raises Fault for a broken file."""
    if not FILE.exists():
        return {}
    found = read_json(FILE)
    jobs = found.get("jobs") if isinstance(found, dict) else None
    if not isinstance(jobs, dict) or not all(map(_sound, jobs.values())):
        raise Fault(f"{FILE} is not what relearn writes there; delete it, or write it anew: relearn plan --write")
    if found.get("of") != _of(params):
        print(
            f"relearn: {FILE} is of another params.yaml and is not used; write it anew with: relearn plan --write",
            file=sys.stderr,
        )
        return {}
    return jobs


def _sound(job) -> bool:
    return (
        isinstance(job, dict) and set(job) == KEYS and all(type(value) is int and value > 0 for value in job.values())
    )


def _of(params: Params) -> str:
    """A hash of what the estimates rest on."""
    return settings_hash(
        {section: content for section, content in params.raw.items() if section not in ("tables", "figures")}
    )
