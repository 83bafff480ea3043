"""Protect: a folder of images of any size in, the same folder poisoned out, in one command."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relearn import __main__ as command_line
from relearn.crafting.craft import CraftContext
from relearn.crafting.exchange import protecting
from relearn.crafting.exchange.images import png_names
from relearn.crafting.perturbation import apply
from relearn.data import split
from relearn.datasets import folder
from relearn.poisons.lsp import lsp
from relearn.runtime.seeding import Seeds

SIZES = [(32, 32), (50, 40), (64, 64), (33, 70)]  # width and height


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for number, (width, height) in enumerate(SIZES):
            image = Image.fromarray(random.integers(40, 216, (height, width, 3)).astype(np.uint8))
            image.save(f"photos/{name}/{number}.{'png' if number else 'bmp'}")
    return Path("photos")


def run(*arguments: str) -> int:
    return command_line.main(["protect", "photos", "--out", "out", *arguments])


def change(name: str) -> np.ndarray:
    before = next(Path("photos").glob(f"{name}.*"))
    return np.asarray(Image.open(f"out/{name}.png")).astype(int) - np.asarray(Image.open(before)).astype(int)


def test_images_of_the_size_it_is_made_for_are_those_of_the_poison(photos):
    """Without enlarging, the images are byte for byte what the poison and the only adder make of them."""
    for path in list(photos.rglob("*.*")):
        image = Image.open(path).resize((32, 32))
        path.unlink()
        image.save(path)
    assert run("--with", "lsp", "--set", "epsilon=8", "--set", "seed=3") == 0
    images = [np.asarray(Image.open(path)) for path in sorted(photos.rglob("*.*"))]
    train = split(torch.from_numpy(np.stack(images)), torch.tensor([0] * 4 + [1] * 4))
    craft = CraftContext("test", Seeds("protect", "lsp"), "cpu", 2)
    expected, _ = apply(train.images, lsp(train, craft, epsilon=8.0, seed=3))
    found = [np.asarray(Image.open(path)) for path in sorted(Path("out").rglob("*.png"))]
    np.testing.assert_array_equal(np.stack(found), expected)


@pytest.mark.parametrize("poison", ["lsp", "ar", "ops", "cuda", "random", "classwise_random"])
def test_images_of_any_size(poison, photos, capsys):
    assert run("--with", poison) == 0
    for name in ("cat", "dog"):
        for number, (width, height) in enumerate(SIZES):
            delta = change(f"{name}/{number}")
            assert delta.shape == (height, width, 3) and delta.any()
            if poison.endswith("random"):
                assert abs(delta).max() <= 8
    assert "wrote 8 images to out" in capsys.readouterr().out


@pytest.mark.parametrize("poison", ["random", "classwise_random"])
def test_rounding_never_leaves_the_linf_ball(poison, photos):
    """8.7 rounds to 9, which is more than the data card promises."""
    assert run("--with", poison, "--set", "epsilon=8.7") == 0
    assert max(abs(change(f"{name}/{number}")).max() for name in ("cat", "dog") for number in range(4)) == 8
    assert json.loads(Path("out/manifest.json").read_text())["measured"]["linf_max"] == 8


def test_a_perturbation_grows_by_blocks(photos):
    """What the network sees once the image is small again is what was crafted."""
    assert run("--with", "classwise_random") == 0
    delta = change("cat/2")  # 64 x 64, blocks of 2
    assert (delta == delta[::2, ::2].repeat(2, 0).repeat(2, 1)).all()
    np.testing.assert_array_equal(delta[::2, ::2], change("cat/0"))
    assert not (delta == change("dog/2")).all()


def test_it_says_what_it_did(photos):
    assert run("--with", "lsp", "--size", "40") == 0
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["settings"]["epsilon"] == 6 and manifest["size"] == 40 and manifest["classes"] == ["cat", "dog"]
    linf = [abs(change(f"{name}/{number}")).max() for name in ("cat", "dog") for number in range(4)]
    assert manifest["measured"]["linf_max"] == max(linf)
    for line in Path("out/SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(Path("out", name).read_bytes()).hexdigest() == digest
    assert len(Path("out/SHA256SUMS").read_text().splitlines()) == 8 + 2


def test_the_same_bytes_again(photos):
    sums = []
    for out in ("out", "again"):
        assert command_line.main(["protect", "photos", "--out", out, "--with", "ar"]) == 0
        sums.append(Path(out, "SHA256SUMS").read_text())
    assert sums[0] == sums[1]


def test_images_alone_are_one_class(photos, capsys):
    assert command_line.main(["protect", "photos/cat", "--out", "out", "--with", "lsp"]) == 0
    assert "has no class folders" in capsys.readouterr().err
    assert {path.name for path in Path("out").glob("*.png")} == {f"{k}.png" for k in range(4)}


BAD = {
    "needs a network": (["--with", "tap"], "'tap' needs a network"),
    "unknown": (["--with", "lps"], "is no poison; known: ar"),
    "adds nothing": (["--with", "clean"], "known: ar"),
    "unknown setting": (["--with", "lsp", "--set", "epsilom=8"], "did you mean 'epsilon'?"),
    "no value": (["--with", "lsp", "--set", "epsilon"], "is no NAME=VALUE"),
    "wrong value": (["--with", "lsp", "--set", "epsilon=-1"], "--set epsilon: must be a number above 0"),
    "not yaml": (["--with", "lsp", "--set", "epsilon=[1"], "is no value"),
    "too small": (["--with", "lsp", "--size", "4"], "a patch of 8 does not fit"),
    "no size": (["--with", "lsp", "--size", "0"], "from 4 to 1024"),
    "inside": (["--with", "lsp", "--out", "photos/out"], "lies in the folder that it is made of"),
    "not empty": (["--with", "lsp", "--out", "full"], "exists and is not empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(name, photos, capsys):
    Path("full").mkdir()
    Path("full/file").touch()
    arguments, words = BAD[name]
    assert run(*arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert words in error[-1] and not Path("out").exists()


def test_what_is_no_image_is_said(photos, capsys):
    Path("photos/cat/notes.txt").touch()
    assert run("--with", "lsp") == 2 and "notes.txt is no image by its name" in capsys.readouterr().err
    Path("photos/cat/notes.txt").rename("photos/cat/9.png")
    assert run("--with", "lsp") == 2 and "9.png cannot be read" in capsys.readouterr().err
    Path("photos/cat/9.png").rename("photos/9.png")
    assert run("--with", "lsp") == 2 and "lies beside folders" in capsys.readouterr().err
    assert not Path("out").exists() and not list(Path().glob(".out*"))


def test_names_stay_apart():
    assert png_names(["a.jpg", "b.jpg", "b.png", "c/a.jpg"]) == ["a.png", "b.jpg.png", "b.png.png", "c/a.png"]


def test_poisons_without_a_network():
    assert {"lsp", "ar", "ops", "cuda", "random"} <= set(protecting.without_model())
    assert not {"tap", "em", "clean", "suspect", "external"} & set(protecting.without_model())


def test_a_protected_folder_is_a_folder_of_images(photos):
    """The data card beside the classes is no stray file to `relearn check` and the dataset `folder`."""
    assert run("--with", "lsp") == 0
    assert {path.name for path in Path("out").iterdir() if path.is_file()} == {
        "README.md",
        "manifest.json",
        "SHA256SUMS",
    }
    found = folder.class_files(Path("out"))
    assert {name: len(files) for name, files in found.items()} == {"cat": len(SIZES), "dog": len(SIZES)}
