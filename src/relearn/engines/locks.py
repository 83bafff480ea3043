"""One run of a job at a time; what a killed run of it left behind is removed."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from relearn.errors import UserError
from relearn.grid import RESULTS, Job

FOLDER = Path(RESULTS, "locks")  # lock files stay there: removing one could take it from a run that is about to lock it
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what a file system without locks answers


@contextlib.contextmanager
def exclusive(job: Job) -> Iterator[None]:
    """Hold the lock of a job while the block runs; before it, remove temporary files that killed runs of the job left.

    The system holds the lock, so it ends with the process, however that ends. On a file system without locks the block
    runs without one, and nothing is removed, since it could belong to a run in progress. Raises UserError when another
    run holds the lock.
    """
    lock = FileLock(FOLDER / job.rule / f"{job.argument.replace('/', '-') or 'all'}.lock", fallback_to_soft=False)
    try:
        if _acquire(lock, job):
            _remove_leftovers(job)
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, job: Job) -> bool:
    """Whether the lock could be taken; False on a file system without locks."""
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another run of `{job.command}` is already running; wait for it, or stop it and run this again"
        ) from None
    except NotImplementedError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        error.filename = job.outputs[0]
        raise
    return True


def _remove_leftovers(job: Job) -> None:
    """Remove the folders that files.atomic made for the outputs of a job and the files beside them (grid.sidecar)."""
    names = (*(Path(output).name for output in job.outputs), f"{job.rule}.run.json", f"{job.rule}.*.safetensors")
    for name in names:
        for folder in Path(job.outputs[0]).parent.glob(f".{name}.[0-9]*.tmp"):
            shutil.rmtree(folder)
