"""Which runs the lock of a job lets in, and what is removed before one begins."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from helpers.projects import ROOT
from relearn import grid
from relearn.engines import locks
from relearn.errors import UserError


@pytest.fixture
def job(tmp_path, monkeypatch) -> grid.Job:
    """A job in an empty folder; its outputs are a.csv and b.csv in results/runs."""
    monkeypatch.chdir(tmp_path)
    return grid.Job("train", "somewhere", (), (), (), ("results/runs/a.csv", "results/runs/b.csv"))


LOCK = "results/locks/train/somewhere.lock"
LEFT = (".a.csv.12.tmp", ".b.csv.7.tmp", ".train.run.json.12.tmp", ".train.checkpoint.safetensors.12.tmp")
OTHERS = (".ab.csv.12.tmp", ".c.csv.12.tmp", "a.csv", "train.checkpoint.safetensors")


def litter() -> None:
    """Leave temporary folders of killed runs of the job, and files that are none."""
    for name in LEFT:
        Path("results/runs", name).mkdir(parents=True)
        Path("results/runs", name, "half").write_text("written")
    for name in OTHERS:
        Path("results/runs", name).touch()


def found() -> set[str]:
    """The names beside the outputs."""
    return {path.name for path in Path("results/runs").iterdir()}


def files() -> list[str]:
    """Every file in the folder; a lock file stays, since removing one could take it from a run about to lock it."""
    return [str(path) for path in Path().rglob("*") if path.is_file() and path.parent != Path("results/runs")]


def test_what_killed_runs_left_is_removed(job):
    litter()
    with locks.exclusive(job):
        assert found() == {*OTHERS}
    assert found() == {*OTHERS}


def test_what_a_run_in_progress_writes_is_left_alone(job):
    with locks.exclusive(job):
        litter()
        message = (
            "another run of `relearn train somewhere` is already running; wait for it, or stop it and run this again"
        )
        with pytest.raises(UserError, match=message), locks.exclusive(job):
            pytest.fail("two runs at once")
        assert found() == {*LEFT, *OTHERS}
    with pytest.raises(ZeroDivisionError), locks.exclusive(job):
        raise ZeroDivisionError
    with locks.exclusive(job):
        assert found() == {*OTHERS}  # neither the end of a run nor its failure keeps the lock
    assert files() == [LOCK]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_on_a_file_system_without_locks_every_run_begins_and_removes_nothing(number, job, monkeypatch):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    litter()
    with locks.exclusive(job), locks.exclusive(job):
        assert {*LEFT, *OTHERS} <= found()
    assert found() == {*LEFT, *OTHERS}


def test_trouble_with_the_disk_names_an_output(job, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError) as caught, locks.exclusive(job):
        pytest.fail("the job began")
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, "results/runs/a.csv")


def test_an_interrupt_while_the_job_is_being_locked_leaves_the_lock_free(job, monkeypatch):
    acquire = locks._acquire

    def interrupted(*given):
        acquired = acquire(*given)
        # a job has one thread as yet; the process of the tests has more
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        return acquired

    # tests in the background of a shell begin with it ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(locks, "_acquire", interrupted)
            with pytest.raises(KeyboardInterrupt), locks.exclusive(job):
                pytest.fail("the job began")
    finally:
        signal.signal(signal.SIGINT, before)
    assert files() == [LOCK]
    with locks.exclusive(job):
        pass


CROWD = """
import os, sys
from relearn import grid
from relearn.engines import locks
from relearn.errors import UserError
job = grid.Job("train", "somewhere", (), (), (), ("results/a.csv",))
turns = 0
while turns < 100:
    try:
        with locks.exclusive(job):
            os.close(os.open("inside", os.O_CREAT | os.O_EXCL))
            os.remove("inside")
            turns += 1
    except UserError:
        pass
"""


def test_of_a_crowd_one_at_a_time_gets_in(tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD], cwd=tmp_path, env=env) for _ in range(4)]
    assert [process.wait(120) for process in crowd] == [0] * 4
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / LOCK]
