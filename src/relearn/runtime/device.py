"""Which device a job runs on, and the locks by which jobs side by side share out several GPUs."""

import contextlib
import functools
import os
import stat
import sys
import tempfile
import time
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from relearn.errors import UserError
from relearn.runtime import cpu

POLL_SECONDS = 1.0  # between two tries to get a GPU


def choose() -> str:
    """The device named in RELEARN_DEVICE, else a GPU when there is one, else "cpu".

    Of several GPUs it is one that no other process of this user's uses, nor gets as long as this one lives; if all are
    in use it waits. A single GPU, or one that is named ("cuda:1"), is shared. Raises UserError for an unknown device.
    """
    wanted = os.environ.get("RELEARN_DEVICE", "")
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if wanted in ("cpu", *gpus):
        return wanted
    if wanted in ("", "cuda") and (gpus or not wanted):
        return gpus[_claimed(_names(len(gpus)))[0]] if len(gpus) > 1 else gpus[0] if gpus else "cpu"
    raise UserError(f"RELEARN_DEVICE is '{wanted}', which is not here; known: {', '.join(['cpu', *gpus])}")


def precision(compute: dict, device: str) -> str:
    """The precision in which `device` computes under the settings `compute:` of params.yaml."""
    return cpu.usable_precision(compute["precision"], compute["isa"]) if device == "cpu" else compute["precision"]


def _names(count: int) -> tuple[str, ...]:
    """What the GPUs are called outside this process, which may see only some of them and counts those from 0."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(visible[:count]) if len(visible) >= count else tuple(map(str, range(count)))


def _private_folder() -> Path:
    """The folder of this user's locks, in the temporary folder that all users share; made if it is not there.

    Another user may have made it first, to have us open files of their choice. Raises UserError for one that is a link,
    belongs to someone else or lets others write.
    """
    folder = Path(tempfile.gettempdir()) / f"relearn-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise UserError(
            f"{folder}, for locks of GPUs, is not a folder that only you can write to; remove it, "
            "or set TMPDIR to a folder of your own"
        )
    return folder


@functools.cache  # asked again, the process gets its GPU again; and the cache keeps the lock alive
def _claimed(names: tuple[str, ...]) -> tuple[int, FileLock]:
    """The position of the GPU that this process has got, and its lock, which ends with the process."""
    folder = _private_folder()
    waiting = False
    while True:
        for position, name in enumerate(names):
            lock = FileLock(folder / f"gpu-{name.replace('/', '-')}.lock", fallback_to_soft=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return position, lock
        if not waiting:
            print(f"all {len(names)} GPUs are in use; waiting for one", file=sys.stderr, flush=True)
        waiting = True
        time.sleep(POLL_SECONDS)
