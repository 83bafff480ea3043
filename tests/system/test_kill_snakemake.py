"""Snakemake killed, interrupted, out of disk, two at once: the same command then ends in the same bytes."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from helpers.interruptible import (
    SNAKEMAKE,
    Process,
    disturbed,
    fill,
    kills,
    left_over,
    outputs,
    ran,
    small_project,
    timed,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict[str, str], float]:
    """A copy to run Snakemake in, the artifacts it must make, and how long that takes."""
    folder = small_project(tmp_path_factory.mktemp("whole") / "project")
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


def test_a_killed_snakemake_resumes_and_ends_with_the_same_bytes(whole, log):
    folder, expected, seconds = whole
    for number, moment, _ in whole_grid(whole, Process.kill, kills(3)):
        done, left = sum((folder / name).exists() for name in expected), left_over(folder)
        log(
            f"kill {number} after {moment} left {done} of {len(expected)} artifacts and "
            f"{', '.join(left) or 'nothing else'}"
        )


def test_an_interrupted_snakemake_resumes(whole, log):
    folder = whole[0]

    def interrupt(process: Process) -> None:
        until_locked(folder, process)  # while Python loads Snakemake, a traceback of theirs
        process.send(signal.SIGINT)

    for number, moment, process in whole_grid(whole, interrupt, 1):
        assert "Terminating processes on user request" in ran(process, code=1)
        assert all(name.endswith("train.checkpoint.safetensors") for name in left_over(folder))
        assert not list(folder.glob(".snakemake/locks/*"))
        log(f"Ctrl-C {number} after {moment}")


def test_a_full_disk_stops_snakemake_and_room_lets_it_resume(disk, whole):
    shutil.rmtree(disk / "results/data")
    filler = fill(disk, 5 << 20)
    text = ran(Process(disk, *SNAKEMAKE), code=1)
    file = "results/data/digits/test.safetensors"
    assert f"relearn: No space left on device: {file}; make room, then run the same command again" in text
    filler.unlink()
    assert left_over(disk) == []
    ran(Process(disk, *SNAKEMAKE))
    assert outputs(disk) == whole[1]


def test_of_two_snakemakes_at_once_one_is_refused(whole):
    folder, expected, _ = whole
    first = Process(folder, *SNAKEMAKE)
    until_locked(folder, first)
    assert "Directory cannot be locked" in ran(Process(folder, *SNAKEMAKE), code=1)
    ran(first)
    assert outputs(folder) == expected and left_over(folder) == []
    clean(folder)
