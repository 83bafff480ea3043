"""How much memory is free, asked before something large is allocated."""

from pathlib import Path

from relearn.errors import UserError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # of this container, where there is one


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Raises UserError when `what` needs more bytes than are free; on a system that does not tell, nothing is checked.

    What the system allows to be allocated it may not have, and then it kills the job without a word.
    """
    free = available()
    if free is not None and needed > free:
        raise UserError(
            f"{what} needs {needed / 2**30:,.1f} GiB of memory, but {free / 2**30:,.1f} GiB are free; {remedy}"
        )


def available() -> int | None:
    """Bytes that can be allocated without swapping, by the system and by the limit of a container; None if unknown."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    try:
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(0, limit - used))
    except (OSError, ValueError):  # no container, or no limit: the word "max" stands there
        pass
    return min(found, default=None)
