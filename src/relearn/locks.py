"""One run at a time at a job, and what a killed run of it left is cleared away."""

import contextlib
import fcntl
import os
import shutil
import signal
from pathlib import Path

from relearn.errors import Fault
from relearn.grid import Node

TRIES = 100  # a run that ends removes its lock file, and its folder if that is empty, perhaps while this one is about to lock it


@contextlib.contextmanager
def alone(node: Node):
    """Hold the lock of a job while the block runs; before it, remove the temporary files that killed runs of the job left.

    The system holds the lock, so it ends with the process, however that ends. On a file system without locks the block runs
    all the same, and nothing is removed, since it might be a living run's. Raises Fault when another run holds the lock.
    """
    first = Path(node.outputs[0])
    path = first.with_name(f".{first.name}.lock.tmp")
    # Ctrl-C waits until it is sure that the lock file will go; this holds while the process has one thread, before it loads torch
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _held(path, node) as locked:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if locked:
                _clear(node)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _held(path: Path, node: Node):
    """Whether the lock file is locked, which is there while the block runs."""
    try:
        file, locked = _hold(path)
    except BlockingIOError:
        raise Fault(f"another run of `{node.command}` is at work; wait for it, or end it and run this again") from None
    except OSError as error:
        error.filename = node.outputs[0]
        raise
    with file:
        try:
            yield locked
        finally:
            path.unlink(missing_ok=True)  # still locked: who has opened it meanwhile will see that it is gone
            with contextlib.suppress(OSError):
                os.removedirs(path.parent)  # those that have stayed empty


def _hold(path: Path):
    """The lock file, open, and whether it is locked. Raises BlockingIOError when another process holds it."""
    for _ in range(TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):  # of a file or folder just removed
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise
            except OSError:
                return file, False
            if path.exists() and os.path.samefile(path, file.fileno()):
                return file, True
            file.close()
    return open(path, "w"), False  # tells what is wrong with the path


def _clear(node: Node) -> None:
    """Remove the folders that records.atomic made for the outputs of a job and what lies beside them (grid.beside)."""
    names = (*(Path(output).name for output in node.outputs), f"{node.step}.run.json", f"{node.step}.*.safetensors")
    for name in names:
        for left in Path(node.outputs[0]).parent.glob(f".{name}.[0-9]*.tmp"):
            shutil.rmtree(left)
