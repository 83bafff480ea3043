"""The results in this repository are those of its sources, and the commands of docs/reproduce.md do what it says.

`make store` makes `.dvc/store` and `dvc.lock` anew after a change of a source that results depend on.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import copy_project
from test_engines import ROOT, copy, run

from relearn import grid, params, stages

PAGE = ROOT / "docs/reproduce.md"
STORE = ROOT / ".dvc/store"
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
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


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


# ---- the store in the repository


def test_the_store_holds_what_the_lock_names_and_no_more():
    named = {sum for stage in stages.locked().values() for sum in stage.values()}
    held = {path.parent.name + path.name: path for path in (STORE / "files/md5").glob("*/*")}
    assert set(held) == named, "run: make store"
    assert [sum for sum, path in held.items() if md5(path) != sum] == []
    assert sum(path.stat().st_size for path in held.values()) <= 15e6


def test_the_lock_is_of_the_grid_and_the_sources_as_they_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    locked = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert {stage: {out["path"] for out in locked[stage]["outs"]} for stage in locked if stage != "check"} == {
        stages.name(node): set(node.outputs) for node in grid.nodes(params.load())
    }
    deps = (dep for stage in locked.values() for dep in stage["deps"])
    watched = {dep["path"]: dep["md5"] for dep in deps if dep["path"].startswith(("src/", "params", "workflow/"))}
    assert [path for path, sum in watched.items() if md5(ROOT / path) != sum] == [], "run: make store"


@pytest.mark.system
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
    folder = copy(tmp_path_factory.mktemp("page") / "origin", ROOT / "tests/bridge.yaml")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    run(folder, "dvc", "repro", "-q")
    run(folder, "dvc", "push", "-q")
    run(folder, *GIT, "add", "-A")
    run(folder, *GIT, "commit", "-q", "-m", "results")
    return folder


@pytest.mark.system
@pytest.mark.parametrize(
    "heading", ["Reproduce", "Compare runs", "Share", "Resume", "Both engines over one folder", "Scale out"]
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


@pytest.mark.system
def test_one_job_at_a_time_and_eight_at_once_leave_the_same_bytes(origin, tmp_path, log):
    sums = []
    for cores in ("1", "8"):
        folder = copy(tmp_path / cores, ROOT / "tests/bridge.yaml")
        run(folder, "snakemake", "--cores", cores, "--quiet", "rules")
        sums.append(
            {
                name: md5(folder / name)
                for node in grid.nodes(params.load(folder / "params.yaml"))
                for name in node.outputs
            }
        )
    assert sums[0] == sums[1]
    assert json.loads(run(origin, "dvc", "status", "--json").splitlines()[-1]) == {}
    compared = run(tmp_path / "8", "relearn", "verify", str(origin))  # its exit code says whether all are equal
    log(f"{len(sums[0])} artifacts equal with --cores 1 and 8; with those of DVC: {compared.splitlines()[-1]}")
