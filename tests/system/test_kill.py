"""A job killed at random moments: what it leaves, and that the same command then ends in the same bytes."""

import re
from pathlib import Path

import pytest

from helpers.interruptible import TRAIN, Job, Process, disturbed, kills, left_over, outputs, timed
from relearn.training import checkpoint


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
    """Kill a job `count` times, going on each time.

    Whenever it comes to its end, look whether it took up what was kept, and at the bytes.
    """
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
        f"{count} kills; {len(ended)} runs came to their end, all with the same bytes, "
        f"{sum(map(bool, ended))} of them from a checkpoint"
    )
    assert any(ended)


def test_a_killed_cell_goes_on_and_ends_with_the_same_bytes(base, undisturbed, log):
    torture(base, TRAIN, kills(20), *undisturbed, log)


@pytest.mark.parametrize("poison", ["em", "tap"])
def test_a_killed_poison_goes_on_and_ends_with_the_same_bytes(poison, base, log):
    step = ("poison", f"digits/{poison}")
    seconds = timed(Job(base, *step))
    expected = outputs(base, step)
    for name in expected:
        (base / name).unlink()
    torture(base, step, kills(3), expected, seconds, log)
