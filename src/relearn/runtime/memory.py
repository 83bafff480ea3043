"""Memory: refuse a job that cannot fit before it allocates anything, and say so when one runs out all the same."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relearn.errors import UserError

LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container or a job of a cluster
#: options of glibc's mallopt, and values to try: from which size a block comes from the system (a whole data set does,
#: the activations of a batch do not), how much free memory stays at the end of the heap, by how much the heap grows
GLIBC_OPTIONS = {-3: (2**28, 2**25), -1: (2**31 - 1,), -2: (2**26,)}
HELD = 0.5  # of the memory that one set of images may fill; a larger one stays in its file
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "unable to allocate", "invalid buffer size")


def total(device: str = "cpu") -> int:
    """Bytes of memory that the device has, or that this process may use of it at most."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = LIMIT.read_text(encoding="ascii").strip() if LIMIT.is_file() else ""
    return min(physical, int(limit)) if limit.isdecimal() else physical


def check(needed: float, what: str, remedy: str, device: str = "cpu") -> None:
    """Raises UserError when `needed` bytes, the least that `what` takes, are more than the device has."""
    bound = total(device)
    if needed > bound:
        raise UserError(f"{what} needs about {_gb(needed)} of memory, and {device} has {_gb(bound)}; {remedy}")


def holds(needed: float, device: str = "cpu") -> bool:
    """Whether `needed` bytes of images are at most half of the device's memory, so that they are kept there."""
    return needed <= HELD * total(device)


@contextmanager
def explained(command: str) -> Iterator[None]:
    """A block in which running out of memory, as Python, numpy and torch tell it, becomes a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if isinstance(error, MemoryError) or any(words in text.lower() for words in WORDS):
            raise UserError(
                f"{command} ran out of memory ({text[:160] or 'no details'}); "
                "give a smaller batch or a smaller network, or run fewer jobs at once"
            ) from None
        raise


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def keep_freed() -> None:
    """Let the C library keep freed memory for the next allocation, rather than give it back to the system.

    A training step allocates and frees the same large blocks; those that come fresh from the system are cleared page by
    page, which took up to a third of a step. Only glibc offers it; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    for option, values in GLIBC_OPTIONS.items():
        any(mallopt(option, value) for value in values)  # it takes the first that this version allows
