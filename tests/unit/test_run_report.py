"""`*.run.json` is untracked: one that is not of the run that made the files beside it counts for nothing."""

import json
from pathlib import Path

import pytest

from helpers import results
from relearn import __main__, grid
from relearn.engines import verify
from relearn.errors import UserError
from relearn.reporting import seconds
from relearn.reporting.pages import provenance
from relearn.runtime import files
from relearn.runtime.hashing import file_digest
from relearn.runtime.run_report import read_report, run_report


def test_a_report_says_of_which_run_it_is(tmp_path):
    report, made = tmp_path / "train.run.json", tmp_path / "history.csv"
    with run_report(report, "cpu", made) as more:
        made.write_text("epoch\n1\n")
        more["resumed"] = False
    assert read_report(report)["of"] == {"history.csv": file_digest(made, "sha256")}
    assert seconds.of_run([report])["device"].startswith("cpu, ")
    made.write_text("epoch\n2\n")  # as `dvc pull`, `dvc checkout` and DVC's cache of runs replace it
    with pytest.raises(UserError, match=r"train.run.json is not of the run that made history.csv beside it"):
        read_report(report)
    assert seconds.of_run([report]) is None
    made.unlink()
    assert seconds.of_run([report]) is None


def test_a_run_that_was_fetched_over_another_has_neither_seconds_nor_device(tmp_path, monkeypatch):
    """The report of the earlier run here stays where DVC puts the files of another."""
    monkeypatch.chdir(tmp_path)
    cells = results.make()
    fetched, *kept = cells
    for cell in cells:
        report = grid.sidecar("train", "run.json", **vars(cell))
        of = {"history.csv": file_digest(cell.path("train", "history"), "sha256")}
        own = {"device": "gpu", "seconds": 100.0 if cell == fetched else 1.0, "of": of}
        files.write_json(report, own)
    assert provenance.run_report(fetched) is not None
    history = fetched.path("train", "history")
    history.write_text(history.read_text().replace(",1.000000,", ",2.000000,"))  # the losses of another run
    assert provenance.run_report(fetched) is None and provenance.run_report(kept[0]) is not None
    assert __main__.main(["aggregate"]) == 0
    rows = [line.split(",") for line in Path("results/summary/aggregate.seconds.csv").read_text().splitlines()[1:]]
    assert [row[3:6] for row in rows] == [["erm", "5", "1.000000"], ["pst", "6", "1.000000"]]


def test_the_environment_of_another_run_is_not_that_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = Path("results/metrics/digits/lsp/cnn/erm/0/record.json")
    for root, torch in ((tmp_path, "2.12"), (tmp_path / "other", "2.13")):
        (root / record).parent.mkdir(parents=True)
        (root / record).write_text("{}")
        report = {"torch": torch, "of": {"record.json": file_digest(root / record, "sha256")}}
        (root / record).with_name("evaluate.run.json").write_text(json.dumps(report))
    job = grid.Job("evaluate", "digits/lsp/cnn/erm/0", (), (), (), (str(record),))
    assert verify._environments(job, Path("other")) == ("torch 2.12", "torch 2.13")
    record.write_text("{ }")
    assert verify._environments(job, Path("other")) == ("", "")
