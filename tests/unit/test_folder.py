"""A folder of the user's own images."""

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.folders import paint, wrong
from relearn.data import load_split, save_split
from relearn.datasets.folder import folder
from relearn.runtime import image_files as reader
from relearn.runtime import memory


def test_folder_in_order(own, monkeypatch):
    for junk in (".DS_Store", "train/Thumbs.db", "train/a/.DS_Store", "test/b/._1.png"):
        (own / junk).write_bytes(b"junk")
    monkeypatch.chdir(own.parent)
    found = folder(None, path="own", size=8)
    assert found.classes == ["a", "b"] and found.train.labels.tolist() == [0] * 12 + [1] * 12
    assert found.train.images.shape == (24, 8, 8, 3) and found.train.images.dtype == torch.uint8
    assert found.train.images[:, 4, 4, 0].tolist() == [10 * n for n in range(1, 13)] * 2  # 2.png before 10.png
    assert found.test.images[12, 4, 4].tolist() == [10, 0, 255] and found.test.index.tolist() == list(range(24))


def test_folder_subset_is_seeded_and_reads_only_what_it_draws(own):
    whole = folder(None, path=str(own), size=8)
    one, again, other = (folder(None, path=str(own), size=8, train_per_class=3, seed=seed) for seed in (5, 5, 6))
    assert one.train.labels.tolist() == [0] * 3 + [1] * 3 and len(one.test) == 24
    assert torch.equal(one.train.index, again.train.index) and not torch.equal(one.train.index, other.train.index)
    assert torch.equal(one.train.images, whole.train.images[one.train.index])
    undrawn = next(number for number in range(12) if number not in one.train.index)
    (own / "train" / "a" / f"{undrawn + 1}.png").write_bytes(b"junk")
    assert torch.equal(folder(None, path=str(own), size=8, train_per_class=3, seed=5).train.images, one.train.images)
    assert f"train/a/{undrawn + 1}.png cannot be read (not an image)" in wrong(own)


def middle(own: Path, size: int = 8) -> list[int]:
    """The centre pixel of train/a's only image."""
    for file in (own / "train" / "a").glob("[1-9]*.png"):
        file.unlink()
    return folder(None, path=str(own), size=size).train.images[0, size // 2, size // 2].tolist()


@pytest.mark.parametrize(
    "mode, colour, options, expected",
    [
        ("L", 100, {}, [100, 100, 100]),
        ("LA", (100, 51), {}, [20, 20, 20]),
        ("RGBA", (200, 100, 50, 51), {}, [40, 20, 10]),
        ("RGB", (200, 100, 50), {"transparency": (200, 100, 50)}, [0, 0, 0]),
        ("P", 1, {}, [1, 1, 1]),
        ("1", 1, {}, [255, 255, 255]),
        ("I;16", 257 * 100, {}, [100, 100, 100]),
        ("I;16", 65535, {}, [255, 255, 255]),
    ],
)
def test_folder_turns_every_mode_into_rgb(mode, colour, options, expected, own):
    image = Image.new(mode, (8, 8), colour)
    if mode == "P":
        image.putpalette([value for value in range(256) for _ in range(3)])
    image.save(own / "train" / "a" / "0.png", **options)
    assert middle(own) == expected


def test_folder_reads_cmyk(own):
    paint(own / "train" / "a" / "0.jpg", (0, 255, 255, 0), mode="CMYK", quality=100)
    red, green, blue = middle(own)
    assert red > 240 and green < 15 and blue < 15


def test_folder_turns_upright_then_crops_the_centre(own):
    stripes = np.zeros((40, 120, 3), dtype=np.uint8)  # a landscape: dark, bright centre, dark, with a red upper half
    stripes[:, 40:80] = 250
    stripes[:20, 40:80, 1:] = 0
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise, so red comes to the right
    Image.fromarray(stripes).save(own / "train" / "a" / "0.jpg", quality=100, exif=exif, subsampling=0)
    middle(own)
    image = folder(None, path=str(own), size=10).train.images[0].int()
    assert (image[1:-1, 1:-1, 0] > 200).all() and (image[:, 6:9, 1] < 60).all() and (image[:, 1:4, 1] > 200).all()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_folder_downsamples_large_photos_without_aliasing(suffix, own):
    lines = np.zeros((400, 500, 3), dtype=np.uint8)
    lines[:, ::2] = 255
    Image.fromarray(lines).save(own / "train" / "a" / f"0.{suffix}", quality=95)
    middle(own)
    image = folder(None, path=str(own), size=10).train.images[0].int()
    assert (image - 127).abs().max() < 6


def test_folder_names_every_error_at_once(own):
    (own / "train" / "a" / "3.png").write_bytes(b"text")
    whole = (own / "test" / "b" / "4.png").read_bytes()
    (own / "test" / "b" / "4.png").write_bytes(whole[:-25])
    (own / "train" / "b" / "notes.txt").write_text("notes")
    (own / "train" / "b" / "inner").mkdir()
    (own / "train" / "loose.png").write_bytes(whole)
    paint(own / "train" / "c" / "1.png")
    paint(own / "test" / "d" / "1.png")
    (own / "train" / "e").mkdir()
    message = wrong(own)
    for part in (
        "train/a/3.png cannot be read (not an image)",
        "test/b/4.png cannot be read",
        "train/b/notes.txt is not an image by its name",
        "train/b/inner is not a file",
        "train/loose.png lies outside",
        "class 'c' is in train/ but not in test/",
        "class 'd' is in test/ but not in train/",
        "train/e holds no images",
    ):
        assert part in message
    for name in ("f", "g", "h"):
        paint(own / "train" / name / "1.png")
    assert "; ... and 2 more" in wrong(own)


def test_folder_without_its_parts(own, tmp_path):
    assert "is not a folder" in wrong(tmp_path / "nowhere")
    (own / "test").rename(own / "elsewhere")
    assert "test/ is missing" in wrong(own)
    (own / "test").mkdir()
    assert "test/ holds no class folders" in wrong(own)


def test_folder_subset_of_too_few(own):
    (own / "test" / "b" / "1.png").unlink()
    assert "test/b has 11 images, but test_per_class is 12" in wrong(own, test_per_class=12)


# What is too large


def test_folder_refuses_images_that_would_fill_the_memory(own, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32)
    monkeypatch.setattr(reader, "MAX_PIXELS", 8 * 8)
    folder(None, path=str(own), size=8)
    paint(own / "train" / "a" / "0.png", size=(10, 10))
    assert "train/a/0.png cannot be read (10x10 is more than 64 pixels)" in wrong(own)
    paint(own / "train" / "a" / "0.png", size=(40, 40))
    assert "exceeds limit of 1024 pixels" in wrong(own)


def test_folder_reads_a_photo_whose_fraction_is_small_enough(own, monkeypatch):
    monkeypatch.setattr(reader, "MAX_PIXELS", 100 * 100)
    paint(own / "train" / "a" / "0.jpg", size=(160, 160))
    assert folder(None, path=str(own), size=8).train.images.shape == (25, 8, 8, 3)


def test_large_images_are_decoded_one_at_a_time(own, monkeypatch):
    monkeypatch.setattr(reader, "LARGE", 1)
    assert len(folder(None, path=str(own), size=8).train) == 24


def test_folder_refuses_a_size_beyond_the_memory_before_it_reads(own, monkeypatch):
    monkeypatch.setattr(memory, "total", lambda device: 2 * 48 * 64 * 3)
    folder(None, path=str(own), size=8)
    monkeypatch.setattr(memory, "total", lambda device: 2 * 48 * 64 * 3 - 1)
    monkeypatch.setattr(reader, "read", None)
    assert "48 images of 8x8 pixels needs" in wrong(own) and "a smaller size or a subset" in wrong(own)


# Names


NAMES = ["001", "NA", "None", "a b", "a$b$", "inf", "nan", "null", "true", "x" * 255, "{x}", "é", "猫"]


def test_class_names_are_text_whatever_they_say(tmp_path):
    for part, name in itertools.product(("train", "test"), NAMES):
        for number in range(2):
            paint(tmp_path / "own" / part / name / f"{number}.png")
    made = folder(None, path=str(tmp_path / "own"), size=8)
    assert made.classes == sorted(NAMES)
    save_split(tmp_path / "train.safetensors", made.train, {"classes": made.classes, "settings": {}})
    assert load_split(tmp_path / "train.safetensors")[1]["classes"] == sorted(NAMES)


@pytest.mark.parametrize("name", [b"a\nb", b"a\tb", b"\xff\xfe", b"a\x1b[31m", "a\u202eb".encode()])
def test_folder_refuses_class_names_that_cannot_be_printed(name, own):
    for part in ("train", "test"):
        os.mkdir(os.fsencode(own / part) + b"/" + name)
    message = wrong(own)
    assert "cannot be printed" in message and message.isprintable() and message.isascii()


def test_messages_stay_short_and_on_one_line(own):
    for number in range(30):
        (own / "train" / "a" / (f"{number}\n" + "y" * 200 + ".png")).write_bytes(b"")
    (own / "train" / os.fsdecode(b"\xff.txt")).write_text("")
    message = wrong(own)
    assert message.isprintable() and len(message) < 2500
    for path in ("z" * 5000, "a\nb", "a\0b", "{x}/$HOME"):
        message = wrong(Path(path))
        assert "is not a folder" in message and message.isprintable() and len(message) < 250
    assert "no one knows the home folder in '~nobody" in wrong(Path("~nobody-of-this-name/images"))


# Links


def test_folder_reads_through_links(own):
    expected = folder(None, path=str(own), size=8)
    (own / "train" / "a").rename(own.parent / "elsewhere")
    (own / "train" / "a").symlink_to(own.parent / "elsewhere")
    assert torch.equal(folder(None, path=str(own), size=8).train.images, expected.train.images)
    (own / "train" / "a" / "99.png").symlink_to(own / "nowhere.png")
    assert "train/a/99.png is not a file" in wrong(own)


def test_folder_refuses_test_images_that_are_links_to_training(own):
    for name in "ab":
        shutil.rmtree(own / "test" / name)
        (own / "test" / name).symlink_to(own / "train" / name)
    assert "train/a and test/a are the same folder; train/b and test/b are the same folder" in wrong(own)
    shutil.rmtree(own / "test")
    (own / "test").symlink_to(own / "train")
    assert "train/a and test/a are the same folder" in wrong(own)
