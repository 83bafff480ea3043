"""What the lock of a job lets in, and what is cleared away."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from relearn import grid
from relearn.engines import locks
from relearn.errors import UserError


@pytest.fixture
def job(tmp_path, monkeypatch) -> grid.Job:
    """A job in an empty folder; its outputs are results/a.csv and results/b.csv."""
    monkeypatch.chdir(tmp_path)
    return grid.Job("train", "somewhere", (), (), (), ("results/a.csv", "results/b.csv"))


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
    with locks.exclusive(job):
        assert there() == {*OTHERS, ".a.csv.lock.tmp"}
    assert there() == {*OTHERS}


def test_what_a_living_run_writes_is_left_alone(job):
    with locks.exclusive(job):
        strew()
        with pytest.raises(UserError, match="another run of `relearn train somewhere` is at work; wait for it, or end it"):
            with locks.exclusive(job):
                pytest.fail("two runs at once")
        assert there() == {*LEFT, *OTHERS, ".a.csv.lock.tmp"}
    with pytest.raises(ZeroDivisionError), locks.exclusive(job):
        raise ZeroDivisionError
    with locks.exclusive(job):
        pass  # neither the end of a run nor its failure keeps the lock


def test_without_locks_every_run_goes_on_and_clears_nothing(job, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    strew()
    with locks.exclusive(job), locks.exclusive(job):
        assert {*LEFT, *OTHERS} <= there()
    assert there() == {*LEFT, *OTHERS}


def test_an_interrupt_while_the_job_is_being_locked_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hold = locks._hold

    def interrupted(path: Path):
        held = hold(path)
        # a job has one thread as yet; the process of the tests has more
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        return held

    monkeypatch.setattr(locks, "_hold", interrupted)
    # tests in the background of a shell begin with it ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            locks.exclusive(grid.Job("tabulate", "t", (), (), (), ("results/tables/t.csv",))),
        ):
            pytest.fail("the job began")
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


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
    env = os.environ | {"PYTHONPATH": str(Path(grid.__file__).parents[1])}
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD], cwd=tmp_path, env=env) for _ in range(4)]
    assert [process.wait(120) for process in crowd] == [0] * 4
    assert list(tmp_path.iterdir()) == []
