"""The code that runs is that which the engines watch: the environment of another clone is refused."""

import os
import subprocess
import sys

import pytest

from helpers.engines import run
from helpers.projects import ROOT, copy_project
from relearn import registry
from relearn.errors import UserError


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A copy of the project in which commands run the code of this one."""
    copy_project(tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    env = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*command: str) -> subprocess.CompletedProcess:
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return run


def test_the_code_of_another_clone_is_refused(foreign, tmp_path):
    for command in (
        ("relearn", "sources", "train"),
        ("relearn", "grid", "--write"),
        ("relearn", "preset", "quickstart"),
        ("snakemake", "--cores", "1", "results/sources/train.sha256"),
    ):
        done = foreign(sys.executable, "-m", *command)
        assert done.returncode == 2, command
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("relearn: ")]
        assert f"this would run the code in {ROOT / 'src/relearn'}, but record that in {tmp_path}" in line
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "copy/results").exists()


def test_the_code_of_the_project_runs_however_it_is_spelled(foreign, tmp_path):
    assert "digits/clean/cnn/erm/0" in run(tmp_path / "copy", "relearn", "grid")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    assert "digits/clean/cnn/erm/0" in run(tmp_path / "link", "relearn", "grid")


def test_outside_a_project_any_package_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry.check_package()
    (tmp_path / "src").mkdir()
    registry.check_package()  # of something else
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import relearn.pst"
    assert run(tmp_path, sys.executable, "-c", code) == ""
    (tmp_path / "src/relearn").mkdir()
    with pytest.raises(UserError, match="use the environment of this project"):
        registry.check_package()


def outside(folder, *command: str) -> subprocess.CompletedProcess:
    """A command of this package in a folder that is no project."""
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", "relearn", *command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", [("check-params",), ("plan",), ("adopt",)])
def test_an_installed_package_outside_a_project_says_where_to_run(tmp_path, command):
    done = outside(tmp_path, *command)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "run this in the root of" in done.stderr and "relearn preset" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_installed_package_has_its_presets_outside_a_project(tmp_path):
    names = outside(tmp_path, "preset").stdout.split()
    assert names == sorted(path.stem for path in (ROOT / "workflow/presets").glob("*.yaml"))
    assert list(tmp_path.iterdir()) == []
    assert "There is no Snakefile here" in outside(tmp_path, "preset", "quickstart").stdout
    # engines have nothing to run here, so there is no dvc.yaml
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
