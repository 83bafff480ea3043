"""Progress of a job in a log."""

from relearn.runtime import progress
from relearn.runtime.progress import ProgressBar


def lines(capsys) -> list[str]:
    """What has been written, without the time that is left, which differs."""
    found = capsys.readouterr()
    assert found.out == ""
    return [line.rpartition(", ")[0] for line in found.err.splitlines() if line.endswith(" left")]


def test_lines_of_a_log(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    with ProgressBar(480, "train x") as bar:
        bar.advance_to(40, test="36.6 %", stage="early")
        bar.advance_to(80)
        bar.advance_to(20, stage="stage 1")  # a roll-back
        assert bar.n == 20
        bar.advance_to(480)
    found = lines(capsys)
    assert found[0] == "train x: 0/480" and "train x: 40/480, test=36.6 %, stage=early" in found
    assert found[-1] == "train x: 480/480, stage=stage 1"


def test_a_resumed_job_counts_on(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    with ProgressBar(100, "poison y", initial=60) as bar:
        bar.advance_to(70)
    assert lines(capsys)[:2] == ["poison y: 60/100", "poison y: 70/100"]


def test_a_log_has_few_lines(capsys):
    with ProgressBar(1000, "train x") as bar:
        for step in range(1, 1001):
            bar.advance_to(step, stage="early")
    assert lines(capsys) == ["train x: 0/1000", "train x: 1000/1000, stage=early"]
