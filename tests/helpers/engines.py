"""Copies of the project under git and DVC, and commands run in them."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.projects import DATA, copy_project
from relearn import grid, params

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
PRESET = DATA / "bridge.yaml"  # two poisons, one cell each; two of its files:
RECORD = "results/metrics/digits/lsp/cnn/erm/0/record.json"
POISON = "results/poisons/digits/lsp/train.safetensors"


def run(folder: Path, *command: str, fails: bool = False) -> str:
    """Standard output and error of a command in a copy of the project, whose own sources it runs."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PYTHONPATH": str(folder / "src"), "PATH": path, "RELEARN_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def copy(folder: Path, preset: Path) -> Path:
    """A copy of the project under git and DVC with `preset` as its params.yaml."""
    copy_project(folder)
    shutil.copy(preset, folder / "params.yaml")
    run(folder, "relearn", "grid", "--write")
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    return folder


def artifacts(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file the DAG of params.yaml makes."""
    jobs = grid.jobs(params.load(folder / "params.yaml"))
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for job in jobs for name in job.outputs}
