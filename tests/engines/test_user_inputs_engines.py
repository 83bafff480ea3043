"""Both engines run exactly the jobs that a change of the user's own files concerns, also of those behind links."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.engines import copy, run
from helpers.projects import MINI

PARAMS = """\
compute: {threads: 1}
train: {epochs: 1}
datasets:
  images: {use: folder, path: data/mine, size: 8}
  digits: {copies: 1}
poisons:
  clean: {}
  outside: {use: external, file: data/noise.npy}
architectures: {cnn: {width: 4}}
methods: {erm: {}}
grid:
  main: {datasets: [images], poisons: [clean, outside], architectures: [cnn], methods: [erm], seeds: [0]}
  other: {datasets: [digits], poisons: [clean], architectures: [cnn], methods: [erm], seeds: [0]}
tables: {accuracy: {}}
"""
IMAGES = {"inputs datasets/images", "prepare images", "poison images/clean", "poison images/outside"}
NOISE = {"inputs poisons/outside", "poison images/outside"}
FILES = [f"results/poisons/images/{poison}/train.safetensors" for poison in ("clean", "outside")]
STAGES = ["poison-images-clean", "poison-images-outside"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A project with two classes of images, one of them behind a link, whose poisons Snakemake has made."""
    folder = copy(tmp_path_factory.mktemp("inputs") / "copy", MINI)
    (folder / "params.yaml").write_text(PARAMS)
    run(folder, "relearn", "grid", "--write")
    draw = np.random.default_rng(0)
    for name in (f"{part}/{label}/{number}" for part in ("train", "test") for label in "ab" for number in range(3)):
        path = folder / f"data/mine/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
    shutil.move(folder / "data/mine/train/b", folder / "elsewhere")
    (folder / "data/mine/train/b").symlink_to(folder / "elsewhere")
    np.save(folder / "data/noise.npy", draw.integers(-6, 7, (6, 8, 8, 3)).astype(np.int8))
    run(folder, "snakemake", "--cores", "2", "--quiet", "rules", "--", *FILES)
    return folder


def wanted(folder: Path) -> set[str]:
    """The commands that Snakemake would run."""
    said = run(folder, "snakemake", "-n", "--printshellcmds", "--cores", "2", "--", *FILES)
    commands = [line.strip() for line in said.splitlines() if line.startswith("Shell command: relearn")]
    return {line.removeprefix("Shell command: relearn ").split(" > ")[0] for line in commands}


def test_snakemake_runs_what_a_change_concerns(folder):
    images, noise = folder / "data/mine/train", folder / "data/noise.npy"
    assert wanted(folder) == set()
    for deep in ("a", "b"):
        shutil.copy(images / "a/0.png", images / deep / "9.png")
        assert wanted(folder) == IMAGES, f"added in {deep}"
        (images / deep / "9.png").unlink()
        (images / deep / "0.png").rename(folder / "kept.png")
        assert wanted(folder) == IMAGES, f"deleted in {deep}"
        (folder / "kept.png").rename(images / deep / "0.png")
        assert wanted(folder) == set()  # as it was, whatever the times say
    was = noise.stat()
    shutil.copy(noise, folder / "kept.npy")
    np.save(noise, np.load(noise) // 2)
    os.utime(noise, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert wanted(folder) == NOISE, "overwritten, with its time kept"
    os.utime(noise, (1, 1))
    assert wanted(folder) == NOISE, "older"
    shutil.copy(folder / "kept.npy", noise)
    assert wanted(folder) == set()


def test_dvc_runs_what_a_change_concerns(folder):
    lists = {"inputs datasets/images", "inputs poisons/outside"}  # cheap, and always run

    def ran() -> set[str]:
        said = run(folder, "dvc", "repro", *STAGES)
        return {line.split("> relearn ")[1] for line in said.splitlines() if line.startswith("> relearn")}

    assert ran() >= IMAGES | NOISE
    assert ran() == lists
    shutil.copy(folder / "elsewhere/0.png", folder / "data/mine/train/a/0.png")
    assert ran() == lists | IMAGES
    shutil.copy(folder / "data/mine/test/a/0.png", folder / "elsewhere/0.png")  # DVC itself would see no change here
    assert ran() == lists | IMAGES
    noise = np.load(folder / "data/noise.npy") // 2
    np.save(folder / "data/noise.npy", noise)
    os.utime(folder / "data/noise.npy", (1, 1))
    assert ran() == lists | NOISE


@pytest.mark.parametrize("option", [("--config", "epochs=50"), ("--configfile", "more.yaml")])
def test_settings_on_snakemakes_command_line_are_refused(folder, option):
    (folder / "more.yaml").write_text("epochs: 50\n")
    said = run(folder, "snakemake", "-n", "--quiet", "all", *option, fails=True)
    (line,) = [line for line in said.splitlines() if line.startswith("relearn: ")]
    assert "--config and --configfile set epochs, which no job would see; edit params.yaml" in line
    assert "Traceback" not in said
