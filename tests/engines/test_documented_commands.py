"""Every code block of README.md and docs/*.md runs, here or in the tests it names, or says why it cannot.

Blocks marked `run: SCENE` run here, each in a copy of a scene: line by line with the commands as they stand but for
`Scene.replaced`. Commands of relearn run in this process, others in bash, and so does a block with loops or `&&`.
"""

import contextlib
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from helpers import documented
from helpers.documented import Block
from helpers.engines import GIT, run
from helpers.projects import ROOT, copy_project, link_sources
from relearn import __main__, params
from relearn.runtime.yaml_loader import read_yaml

BLOCKS = [block for block in documented.blocks() if block.language in documented.COMMANDS]
HERE = [block for block in BLOCKS if block.how == "run"]
CLASSES, TRAINING = ("cat", "dog", "owl"), 8
TINY = """\
compute: {threads: 1}
train: {epochs: 1, batch: 16, warmup_steps: 1, probe_size: 16}
datasets:
  cifar10: {use: folder, path: photos, size: 32}
  digits: {copies: 1, size: 16}
poisons: {lsp: {}, em: {use: lsp, seed: 1}}
architectures: {resnet18: {use: cnn, width: 4}}
methods: {erm: {}}
grid:
  main: {datasets: [cifar10], poisons: all, architectures: all, methods: all, seeds: [0]}
  digits: {datasets: [digits], poisons: [lsp], architectures: all, methods: all, seeds: [0]}
"""
MADE = ("prepare cifar10", "prepare digits", "poison cifar10/lsp", "poison cifar10/em", "poison digits/lsp")


def photos(folder: Path, flat: bool = False) -> np.ndarray:
    """Write photos/ and test_photos/ of three classes, `flat` without train/ and test/; gives the training images."""
    draw, kept = np.random.default_rng(1), {}
    for place in ("photos", "test_photos") if flat else ("photos/train", "photos/test", "test_photos"):
        for label, name in enumerate(CLASSES):
            (folder / place / name).mkdir(parents=True)
            for number in range(TRAINING):
                pixels = (draw.integers(0, 60, (32, 32, 3)) + 60 * label).astype("uint8")
                Image.fromarray(pixels).save(folder / place / name / f"{number}.png")
                kept[place, name, number] = pixels
    return np.stack([pixels for (place, *_), pixels in kept.items() if place in ("photos", "photos/train")])


def empty(folder: Path) -> None:
    """The repository to clone, as a bare copy of what git would give."""
    copy_project(folder / "source")
    shutil.copy(ROOT / "README.md", folder / "source")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all")):
        run(folder / "source", *GIT, *command)


def images(folder: Path) -> None:
    """Images in folders of their classes, and a poison in a layout of others."""
    found = photos(folder, flat=True)
    np.savez(folder / "published.npz", data=found, targets=np.repeat(np.arange(len(CLASSES)), TRAINING))


def project(folder: Path) -> None:
    """A project under git with poisoned sets of two data sets, and files of others to read; nothing is trained."""
    folder.rmdir()
    copy_project(folder)
    link_sources(folder)
    found = photos(folder)
    (folder / "params.yaml").write_text(TINY)
    with contextlib.chdir(folder):
        for command in ("grid --write", *MADE):
            assert __main__.main(command.split()) == 0, command
    (folder / "Downloads").mkdir()
    theirs = [(image.tobytes(), row // TRAINING) for row, image in enumerate(np.clip(found, 4, 251) + 3)]
    (folder / "Downloads/EM.pkl").write_bytes(pickle.dumps(theirs))  # as ECLIPSE published it
    shutil.copytree(folder / "photos", folder / "data/images")
    for part in ("train", "val"):
        (folder / "ILSVRC2012" / part / "n01440764").mkdir(parents=True)
    (folder / "results/train.checkpoint.safetensors").touch()


@dataclass(frozen=True)
class Scene:
    """What is there before a block runs, what stands for words of it here, and what is there afterwards."""

    make: Callable[[Path], None]
    replaced: dict[str, str] = field(default_factory=dict)  # regular expressions


#: no network, and the packages that are here already
PIP = f"{shlex.quote(sys.executable)} -m pip install --quiet --no-deps --no-index --no-build-isolation --target site"
SCENES = {
    "an empty folder": Scene(empty, {"ADDRESS": "./source", r"\bpip install": PIP}),
    "a folder of images": Scene(images),
    # engines show what they would run: .ci/run and tests/system run it
    "a project": Scene(
        project, {r"(snakemake --cores \d+)(?! -n)": r"\1 -n --quiet rules", "/data/ILSVRC2012": "$PWD/ILSVRC2012"}
    ),
}
#: what some blocks leave, by a command in them
LEAVES = {
    "pip install ./relearn": ["site/relearn/pst/check/page.py", "site/relearn/py.typed", "site/bin/relearn"],
    "relearn check protected/": ["relearn-check-protected/check.html", "imported/published.safetensors"],
    "relearn export digits/lsp": ["exports/digits-lsp-png/data/0.png"],
    "relearn export cifar10/lsp": ["exports/cifar10-lsp-npz/poison.npz", "lsp_images/train/cat/0.png"],
    "relearn import Downloads/EM.pkl": ["imported/EM.safetensors"],
    "relearn protect photos --with random": ["noisy/cat/0.png", "photos_protected/manifest.json"],
    "/data/ILSVRC2012/train": ["data/imagenet/train/n01440764", "data/imagenet/val/n01440764"],
}
GONE = {"find results": "results/train.checkpoint.safetensors"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A function that gives a copy of a scene, which is made once."""
    made = {}

    def copied(name: str, target: Path) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("scene")
            SCENES[name].make(made[name])
        return shutil.copytree(made[name], target, symlinks=True)

    return copied


@pytest.fixture
def here(monkeypatch):
    """Commands that do not run in this process find relearn and its sources; none uses a GPU."""
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    threads = torch.get_num_threads()
    yield monkeypatch
    torch.set_num_threads(threads)  # commands set their own, and bytes of later tests depend on it


def test_every_block_is_run_or_says_why_not():
    wrong = []
    for block in documented.blocks():
        if not block.language:
            wrong.append(f"{block}: the fence names no language; text is one")
        elif block.language not in documented.COMMANDS or block.language == "yaml":
            continue  # below
        elif block.how == "run" and block.mark not in SCENES:
            wrong.append(f"{block}: runs in '{block.mark}'; known: {', '.join(SCENES)}")
        elif block.how == "not run" and block.mark not in documented.REASONS:
            wrong.append(f"{block}: is not run as it '{block.mark}'; accepted: {', '.join(documented.REASONS)}")
        elif block.how == "run by" and (missing := documented.lacking(block)):
            wrong.append(f"{block}: is run by {block.mark}, where these are not found: {', '.join(missing)}")
        elif not block.how:
            wrong.append(f"{block}: nothing says who runs it; see tests/helpers/documented.py")
    assert not wrong, "\n".join(wrong)


def ended(words: list[str]) -> int:
    """The exit status of the command line; argparse itself ends --help and --version."""
    try:
        return __main__.main(words)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("block", HERE, ids=str)
def test_what_runs_here(block: Block, scene, tmp_path, here):
    folder = scene(block.mark, tmp_path / "copy")
    here.chdir(folder)
    text = "\n".join(block.commands)
    for ours, theirs in SCENES[block.mark].replaced.items():
        text = re.sub(ours, theirs, text)
    alone = not re.search(r"&&|\bfor\b|\|", text)
    for command in text.splitlines() if alone else [text]:
        if alone and command.startswith("relearn "):
            assert ended(shlex.split(command)[1:]) == 0, command
        else:
            bash = ["bash", "-eu", "-c", command]
            done = subprocess.run(bash, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    for part, paths in LEAVES.items():
        assert not (part in block.text and [path for path in paths if not (folder / path).exists()]), part
    assert not any(part in block.text and (folder / path).exists() for part, path in GONE.items())


def test_what_is_looked_for_is_in_a_block():
    for part in (*LEAVES, *GONE):
        assert any(part in block.text for block in HERE), part


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_is_a_part_of_params(block: Block, tmp_path):
    """Names and settings are those of the package, or of the Python examples on the same page."""
    (tmp_path / "part.yaml").write_text(block.text)
    part = read_yaml(tmp_path / "part.yaml")
    found = params.errors(merged(read_yaml(ROOT / "params.yaml"), part))
    on_page = "".join(other.text for other in BLOCKS if other.page == block.page and other.language == "python")
    examples = re.findall(r"^(?:def|class) (\w+)\(", on_page, re.M)
    known = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in examples}
    found = [error for error in found if not any(f"'{name}'" in error for name in known)]
    assert not found, "\n".join(found)


def merged(one: dict, other: dict) -> dict:
    """Both mappings of sections; entries of a section stand beside each other."""
    return one | {name: (one.get(name) or {}) | (content or {}) for name, content in other.items()}


#: what the entries of docs/extending.md lack to be a grid, and smaller settings for them
REST = """\
compute: {threads: 1}
train: {epochs: 1, batch: 32, warmup_steps: 1, probe_size: 30}
datasets: {shapes: {per_class: 40}}
poisons: {uncertain: {surrogate: clean_cnn, steps: 3}}
architectures: {cnn: {width: 4}}
pretraining: {decorrelated: {epochs: 1, batch: 32}}
methods: {erm: {}}
grid:
  main: {datasets: [shapes], poisons: [class_signs], architectures: [tiny], methods: [erm, black_pixels], seeds: [0]}
  stages:
    datasets: [shapes]
    poisons: [class_signs]
    architectures: [cnn]
    methods: [erm, frozen_decorrelated, purified]
    seeds: [0]
  surrogate: {datasets: [shapes], poisons: [uncertain], architectures: [tiny], methods: [erm], seeds: [0]}
"""
EVERY_JOB = """\
from relearn import __main__, grid, params
for command in ("grid --write", "check-params", *(job.command[len("relearn ") :] for job in grid.jobs(params.load()))):
    assert __main__.main(command.split()) == 0, command
print(*grid.cells(params.load()), sep="\\n")
"""


def test_the_examples_of_extending(tmp_path, here):
    """All files of the page in one project, all its entries in one grid, every job of it in one process."""
    folder = tmp_path / "copy"
    copy_project(folder)
    content: dict = {}
    for block in (block for block in BLOCKS if block.page == "docs/extending.md"):
        if block.language == "python":
            (name,) = re.findall(r"`(src/relearn/\w+/\w+\.py)`\n\n\Z", block.before)
            assert not (folder / name).exists()
            (folder / name).write_text(block.text)
        elif block.language == "yaml":
            (tmp_path / "part.yaml").write_text(block.text)
            content = merged(content, read_yaml(tmp_path / "part.yaml"))
    (folder / "params.yaml").write_text(yaml.safe_dump(merged(content, yaml.safe_load(REST))))
    said = run(folder, sys.executable, "-c", EVERY_JOB)
    cells = [line for line in said.splitlines() if line.startswith("shapes/")]
    expected = ["cnn/erm", "cnn/frozen_decorrelated", "cnn/purified", "tiny/black_pixels", "tiny/erm"]
    assert sorted(cells) == [f"shapes/class_signs/{cell}/0" for cell in expected] + ["shapes/uncertain/tiny/erm/0"]
    for made in ("tables/gain.md", "figures/loss_curves.png", *(f"metrics/{cell}/record.json" for cell in cells)):
        assert (folder / "results" / made).exists(), made
