"""Commands to kill and to interrupt, each in a process group of its own, and what they leave.

Kill moments are drawn from a seeded generator, one from each equal part of the length of an undisturbed run, and
written to the end of the run. KILLS=200 asks for so many kills of each test.
"""

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.projects import copy_project, link_sources
from relearn import grid, params
from relearn.__main__ import main
from relearn.crafting import craft
from relearn.engines import locks

PARAMS = """
compute: {threads: 1, precision: float32}
train: {epochs: 16, batch: 128, crop_pad: 2, flip: false, probe_size: 200, warmup_steps: 5, checkpoint_epochs: 1}
datasets: {digits: {copies: 1}}
poisons:
  lsp: {epsilon: 6}
  em: {arch: cnn, steps: 3, rounds: 6, batches: 2, batch: 256, stop_error: null}
  tap: {surrogate: small, steps: 6, restarts: 2, batch: 128}
surrogates: {small: {arch: cnn, epochs: 1}}
architectures: {cnn: {width: 4}}
methods:
  erm: {}
  pst: {probe_steps: 15, confirm: 1, kept_trapped: 1000000}  # goes back from step 15
grid:
  main: {datasets: [digits], poisons: [lsp], architectures: [cnn], methods: [erm, pst], seeds: [0]}
tables: {accuracy: {}}
"""
CELL = "digits/lsp/cnn/pst/0"
TRAIN = ("train", CELL)
NUMBERS = itertools.count()
SNAKEMAKE = ("snakemake", "--cores", "2", "--quiet", "rules")


def kills(default: int) -> int:
    """How many kills a test makes."""
    return int(os.environ.get("KILLS", default))


def environment(folder: Path) -> dict:
    """Where commands of the copy's own sources run."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(folder / "src"), "PATH": path, "RELEARN_DEVICE": "cpu"}


class Process:
    """A command in a process group of its own."""

    def __init__(self, folder: Path, *command: str):
        self.output = folder.with_name(f"output{next(NUMBERS)}.txt")
        self.output.touch()
        self.begin = time.monotonic()
        self.pid = self.start(folder, command)

    def start(self, folder: Path, command: tuple[str, ...]) -> int:
        """Start it; the number of its group."""
        with open(self.output, "w") as file:
            how = {"cwd": folder, "env": environment(folder), "stdout": file, "stderr": file, "start_new_session": True}
            self.popen = subprocess.Popen(command, preexec_fn=_listen, **how)
        return self.popen.pid

    def wait(self, until: float = 900) -> int | None:
        """The exit code, None if it still runs so many seconds after it began."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.popen.wait(max(0.0, until - (time.monotonic() - self.begin)))

    def send(self, number: int) -> None:
        """A signal to the whole group, as a terminal sends it."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        """kill -9 of the whole group; back when all of it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        self.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):  # children that are not ours to wait for
            for _ in range(500):
                os.killpg(self.pid, 0)
                time.sleep(0.01)

    def text(self) -> str:
        """All it has said."""
        return self.output.read_text()


class Job(Process):
    """`relearn ...` as a fork of this process, which has torch loaded: the kills fall on the work, not on the start."""

    def start(self, folder: Path, command: tuple[str, ...]) -> int:
        """Start it; the number of its group."""
        self.fork = multiprocessing.get_context("fork").Process(target=_relearn, args=(folder, self.output, command))
        self.fork.start()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(self.fork.pid, self.fork.pid)
        return self.fork.pid

    def wait(self, until: float = 900) -> int | None:
        """The exit code, None if it still runs so many seconds after it began."""
        self.fork.join(max(0.0, until - (time.monotonic() - self.begin)))
        return self.fork.exitcode


def _listen() -> None:
    """To Ctrl-C, as in a terminal; a shell starts what it runs in the background deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _relearn(folder: Path, output: Path, arguments: tuple[str, ...]) -> None:
    with open(output, "w", buffering=1) as sys.stderr:
        sys.stdout = sys.stderr
        _listen()
        os.chdir(folder)
        os.environ["RELEARN_DEVICE"] = "cpu"
        craft.CHECKPOINT_SECONDS = 0  # a poison writes a checkpoint every 120 seconds; here whenever it could
        try:
            code = main(list(arguments))
        except BaseException:
            traceback.print_exc()
            code = 1
    os._exit(code)


def ran(process: Process, code: int = 0) -> str:
    """What a process has said at its end; it must end with `code` and without a traceback."""
    assert process.wait() == code and "Traceback" not in process.text(), process.text()
    return process.text()


def timed(process: Process) -> float:
    """The seconds it takes."""
    ran(process)
    return time.monotonic() - process.begin


def outputs(folder: Path, command: tuple[str, str] | None = None, missing: bool = False) -> dict[str, str]:
    """The SHA-256 of every artifact of a job or of the whole grid; of those that are there if some may be `missing`."""
    checked = params.load(folder / "params.yaml")
    jobs = [grid.job(checked, *command)] if command else grid.jobs(checked)
    names = [name for job in jobs for name in job.outputs if not missing or (folder / name).exists()]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def left_over(folder: Path) -> list[str]:
    """Files under results/ that only a run in progress should have, and the locks that are held."""
    found = [path.relative_to(folder) for path in (folder / "results").rglob("*")]
    beside = [path for path in found if path.name.startswith(".") or ".checkpoint" in path.name]
    beside += [path for path in found if path.suffix == ".lock" and not path.is_relative_to(locks.FOLDER)]
    return sorted(map(str, [*beside, *held(folder)]))


def held(folder: Path) -> list[Path]:
    """The lock files of jobs that a run still holds; the others stay where they are and bar no one."""
    return [path.relative_to(folder) for path in (folder / locks.FOLDER).rglob("*.lock") if not is_free(path)]


def is_free(path: Path) -> bool:
    """Whether a lock file could be locked now."""
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def small_project(folder: Path) -> Path:
    """A copy of the project with PARAMS as its params.yaml."""
    copy_project(folder)
    link_sources(folder)
    (folder / "params.yaml").write_text(PARAMS)
    return folder


def disturbed(start, finish, stop, count: int, seconds: float):
    """Stop a command `count` times, once in each equal part of its length, in any order.

    Gives the number, the moment, and the process. Each time it goes on from where it was stopped, by `start()`. If it
    comes to its end before the moment, `finish(process)` is to look at what it made and to take it away.
    """
    draws = random.Random(f"{count} kills")
    shares = [(part + draws.random()) / count for part in range(count)]
    draws.shuffle(shares)
    for number, share in enumerate(shares, 1):
        process, whole = start(), False
        while process.wait(share * seconds) is not None:
            if whole:  # from the beginning to the end: the machine is faster now
                seconds = time.monotonic() - process.begin
            finish(process)
            process, whole = start(), True
        stop(process)
        yield number, f"{share * seconds:.2f} of {seconds:.2f} s", process


def fill(folder: Path, leave: int) -> Path:
    """A file that takes all room but so many bytes."""
    filler = folder / "results/filler"
    free = os.statvfs(folder / "results")
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)
    return filler
