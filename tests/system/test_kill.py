"""Killed, interrupted, out of disk, two at once: what a run leaves, and that the same command then ends in the same bytes.

Kill moments are drawn from a seeded generator, one from each equal part of the length of an undisturbed run, and written
to the end of the run. KILLS=200 asks for so many kills of each test.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib
import itertools
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
from conftest import copy_project

from relearn import checkpoint, craft, grid, locks, params, records
from relearn.__main__ import main
from relearn.errors import Fault

PARAMS = """
compute: {threads: 1, precision: float32}
train: {epochs: 16, batch: 128, lr: 0.1, crop_pad: 2, flip: false, probe: 200, checkpoint_epochs: 1}
datasets: {digits: {copies: 1}}
poisons:
  lsp: {epsilon: 6}
  em: {arch: cnn, steps: 3, rounds: 6, batches: 2, batch: 256, stop_error: null}
  tap: {surrogate: small, steps: 6, restarts: 2, batch: 128}
surrogates: {small: {arch: cnn, epochs: 1}}
architectures: {cnn: {width: 4}}
methods:
  erm: {}
  pst: {tick_steps: 15, confirm: 1, acm_trapped: 0.1, ratio_trapped: 0.1, acm_clean: 1.0}  # goes back from step 15
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
        self.fork = multiprocessing.get_context("fork").Process(target=_relearn, args=(folder, self.output, command))
        self.fork.start()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(self.fork.pid, self.fork.pid)
        return self.fork.pid

    def wait(self, until: float = 900) -> int | None:
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
        craft.KEEP_SECONDS = 0  # a poison keeps its state every 120 seconds; here whenever it could
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


def outputs(folder: Path, step: tuple[str, ...] = (), missing: bool = False) -> dict[str, str]:
    """The SHA-256 of every artifact of a job, or of the whole grid; of those that are there if some may be `missing`."""
    checked = params.load(folder / "params.yaml")
    nodes = [grid.node(checked, step[0], **grid.coordinates(*step))] if step else grid.nodes(checked)
    names = [name for item in nodes for name in item.outputs if not missing or (folder / name).exists()]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def left_over(folder: Path) -> list[str]:
    """Files under results/ that only a run in progress should have."""
    found = [path.relative_to(folder) for path in (folder / "results").rglob("*")]
    return sorted(str(path) for path in found if path.name.startswith(".") or ".checkpoint" in path.name)


def copy(folder: Path) -> Path:
    copy_project(folder)
    (folder / "params.yaml").write_text(PARAMS)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A copy in which all that the jobs of this file read is made; what they load is loaded once, before they fork."""
    for module in (
        "torch._dynamo",
        "relearn.steps.train",
        "relearn.steps.poison",
    ):  # an optimiser's first step loads the first
        importlib.import_module(module)
    folder = copy(tmp_path_factory.mktemp("base") / "project")
    for step in (("prepare", "digits"), ("surrogate", "digits/small"), ("poison", "digits/lsp")):
        ran(Job(folder, *step))
    return folder


@pytest.fixture(scope="module")
def undisturbed(base) -> tuple[dict[str, str], float]:
    """The cell's artifacts and how long its training takes."""
    seconds = timed(Job(base, *TRAIN))
    made = outputs(base, TRAIN)
    assert left_over(base) == []
    assert (
        ",stage 1," in (base / "results/runs" / CELL / "history.csv").read_text()
    )  # so kills fall on both sides of a roll-back
    shutil.rmtree(base / "results/runs")
    return made, seconds


def disturbed(start, finish, stop, count: int, seconds: float):
    """Stop a command `count` times, once in each equal part of its length, in any order; gives its number, the moment, and the process.

    Each time it goes on from where it was stopped, by `start()`. If it comes to its end before the moment, `finish(process)`
    is to look at what it made and to take it away.
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


# kill -9


def kept(folder: Path, argument: str) -> dict[str, int | None]:
    """The checkpoints of a job that a kill left, by their path, and the step of a training's."""
    names = sorted(str(path.relative_to(folder)) for path in (folder / "results").rglob("*.checkpoint*.safetensors"))
    return {
        name: checkpoint.load(folder / name, "cpu").get("step")
        for name in names
        if f"/{argument}/" in name and ".tmp/" not in name
    }


def taken_up(text: str) -> dict[str, int | None]:
    """The checkpoints a run says it goes on from, and at which step."""
    return {
        path: int(step) if step else None
        for step, path in re.findall(r": goes on from (?:step (\d+) of \d+, )?(\S+)$", text, re.MULTILINE)
    }


def torture(folder: Path, step: tuple[str, str], count: int, expected: dict[str, str], seconds: float, log) -> None:
    """Kill a job `count` times, going on each time; whenever it comes to its end, look whether it took up what was kept, and at the bytes."""
    before: dict[str, int | None] = {}  # the checkpoints that the last kill left
    ended: list[int] = []  # of the runs that came to their end, how many checkpoints they took up

    def start() -> Process:
        return Job(folder, *step)

    def finish(process: Process) -> None:
        assert process.wait() == 0, process.text()
        said = taken_up(process.text())
        assert said.items() <= before.items()
        assert not before or next(iter(before)) in said, (before, process.text())  # by name, tap's `best` is the first
        assert outputs(folder, step) == expected and left_over(folder) == []
        ended.append(len(said))
        before.clear()
        for name in expected:
            (folder / name).unlink()

    for number, moment, process in disturbed(start, finish, Process.kill, count, seconds):
        assert taken_up(process.text()).items() <= before.items()
        before.clear()
        before |= kept(folder, step[1])
        found = [f"{Path(path).name}{'' if at is None else f' of step {at}'}" for path, at in before.items()]
        unfinished = [Path(name).name for name in left_over(folder) if name.endswith(".tmp") and ".lock" not in name]
        log(f"kill {number} after {moment} left {', '.join(found + unfinished) or 'nothing'}")
    finish(Process(folder, "relearn", *step))
    log(
        f"{count} kills; {len(ended)} runs came to their end, all with the same bytes, {sum(map(bool, ended))} of them from a checkpoint"
    )
    assert any(ended)


@pytest.mark.system
def test_a_killed_cell_goes_on_and_ends_with_the_same_bytes(base, undisturbed, log):
    torture(base, TRAIN, kills(20), *undisturbed, log)


@pytest.mark.system
@pytest.mark.parametrize("poison", ["em", "tap"])
def test_a_killed_poison_goes_on_and_ends_with_the_same_bytes(poison, base, log):
    step = ("poison", f"digits/{poison}")
    seconds = timed(Job(base, *step))
    expected = outputs(base, step)
    for name in expected:
        (base / name).unlink()
    torture(base, step, kills(3), expected, seconds, log)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict[str, str], float]:
    """A copy to run Snakemake in, the artifacts it must make, and how long that takes."""
    folder = copy(tmp_path_factory.mktemp("whole") / "project")
    seconds = timed(Process(folder, *SNAKEMAKE))
    expected = outputs(folder)
    assert left_over(folder) == [] and len(expected) > 20
    clean(folder)
    return folder, expected, seconds


def clean(folder: Path) -> None:
    """`make clean`."""
    for name in ("results", ".snakemake"):
        shutil.rmtree(folder / name, ignore_errors=True)


def until_locked(folder: Path, process: Process) -> None:
    """Wait until Snakemake has taken its lock."""
    while process.wait(0) is None and not list(folder.glob(".snakemake/locks/*")):
        time.sleep(0.01)


def snakemake(folder: Path) -> Process:
    """Snakemake started; where a killed one left its lock, first what its message says."""
    if list(folder.glob(".snakemake/locks/*")):
        text = ran(Process(folder, *SNAKEMAKE), code=1)
        assert "Directory cannot be locked" in text and "--unlock" in text
        ran(Process(folder, "snakemake", "--unlock"))
    return Process(folder, *SNAKEMAKE)


def whole_grid(whole, stop, count: int):
    """As `disturbed`, for Snakemake and the whole grid, and in the end its bytes."""
    folder, expected, seconds = whole

    def finish(process: Process) -> None:
        assert process.wait() == 0, process.text()
        assert outputs(folder) == expected and left_over(folder) == []
        clean(folder)

    yield from disturbed(lambda: snakemake(folder), finish, stop, count, seconds)
    finish(snakemake(folder))


@pytest.mark.system
def test_a_killed_snakemake_goes_on_and_ends_with_the_same_bytes(whole, log):
    folder, expected, seconds = whole
    for number, moment, _ in whole_grid(whole, Process.kill, kills(3)):
        done, left = sum((folder / name).exists() for name in expected), left_over(folder)
        log(
            f"kill {number} after {moment} left {done} of {len(expected)} artifacts and {', '.join(left) or 'nothing else'}"
        )


# Ctrl-C


def test_an_interrupted_job_says_so_and_goes_on(base, undisturbed, log):
    expected, seconds = undisturbed

    def finish(process: Process) -> None:
        ran(process)
        assert outputs(base, TRAIN) == expected and left_over(base) == []
        shutil.rmtree(base / "results/runs")

    for number, moment, process in disturbed(
        lambda: Job(base, *TRAIN), finish, lambda process: process.send(signal.SIGINT), 3, seconds
    ):
        assert ran(process, code=130).splitlines()[-1] == "relearn: interrupted"
        assert all(name.endswith("train.checkpoint.safetensors") for name in left_over(base))
        log(f"Ctrl-C {number} after {moment} left {', '.join(map(os.path.basename, left_over(base))) or 'nothing'}")
    finish(Job(base, *TRAIN))


def test_an_interrupted_start_says_so_too(base, log):
    """While torch is being loaded, as the user runs it."""
    process = Process(base, "relearn", *TRAIN)
    lock = (base / "results/runs" / CELL / ".model.safetensors.lock.tmp").exists
    while not lock():
        assert process.wait(0) is None, process.text()
    process.send(signal.SIGINT)
    assert ran(process, code=130) == "relearn: interrupted\n"
    assert not (base / "results/runs").exists()


def test_an_interrupt_while_the_job_is_being_locked_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold = locks._hold

    def interrupted(path: Path):
        held = hold(path)
        signal.pthread_kill(
            threading.get_ident(), signal.SIGINT
        )  # a job has one thread as yet; the process of the tests has more
        return held

    monkeypatch.setattr(locks, "_hold", interrupted)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # tests in the background of a shell begin with it ignored
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            locks.alone(grid.Node("tabulate", "t", (), (), (), ("results/tables/t.csv",))),
        ):
            pytest.fail("the job began")
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


@pytest.mark.system
def test_an_interrupted_snakemake_goes_on(whole, log):
    folder = whole[0]

    def interrupt(process: Process) -> None:
        until_locked(folder, process)  # while Python loads Snakemake, a traceback of theirs
        process.send(signal.SIGINT)

    for number, moment, process in whole_grid(whole, interrupt, 1):
        assert "Terminating processes on user request" in ran(process, code=1)
        assert all(name.endswith("train.checkpoint.safetensors") for name in left_over(folder))
        assert not list(folder.glob(".snakemake/locks/*"))
        log(f"Ctrl-C {number} after {moment}")


# A full disk, and one that cannot be written


@pytest.fixture
def disk(base, tmp_path):
    """A copy with what the jobs read whose results/ is a file system of 16 MB in memory; a function that leaves so many bytes free of it."""
    folder = copy(tmp_path / "project")
    results = folder / "results"
    results.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", results], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        shutil.copytree(base / "results", results, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
        yield folder
    finally:
        subprocess.run(["umount", "-l", results], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file that takes all room but so many bytes."""
    filler = folder / "results/filler"
    free = os.statvfs(folder / "results")
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)
    return filler


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "results").rglob("*") if path.is_file())


FULL = {  # what runs, the bytes that are free, and the file that does not fit any more
    "split": (("prepare", "digits"), 5 << 20, "results/data/digits/test.safetensors"),
    "checkpoint": (TRAIN, 16 << 10, "results/runs/digits/lsp/cnn/pst/0/train.checkpoint.safetensors"),
    "table": (("tabulate", "accuracy"), 0, "results/tables/accuracy.csv"),
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_is_one_line(what, disk, base, undisturbed):
    step, leave, file = FULL[what]
    if what == "split":
        shutil.rmtree(disk / "results/data")
    if what == "table":
        (disk / "results/summary").mkdir()
        (disk / "results/summary/records.csv").write_text(RECORDS)
    before = files(disk)
    filler = fill(disk, leave)
    text = ran(Job(disk, *step), code=1)
    assert text == f"relearn: No space left on device: {file}; make room, then run the same again\n"
    filler.unlink()
    written = set(files(disk)) - set(before)
    assert written <= set(outputs(disk, step, missing=True)) and left_over(disk) == []
    ran(Job(disk, *step))
    assert left_over(disk) == []
    expected = {"split": lambda: outputs(base, step), "checkpoint": lambda: undisturbed[0]}
    if what in expected:
        assert outputs(disk, step) == expected[what]()


RECORDS = """dataset,poison,arch,method,seed,method_use,accuracy,oracle_accuracy,oracle_epoch,passes,acm,ratio,trapped
digits,lsp,cnn,erm,0,erm,50.000000,50.000000,1,1.000000,0.400000,0.800000,False
digits,lsp,cnn,pst,0,pst,60.000000,60.000000,1,1.000000,0.400000,0.800000,False
"""


@pytest.mark.system
def test_a_full_disk_stops_snakemake_and_room_lets_it_go_on(disk, whole):
    shutil.rmtree(disk / "results/data")
    filler = fill(disk, 5 << 20)
    text = ran(Process(disk, *SNAKEMAKE), code=1)
    assert (
        "relearn: No space left on device: results/data/digits/test.safetensors; make room, then run the same again"
        in text
    )
    filler.unlink()
    assert left_over(disk) == []
    ran(Process(disk, *SNAKEMAKE))
    assert outputs(disk) == whole[1]


def test_a_disk_that_cannot_be_written_is_one_line(disk):
    before = files(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk / "results"], check=True)
    for step, output in ((TRAIN, f"runs/{CELL}/model"), (("poison", "digits/lsp"), "poisons/digits/lsp/train")):
        assert ran(Job(disk, *step), code=1) == f"relearn: Read-only file system: results/{output}.safetensors\n"
    assert files(disk) == before


# Two at once


def test_of_runs_of_one_job_at_once_all_but_one_are_refused(base, undisturbed):
    runs = [Job(base, *TRAIN) for _ in range(3)]
    codes = sorted(run.wait() for run in runs)
    assert codes in ([0, 2, 2], [0, 0, 2])  # the second where the last began when the first had ended
    refused = f"relearn: another run of `relearn train {CELL}` is at work; wait for it, or end it and run this again\n"
    assert all(run.text() == refused for run in runs if run.wait() == 2)
    assert outputs(base, TRAIN) == undisturbed[0] and left_over(base) == []
    shutil.rmtree(base / "results/runs")


@pytest.mark.system
def test_of_two_snakemakes_at_once_one_is_refused(whole):
    folder, expected, _ = whole
    first = Process(folder, *SNAKEMAKE)
    until_locked(folder, first)
    assert "Directory cannot be locked" in ran(Process(folder, *SNAKEMAKE), code=1)
    ran(first)
    assert outputs(folder) == expected and left_over(folder) == []
    clean(folder)


# What the lock of a job lets in, and what is cleared away


@pytest.fixture
def job(tmp_path, monkeypatch) -> grid.Node:
    """A job in an empty folder; its outputs are results/a.csv and results/b.csv."""
    monkeypatch.chdir(tmp_path)
    return grid.Node("train", "somewhere", (), (), (), ("results/a.csv", "results/b.csv"))


LEFT = (".a.csv.12.tmp", ".b.csv.7.tmp", ".train.run.json.12.tmp", ".train.checkpoint.safetensors.12.tmp")
OTHERS = (".ab.csv.12.tmp", ".c.csv.12.tmp", "a.csv", "train.checkpoint.safetensors")


def strew() -> None:
    for name in LEFT:
        Path("results", name).mkdir(parents=True)
        Path("results", name, "half").write_text("written")
    for name in OTHERS:
        Path("results", name).touch()


def there() -> set[str]:
    return {path.name for path in Path("results").iterdir()}


def test_what_killed_runs_left_is_cleared_away(job):
    strew()
    with locks.alone(job):
        assert there() == {*OTHERS, ".a.csv.lock.tmp"}
    assert there() == {*OTHERS}


def test_what_a_living_run_writes_is_left_alone(job):
    with locks.alone(job):
        strew()
        with pytest.raises(Fault, match="another run of `relearn train somewhere` is at work; wait for it, or end it"):
            with locks.alone(job):
                pytest.fail("two runs at once")
        assert there() == {*LEFT, *OTHERS, ".a.csv.lock.tmp"}
    with pytest.raises(ZeroDivisionError), locks.alone(job):
        raise ZeroDivisionError
    with locks.alone(job):
        pass  # neither the end of a run nor its failure keeps the lock


def test_without_locks_every_run_goes_on_and_clears_nothing(job, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    strew()
    with locks.alone(job), locks.alone(job):
        assert {*LEFT, *OTHERS} <= there()
    assert there() == {*LEFT, *OTHERS}


CROWD = """
import os, sys
from relearn import grid, locks
from relearn.errors import Fault
job = grid.Node("train", "somewhere", (), (), (), ("results/a.csv",))
turns = 0
while turns < 100:
    try:
        with locks.alone(job):
            os.close(os.open("inside", os.O_CREAT | os.O_EXCL))
            os.remove("inside")
            turns += 1
    except Fault:
        pass
"""


def test_of_a_crowd_one_at_a_time_gets_in(tmp_path):
    env = os.environ | {"PYTHONPATH": str(Path(grid.__file__).parents[1])}
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD], cwd=tmp_path, env=env) for _ in range(4)]
    assert [process.wait(120) for process in crowd] == [0] * 4
    assert list(tmp_path.iterdir()) == []


def test_trouble_while_writing_names_the_file_and_leaves_nothing(tmp_path):
    for trouble, named in (
        (OSError(errno.ENOSPC, "full"), tmp_path / "a"),
        (OSError(errno.EIO, "broken", "elsewhere"), "elsewhere"),
    ):
        with pytest.raises(OSError) as caught, records.atomic(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise trouble
        assert caught.value.filename == str(named) and list(tmp_path.iterdir()) == []
