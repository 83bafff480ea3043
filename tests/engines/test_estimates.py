"""What a cluster is asked for: estimates of `relearn plan --write` if there are any of these settings, or defaults."""

import json
import re
import shutil

import pytest

from helpers.engines import run
from helpers.projects import MINI, copy_project
from relearn.rules.planning import estimates

ESTIMATED = ("surrogate", "poison", "pretrain", "train")


@pytest.fixture
def folder(tmp_path):
    copy_project(tmp_path / "copy")
    shutil.copy(MINI, tmp_path / "copy/params.yaml")
    return tmp_path / "copy"


def asked(folder) -> tuple[dict[str, tuple[int, int]], str]:
    """Megabytes and minutes of each job by command, as Snakemake would ask for them, and all it says."""
    text = run(folder, "snakemake", "-n", "--printshellcmds", "--cores", "2")
    jobs = {
        command: dict(re.findall(r"(\w+)=(\d+)\b", resources))
        for resources, command in re.findall(r"resources: (.*)\nShell command: (.*?) > ", text)
    }
    return {
        command: (int(job["mem_mb"]), int(job["runtime"])) for command, job in jobs.items() if "runtime" in job
    }, text


def test_plan_writes_what_snakemake_asks_for(folder):
    defaults, _ = asked(folder)
    assert defaults["relearn train digits/lsp/cnn/erm/0"] == (4000, 240)
    table = run(folder, "relearn", "plan", "--write")
    assert f"wrote {estimates.FILE}" in table
    jobs = json.loads((folder / estimates.FILE).read_text())["jobs"]
    assert set(jobs) == {command for command in defaults if command.split()[1] in ESTIMATED}
    found, text = asked(folder)
    assert found == defaults | {command: (job["mem_mb"], job["runtime"]) for command, job in jobs.items()} != defaults
    assert "another params.yaml" not in text
    # twice the epochs: what was estimated says nothing any more
    content = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(content.replace("epochs: 2,", "epochs: 4,"))
    found, text = asked(folder)
    assert found == defaults
    assert (
        f"relearn: {estimates.FILE} was made for another params.yaml and is not used; "
        "write it again with: relearn plan --write"
    ) in text


def test_more_epochs_need_more_time_and_more_images_more_memory(folder):
    def planned(old: str, new: str) -> dict:
        content = (folder / "params.yaml").read_text()
        (folder / "params.yaml").write_text(content.replace(old, new))
        run(folder, "relearn", "plan", "--write")
        return json.loads((folder / estimates.FILE).read_text())["jobs"]["relearn train digits/lsp/cnn/erm/0"]

    few, long = planned("", ""), planned("epochs: 2,", "epochs: 2000,")
    many = planned("copies: 1", "copies: 500")
    assert few["mem_mb"] < many["mem_mb"]
    assert few["runtime"] < long["runtime"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"of": "", "jobs": {"relearn train digits/lsp/cnn/erm/0": {"mem_mb": "4 GB", "runtime": 1}}}']
)
def test_a_corrupt_file_is_named(folder, text):
    (folder / estimates.FILE).write_text(text)
    said = run(folder, "snakemake", "-n", fails=True)
    assert f"relearn: {estimates.FILE}" in said and "delete it" in said
    assert "Traceback" not in said
