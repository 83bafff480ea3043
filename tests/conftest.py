"""Small data, a workshop for poisons, and a copy of the project to run commands in."""

import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest
import torch

from relearn import models, registry
from relearn.craft import Craft
from relearn.data import Split, split
from relearn.seeding import Seeds

torch.set_num_threads(1)  # bytes depend on it, and the tests share the machine

ROOT = Path(__file__).resolve().parents[1]
FILES = ("Snakefile", "dvc.yaml", "params.yaml", "pyproject.toml", ".dvcignore", ".gitignore")
FOLDERS = ("workflow", "profiles", "slurm", "src", "envs")


def same(one, other) -> bool:
    """Whether two nested values are equal to the last byte, tensors included."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def stir(seed: int) -> None:
    """Leave garbage in every global random state, of which no result may depend."""
    torch.manual_seed(seed)
    numpy.random.seed(seed)
    random.seed(seed)


def coloured(counts: list[int], size: tuple[int, int], seed: int) -> Split:
    """`counts[k]` noisy images of class k, each around a colour of its own, in an order that mixes the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    colour = torch.randint(40, 216, (len(labels), 1, 1, 3), generator=generator)
    noise = torch.randint(-40, 41, (len(labels), *size, 3), generator=generator)
    return split((colour + noise).clamp(0, 255).to(torch.uint8), labels)


LONGEST = ("test_engines", "test_bridge", "test_slurm", "test_kill", "test_reproduce")


def pytest_collection_modifyitems(items):
    """The longest files first: each is one worker's work, and the last to begin decides when all of them end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture
def log(request):
    """A function that notes what a test did and compared; the end of the run shows it, whatever process it came from."""

    def write(*words) -> None:
        request.node.user_properties.append(("log", " ".join(map(str, words))))

    return write


def pytest_terminal_summary(terminalreporter):
    """Show what tests noted by `log`."""
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, line in report.user_properties:
            if name == "log":
                terminalreporter.write_line(f"{report.nodeid.split('::')[-1]}: {line}")


@pytest.fixture
def tiny() -> Split:
    """Eight images of each of ten classes."""
    return coloured([8] * 10, (32, 32), seed=1)


@pytest.fixture
def odd() -> Split:
    """Classes of 3 to 20 images, and images that are not square: what code written for CIFAR gets wrong."""
    return coloured([3, 20, 5, 9, 4, 12, 7, 16], (40, 32), seed=2)


@pytest.fixture
def craft():
    """A function that makes the workshop of a registered poison, with a small cnn, and a surrogate if the poison names one."""

    def make(poison: str, train: Split) -> Craft:
        made = Craft("test", Seeds("test", poison), "cpu", int(train.labels.max()) + 1, {"cnn": ("cnn", {"width": 4})})
        if any(setting.kind == "SurrogateName" for setting in registry.entry("poisons", poison).settings):
            generator = Seeds("test").generator("surrogate")
            made.surrogate, *earlier = (
                models.build(
                    "cnn", {"width": 4}, images=train.images, classes=made.classes, generator=generator, device="cpu"
                )
                for _ in range(3)
            )
            made.earlier = lambda: earlier
        return made

    return make


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
            [sys.executable, *arguments], cwd=self.folder, env=env, capture_output=True, text=True, timeout=300
        )
        return done.returncode, done.stdout, done.stderr


def copy_project(folder: Path) -> None:
    """Copy the project's files without results to `folder`, which is made."""
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "estimates.json")
        )


@pytest.fixture
def project(tmp_path) -> Project:
    """A copy without results, under neither git nor DVC."""
    folder = tmp_path / "project"
    copy_project(folder)
    return Project(folder)


def noise(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(
        1, 256, (count, height, width, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(2)
