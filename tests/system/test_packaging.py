"""What a wheel and an sdist hold, and that the wheel works where there is no clone of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from helpers.projects import ROOT

PRESETS = sorted((ROOT / "workflow/presets").glob("*.yaml"))
BUILD = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"
PROGRAM = """\
from torch import nn, optim
from relearn.pst import PST
def staged(m: nn.Module, o: optim.Optimizer) -> PST: return PST(m, o, [], steps_per_epoch=1)
"""
LEFT_OUT = (".git", ".venv", ".dvc", "results", "data", "site", "*.egg-info", ".*_cache", ".snakemake", "build", "dist")


def ran(*command, cwd: Path, code: int = 0) -> str:
    """Standard output of a command that sees nothing of this clone; what it says when the exit code is another."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A copy of the clone, in which compiled files lie about, as after a run."""
    folder = tmp_path_factory.mktemp("sources") / "relearn"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for place in ("src/relearn", "src/relearn/poisons", "tests/unit", "workflow/rules"):
        (folder / place / "__pycache__").mkdir(exist_ok=True)
        (folder / place / "__pycache__/left.cpython-311.pyc").write_bytes(b"\0")
    ran(sys.executable, "-c", BUILD, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(sources) -> Path:
    (found,) = (sources / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(sources) -> Path:
    (found,) = (sources / "dist").glob("*.tar.gz")
    return found


def installed_in(folder: Path, wheel: Path) -> Path:
    """The folder of the programs of a new environment with the wheel, in which the dependencies of this one are."""
    ran(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin/python"
    site = Path(ran(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # a path in a .pth file: packages are found there, but not the clone that an editable installation names there
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    ran(*pip, wheel, cwd=folder)
    assert (site / "relearn/__init__.py").is_file()
    return folder / "bin"


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory) -> Path:
    return installed_in(tmp_path_factory.mktemp("fresh") / "environment", wheel)


def test_the_wheel_holds_the_package_its_types_and_the_presets(wheel, log):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for preset in PRESETS:
            assert archive.read(f"relearn/presets/{preset.name}") == preset.read_bytes()
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/relearn").rglob("*.py")}
    assert modules | {"relearn/py.typed"} <= set(names)
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []
    assert {name.split("/")[0] for name in names} == {"relearn", re.sub(r"-py3.*", ".dist-info", wheel.name)}
    log(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size:,} bytes")


def test_the_sdist_holds_what_builds_and_tests_it_and_gives_the_same_wheel(sdist, wheel, tmp_path, log):
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
        archive.extractall(tmp_path, filter="data")
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []
    wanted = (
        "pyproject.toml",
        "setup.py",
        "Snakefile",
        "tests/conftest.py",
        "envs/requirements.txt",
        "src/relearn/py.typed",
    )
    assert {*wanted, *(path.relative_to(ROOT).as_posix() for path in PRESETS)} <= set(names)
    folder = tmp_path / sdist.name.removesuffix(".tar.gz")
    flags = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path / "again")
    ran(sys.executable, "-m", "pip", "wheel", *flags, folder, cwd=tmp_path)
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(tmp_path / "again" / wheel.name) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        code = [name for name in one.namelist() if ".dist-info/" not in name]
        assert [name for name in code if one.read(name) != other.read(name)] == []
    log(f"{sdist.name}: {len(names)} files, {sdist.stat().st_size:,} bytes")


def test_the_command_works_outside_a_clone(programs, tmp_path):
    version = ran(programs / "relearn", "--version", cwd=tmp_path)
    assert re.fullmatch(r"relearn \d+\.\d+\.\d+\n", version)
    assert "\n  em " in ran(programs / "relearn", "list", "poisons", cwd=tmp_path)
    assert (
        json.loads(ran(programs / "relearn", "list", "poisons", "em", "--json", cwd=tmp_path))["cost"]["number"] > 100
    )
    listed = ran(programs / "relearn", "preset", cwd=tmp_path).split()
    assert listed == [path.stem for path in PRESETS] and list(tmp_path.iterdir()) == []
    said = ran(programs / "relearn", "preset", "quickstart", cwd=tmp_path)
    assert said.startswith("Wrote params.yaml, the preset quickstart: ") and "a run needs a clone" in said
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    assert (tmp_path / "params.yaml").read_bytes() == (ROOT / "workflow/presets/quickstart.yaml").read_bytes()
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["grid"]
    assert "cells" in ran(programs / "relearn", "plan", "--speed", "9000", cwd=tmp_path)
    said = ran(programs / "relearn", "preset", "quickstrat", cwd=tmp_path, code=2)
    assert "did you mean 'quickstart'?" in said


def test_the_library_works_outside_a_clone(programs, tmp_path):
    found = ran(programs / "python", "-c", "from relearn import pst; print(pst.PST, pst.__file__)", cwd=tmp_path)
    assert "relearn.pst" in found and str(programs.parent) in found


def test_type_checkers_read_the_library(programs, tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "right.py").write_text(PROGRAM)
    (tmp_path / "wrong.py").write_text(PROGRAM.replace("-> PST", "-> int"))  # so types are read, and not Any
    mypy = (
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        programs / "python",
        "--cache-dir",
        "cache",
    )
    assert "Success" in ran(*mypy, "right.py", cwd=tmp_path)
    assert 'got "PST", expected "int"' in ran(*mypy, "wrong.py", cwd=tmp_path, code=1)
