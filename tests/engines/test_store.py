"""The results in this repository are those of its sources.

`make store` makes `.dvc/store` and `dvc.lock` anew after a change of a source that results depend on.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

import yaml

from helpers.engines import GIT
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


def test_a_clone_that_changes_line_ends_has_the_same_bytes(tmp_path):
    """As git for Windows does by default; each object of the store is named by the MD5 of its content."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    shutil.copytree(STORE, origin / ".dvc/store")
    shutil.copytree(ROOT / "src", origin / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in (".gitattributes", "dvc.lock", "params.yaml", "Snakefile"):
        shutil.copy(ROOT / name, origin / name)
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all")):
        subprocess.run([*GIT, *command], cwd=origin, check=True, capture_output=True)
    subprocess.run([*GIT, "clone", "-q", "--config", "core.autocrlf=true", origin, clone], check=True)
    files = [path.relative_to(origin) for path in origin.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert len(files) > 200
    assert [path for path in files if md5(origin / path) != md5(clone / path)] == []
