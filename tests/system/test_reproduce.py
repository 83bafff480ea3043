"""The results in this repository are pulled in a fresh clone, and the commands of docs/reproduce.md do what it says."""

import json
import re
import shutil
from pathlib import Path

import pytest

from helpers.engines import GIT, PRESET, artifacts, copy, run
from helpers.projects import ROOT, copy_project

PAGE = ROOT / "docs/reproduce.md"
SAYS = {  # what the page promises of a command
    "dvc status": "Data and pipelines are up to date.",
    "snakemake -n": "Nothing to be done",
    "relearn verify": " 0 different, 0 missing here, 0 missing there",
    "dvc params diff": "train.lr",
    "dvc metrics diff": "results/summary/metrics.json",
    "dvc metrics show": "digits.lsp.cnn.erm.accuracy",
    "dvc plots show": "index.html",
    "relearn plan --write": "cells",
}


def blocks(heading: str) -> list[list[str]]:
    """The commands of each `sh` block below a heading of the page, without comments."""
    part = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)[1]
    return [
        [line.split("  #")[0].strip() for line in block.splitlines()]
        for block in re.findall(r"^```sh\n(.*?)^```", part, re.M | re.S)
    ]


def say(folder: Path, command: str) -> None:
    output = run(folder, "bash", "-c", command)
    assert SAYS.get(command, "") in output, output


def test_a_fresh_clone_pulls_the_quickstart_and_both_engines_are_content(tmp_path, log):
    copy_project(tmp_path / "clone")
    shutil.copy(ROOT / "dvc.lock", tmp_path / "clone")
    shutil.copytree(
        ROOT / ".dvc", tmp_path / "clone/.dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local")
    )
    run(tmp_path / "clone", "git", "init", "-q")
    for command in blocks("Reproduce")[0]:
        say(tmp_path / "clone", command)
    table = (tmp_path / "clone/results/tables/accuracy.md").read_text()
    for row in re.findall(r"^\| digits \| cnn (\|.*\|) 2 \|$", table, re.M):
        assert row in (ROOT / "README.md").read_text()  # the README's table is this one
    log(run(tmp_path / "clone", "relearn", "verify").splitlines()[-1])


# ---- the page


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository with the tiny grid, run by DVC, its artifacts in a store of its own."""
    folder = copy(tmp_path_factory.mktemp("page") / "origin", PRESET)
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    run(folder, "dvc", "repro", "-q")
    run(folder, "dvc", "push", "-q")
    run(folder, *GIT, "add", "-A")
    run(folder, *GIT, "commit", "-q", "-m", "results")
    return folder


@pytest.mark.parametrize(
    "heading", ["Reproduce", "Compare runs", "Share", "Resume", "Both engines in one folder", "Scale out"]
)
def test_the_commands_of_the_page(origin, tmp_path, log, heading):
    run(tmp_path, *GIT, "clone", "-q", str(origin), "clone")
    if heading != "Reproduce":
        for command in ("dvc pull -q", "relearn adopt"):
            run(tmp_path / "clone", "bash", "-c", command)
    found = blocks(heading)
    assert found
    for command in (command for block in found for command in block):
        say(tmp_path / "clone", command)
        log(command)


def test_one_job_at_a_time_and_eight_at_once_leave_the_same_bytes(origin, tmp_path, log):
    sums = []
    for cores in ("1", "8"):
        folder = copy(tmp_path / cores, PRESET)
        run(folder, "snakemake", "--cores", cores, "--quiet", "rules")
        sums.append(artifacts(folder))
    assert sums[0] == sums[1]
    assert json.loads(run(origin, "dvc", "status", "--json").splitlines()[-1]) == {}
    compared = run(tmp_path / "8", "relearn", "verify", str(origin))  # its exit code says whether all are equal
    log(f"{len(sums[0])} artifacts equal with --cores 1 and 8; with those of DVC: {compared.splitlines()[-1]}")
