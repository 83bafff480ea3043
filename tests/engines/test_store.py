"""The results in this repository are those of its sources.

`make store` makes `.dvc/store` and `dvc.lock` anew after a change of a source that results depend on.
"""

import hashlib
from pathlib import Path

import yaml

from helpers.projects import ROOT
from relearn import grid, params
from relearn.engines import dvc

STORE = ROOT / ".dvc/store"


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_the_store_holds_what_the_lock_names_and_no_more():
    named = {sum for stage in dvc.read_lock().values() for sum in stage.values()}
    held = {path.parent.name + path.name: path for path in (STORE / "files/md5").glob("*/*")}
    assert set(held) == named, "run: make store"
    assert [sum for sum, path in held.items() if md5(path) != sum] == []
    assert sum(path.stat().st_size for path in held.values()) <= 15e6


def test_the_lock_is_of_the_grid_and_the_sources_as_they_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    locked = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert {stage: {out["path"] for out in locked[stage]["outs"]} for stage in locked if stage != "check"} == {
        dvc.stage_name(job): set(job.outputs) for job in grid.jobs(params.load())
    }
    deps = (dep for stage in locked.values() for dep in stage["deps"])
    watched = {dep["path"]: dep["md5"] for dep in deps if dep["path"].startswith(("src/relearn/", "params"))}
    assert [path for path, sum in watched.items() if md5(ROOT / path) != sum] == [], "run: make store"
