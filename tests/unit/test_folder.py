"""A folder of the user's own images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relearn.datasets.folder import folder
from relearn.errors import UserError


def paint(path: Path, colour=(200, 100, 50), size=(8, 8), mode="RGB", **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


@pytest.fixture
def own(tmp_path) -> Path:
    """train/ and test/ with two classes of twelve images; the red of an image is its number times 10."""
    for part in ("train", "test"):
        for name in ("b", "a"):
            for number in range(1, 13):
                paint(tmp_path / "own" / part / name / f"{number}.png", (10 * number, 0, 0 if name == "a" else 255))
    return tmp_path / "own"


def wrong(path: Path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        folder(path, path=str(path), size=8, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_folder_refuses_images_that_would_fill_the_memory(own, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8 * 8)
    folder(None, path=str(own), size=8)
    paint(own / "train" / "a" / "0.png", size=(10, 10))
    assert "train/a/0.png cannot be read" in wrong(own)
