"""workflow/estimates.json: the time and memory that Snakemake asks a cluster for. Needs no torch."""

import sys
from pathlib import Path

from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime.files import read_json, write_json
from relearn.runtime.hashing import settings_hash

FILE = Path("workflow/estimates.json")
KEYS = {"mem_mb", "runtime"}  # megabytes and minutes, as Snakemake calls them


def write(params: Params, jobs: dict[str, dict[str, int]]) -> None:
    """Write the estimates of jobs, by command."""
    write_json(FILE, {"of": _hash(params), "jobs": jobs})


def read(params: Params) -> dict[str, dict[str, int]]:
    """The estimates by command; none, said on standard error, if they were made for other settings.

    Raises UserError for a corrupt file.
    """
    if not FILE.exists():
        return {}
    found = read_json(FILE)
    jobs = found.get("jobs") if isinstance(found, dict) else None
    if not isinstance(jobs, dict) or not all(map(_is_estimate, jobs.values())):
        raise UserError(f"{FILE} is not what relearn writes there; delete it, or write it again: relearn plan --write")
    if found.get("of") != _hash(params):
        print(
            f"relearn: {FILE} was made for another params.yaml and is not used; "
            "write it again with: relearn plan --write",
            file=sys.stderr,
        )
        return {}
    return jobs


def _is_estimate(value: object) -> bool:
    return isinstance(value, dict) and set(value) == KEYS and all(type(v) is int and v > 0 for v in value.values())


def _hash(params: Params) -> str:
    """A hash of the settings on which the estimates rest."""
    return settings_hash({name: content for name, content in params.raw.items() if name not in ("tables", "figures")})
