"""A job interrupted, out of disk, started twice: one line says so, and the same command then ends in the same bytes."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from helpers.interruptible import (
    CELL,
    TRAIN,
    Job,
    Process,
    disturbed,
    fill,
    held,
    is_free,
    left_over,
    outputs,
    ran,
)
from relearn.engines import locks

PROGRESS = re.compile(r"train \S+: \d+/160(, \S+=[^,]+)*, \S+ left$")
LOCK = locks.FOLDER / "train" / f"{CELL.replace('/', '-')}.lock"

# Ctrl-C


def test_an_interrupted_job_says_so_and_resumes(base, undisturbed, log):
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
    (base / LOCK).unlink(missing_ok=True)  # of an earlier run; there again when this one has begun
    process = Process(base, "relearn", *TRAIN)
    while not (base / LOCK).exists():
        assert process.wait(0) is None, process.text()
    process.send(signal.SIGINT)
    assert ran(process, code=130) == "relearn: interrupted\n"
    assert not (base / "results/runs").exists() and is_free(base / LOCK)


# A full disk, and one that cannot be written


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "results").rglob("*") if path.is_file())


FULL = {  # what runs, the bytes that are free, and the file that does not fit any more
    "split": (("prepare", "digits"), 5 << 20, "results/data/digits/test.safetensors"),
    "checkpoint": (TRAIN, 16 << 10, "results/runs/digits/lsp/cnn/pst/0/train.checkpoint.safetensors"),
    "table": (("tabulate", "accuracy"), 0, "results/tables/accuracy.csv"),
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_is_one_line(what, disk, base, undisturbed):
    command, leave, file = FULL[what]
    if what == "split":
        shutil.rmtree(disk / "results/data")
    if what == "table":
        (disk / "results/summary").mkdir()
        (disk / "results/summary/records.csv").write_text(RECORDS)
    before = files(disk)
    filler = fill(disk, leave)
    said = [line for line in ran(Job(disk, *command), code=1).splitlines() if not PROGRESS.match(line)]
    assert said == [f"relearn: No space left on device: {file}; make room, then run the same command again"]
    filler.unlink()
    lock = str(locks.FOLDER / command[0] / f"{command[1].replace('/', '-')}.lock")
    written = set(files(disk)) - set(before)
    assert written <= {*outputs(disk, command, missing=True), lock} and left_over(disk) == []
    ran(Job(disk, *command))
    assert left_over(disk) == []
    expected = {"split": lambda: outputs(base, command), "checkpoint": lambda: undisturbed[0]}
    if what in expected:
        assert outputs(disk, command) == expected[what]()


COLUMNS = "dataset,poison,arch,method,seed,method_use,poison_use,accuracy,oracle_accuracy,oracle_epoch,passes,acm,kept"
RECORDS = f"""{COLUMNS},verdict
digits,lsp,cnn,erm,0,erm,lsp,50.000000,50.000000,1,1.000000,0.400000,0.800000,not trapped
digits,lsp,cnn,pst,0,pst,lsp,60.000000,60.000000,1,1.000000,0.400000,0.800000,not trapped
"""


def test_a_disk_that_cannot_be_written_is_one_line(disk):
    before = files(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk / "results"], check=True)
    for command, output in ((TRAIN, f"runs/{CELL}/model"), (("poison", "digits/lsp"), "poisons/digits/lsp/train")):
        said = f"Read-only file system: results/{output}.safetensors; give yourself the right to read and write it"
        assert ran(Job(disk, *command), code=2) == f"relearn: {said}\n"
    assert files(disk) == before


# Two at once


def test_of_runs_of_one_job_at_once_all_but_one_are_refused(base, undisturbed):
    runs = [Job(base, *TRAIN) for _ in range(3)]
    codes = sorted(run.wait() for run in runs)
    assert codes in ([0, 2, 2], [0, 0, 2])  # the second where the last began when the first had ended
    command = f"relearn train {CELL}"
    refused = f"relearn: another run of `{command}` is already running; wait for it, or stop it and run this again\n"
    assert all(run.text() == refused for run in runs if run.wait() == 2)
    assert outputs(base, TRAIN) == undisturbed[0] and left_over(base) == []
    assert (base / LOCK).exists() and held(base) == []  # the file stays, the lock does not
    shutil.rmtree(base / "results/runs")
