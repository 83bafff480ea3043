"""A job killed at random moments: what it leaves, and that the same command then ends in the same bytes."""

import re
from pathlib import Path

import pytest

from helpers.interruptible import TRAIN, Job, Process, disturbed, held, kills, left_over, outputs, timed
from relearn.training import checkpoint


def checkpoints(folder: Path, argument: str) -> dict[str, int | None]:
    """The checkpoints of a job that a kill left, by their path, and the step of a training's."""
    names = sorted(str(path.relative_to(folder)) for path in (folder / "results").rglob("*.checkpoint*.safetensors"))
    return {
        name: checkpoint.load(folder / name, "cpu").get("run", {"training": {"step": None}})["training"]["step"]
        for name in names
        if f"/{argument}/" in name and ".tmp/" not in name
    }


def resumed(text: str) -> dict[str, int | None]:
    """The checkpoints from which a run says it resumes, and at which step."""
    return {
        path: int(step) if step else None
        for step, path in re.findall(r": resuming (?:at step (\d+) of \d+, |from )(\S+)$", text, re.MULTILINE)
    }


def torture(folder: Path, command: tuple[str, str], count: int, expected: dict[str, str], seconds: float, log) -> None:
    """Kill a job `count` times, and run it again each time.

    Whenever it comes to its end, look whether it resumed from the checkpoint, and at the bytes.
    """
    before: dict[str, int | None] = {}  # the checkpoints that the last kill left
    ended: list[int] = []  # of the runs that came to their end, how many checkpoints they resumed from

    def start() -> Process:
        return Job(folder, *command)

    def finish(process: Process) -> None:
        assert process.wait() == 0, process.text()
        said = resumed(process.text())
        assert said.items() <= before.items()
        assert not before or next(iter(before)) in said, (before, process.text())  # by name, tap's `best` is the first
        assert outputs(folder, command) == expected and left_over(folder) == []
        ended.append(len(said))
        before.clear()
        for name in expected:
            (folder / name).unlink()

    for number, moment, process in disturbed(start, finish, Process.kill, count, seconds):
        assert resumed(process.text()).items() <= before.items()
        before.clear()
        before |= checkpoints(folder, command[1])
        found = [f"{Path(path).name}{'' if at is None else f' of step {at}'}" for path, at in before.items()]
        unfinished = [Path(name).name for name in left_over(folder) if name.endswith(".tmp")]
        assert held(folder) == []
        log(f"kill {number} after {moment} left {', '.join(found + unfinished) or 'nothing'}")
    finish(Process(folder, "relearn", *command))
    log(
        f"{count} kills; {len(ended)} runs came to their end, all with the same bytes, "
        f"{sum(map(bool, ended))} of them from a checkpoint"
    )
    assert any(ended)


def test_a_killed_cell_resumes_and_ends_with_the_same_bytes(base, undisturbed, log):
    torture(base, TRAIN, kills(20), *undisturbed, log)


@pytest.mark.parametrize("poison", ["em", "tap"])
def test_a_killed_poison_resumes_and_ends_with_the_same_bytes(poison, base, log):
    command = ("poison", f"digits/{poison}")
    seconds = timed(Job(base, *command))
    expected = outputs(base, command)
    for name in expected:
        (base / name).unlink()
    torture(base, command, kills(3), expected, seconds, log)
