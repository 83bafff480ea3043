"""The project's folder, and throw-away copies of it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/data"
MINI = DATA / "mini.yaml"  # the smallest grid that has every step
FILES = ("Snakefile", "dvc.yaml", "params.yaml", "pyproject.toml", ".dvcignore", ".gitignore")
FOLDERS = ("workflow", "profiles", "slurm", "src", "envs")


@dataclass(frozen=True)
class Project:
    """A throw-away copy of the project."""

    folder: Path

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command of the copy's own sources."""
        return self.python("-m", "relearn", *arguments)

    def python(self, *arguments: str) -> tuple[int, str, str]:
        """The same of Python with any arguments."""
        env = os.environ | {"PYTHONPATH": str(self.folder / "src"), "RELEARN_DEVICE": "cpu"}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


def link_sources(folder: Path) -> None:
    """Let a copy have the sources of this process, which may then run its commands: relearn refuses other code."""
    shutil.rmtree(folder / "src")
    (folder / "src").symlink_to(ROOT / "src")


def copy_project(folder: Path) -> None:
    """Copy the project's files without results to `folder`, which is made."""
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info", "estimates.json"),
        )
