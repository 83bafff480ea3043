"""Fixtures that several test modules use, the order of the tests, and what they note."""

import importlib
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch

from helpers.images import DEVICE, coloured
from helpers.interruptible import CELL, TRAIN, Job, left_over, outputs, ran, small_project, timed
from helpers.projects import Project, copy_project
from helpers.registered import POISONS
from relearn import registry
from relearn.crafting.craft import CraftContext
from relearn.data import Split
from relearn.runtime.seeding import Seeds, deterministic
from relearn.training import models

torch.set_num_threads(1)  # bytes depend on it, and the tests share the machine
if DEVICE != "cpu":
    deterministic(1)  # raises for what a GPU cannot compute twice alike

SYSTEM = Path(__file__).parent / "system"  # all in here kills processes, fills disks or starts servers, for minutes
LONGEST = (
    "test_engines",
    "test_catalogue",
    "test_notebooks",
    "test_documented_commands",
    "test_every_poison",
    "test_interrupted_jobs",
    "test_killed_poisons",
    "test_streaming",
    "test_bridge_orders",
    "test_slurm",
    "test_kill",
    "test_kill_snakemake",
    "test_reproduce",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what lies in system/, and put the longest files first.

    Each file is one worker's work, and the last to begin decides when all of them end.
    """
    for item in items:
        if item.path.is_relative_to(SYSTEM):
            item.add_marker("system")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture
def log(request):
    """A function that notes what a test did and compared; the end of the run shows it, whatever process it is of."""

    def write(*words) -> None:
        request.node.user_properties.append(("log", " ".join(map(str, words))))

    return write


def pytest_terminal_summary(terminalreporter):
    """Show what tests noted by `log`, and how many bad inputs of each area were tried."""
    _count_bad_inputs(terminalreporter)
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, line in report.user_properties:
            if name == "log":
                terminalreporter.write_line(f"{report.nodeid.split('::')[-1]}: {line}")


def _count_bad_inputs(terminalreporter) -> None:
    marked = "::test_bad_input["
    found = [
        (report.nodeid.partition(marked)[2].partition(":")[0], outcome)
        for outcome in ("passed", "failed", "xfailed", "xpassed")
        for report in terminalreporter.getreports(outcome)
        if marked in report.nodeid
    ]
    if found:
        areas = ", ".join(f"{area} {count}" for area, count in Counter(area for area, _ in found).items())
        refused = sum(outcome.endswith("passed") for _, outcome in found)
        terminalreporter.write_line(f"bad inputs: {refused} of {len(found)} refused as they should ({areas})")


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
    """A function that makes the context of a registered poison, with a small cnn, and a surrogate if it names one."""

    def make(poison: str, train: Split) -> CraftContext:
        classes = int(train.labels.max()) + 1
        made = CraftContext("test", Seeds("test", poison), DEVICE, classes, {"cnn": ("cnn", {"width": 4})})
        if any(setting.kind == "SurrogateName" for setting in registry.entry("poisons", poison).settings):
            generator = Seeds("test").generator("surrogate")
            made.surrogate, *earlier = (
                models.build(
                    "cnn", {"width": 4}, images=train.images, classes=classes, generator=generator, device=DEVICE
                )
                for _ in range(3)
            )
            made.load_earlier = lambda: earlier
        one, two = train.images.flip(2), 255 - train.images
        made.mixed = {name: train.with_images(images) for name, images in zip(POISONS, (one, two), strict=True)}
        return made

    return make


@pytest.fixture
def project(tmp_path) -> Project:
    """A copy without results, under neither git nor DVC."""
    folder = tmp_path / "project"
    copy_project(folder)
    return Project(folder)


# Jobs to kill and to interrupt


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A copy in which all that PARAMS' jobs read is made; what they load is loaded once, before they fork."""
    # an optimizer's first step loads the first
    for module in ("torch._dynamo", "relearn.rules.train", "relearn.rules.poison"):
        importlib.import_module(module)
    folder = small_project(tmp_path_factory.mktemp("base") / "project")
    for command in (("prepare", "digits"), ("surrogate", "digits/small"), ("poison", "digits/lsp")):
        ran(Job(folder, *command))
    return folder


@pytest.fixture(scope="module")
def undisturbed(base) -> tuple[dict[str, str], float]:
    """The cell's artifacts and how long its training takes."""
    seconds = timed(Job(base, *TRAIN))
    made = outputs(base, TRAIN)
    assert left_over(base) == []
    # so kills fall on both sides of a roll-back
    assert ",stage 1," in (base / "results/runs" / CELL / "history.csv").read_text()
    shutil.rmtree(base / "results/runs")
    return made, seconds


@pytest.fixture
def disk(base, tmp_path):
    """A copy with what the jobs read, whose results/ is a file system of 16 MB in memory."""
    folder = small_project(tmp_path / "project")
    results = folder / "results"
    results.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", results], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        shutil.copytree(base / "results", results, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
        yield folder
    finally:
        subprocess.run(["umount", "-l", results], check=True)
