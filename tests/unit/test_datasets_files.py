"""Datasets that come from files: the CIFAR archives over HTTP, and a folder of images."""

import hashlib
import http.server
import io
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relearn
from relearn.datasets.cifar import cifar10, cifar100
from relearn.datasets.folder import folder
from relearn.errors import UserError
from relearn.runtime.torchvision_compat import torchvision

NAMES = ["cat", "dog"]
MAKERS = {"CIFAR10": cifar10, "CIFAR100": cifar100}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def batch(rng, count: int, key: str) -> bytes:
    labels = [i % len(NAMES) for i in range(count)]
    return pickle.dumps({"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8), key: labels})


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(params=MAKERS)
def archive(request, tmp_path, monkeypatch):
    """A tiny archive under the real name, its md5 sums in place of the official ones: (maker, class, path)."""
    source = getattr(torchvision().datasets, request.param)
    rng = np.random.default_rng(0)
    key = "labels" if request.param == "CIFAR10" else "fine_labels"
    files = {name: batch(rng, 4, key) for name, _ in source.train_list} | {
        name: batch(rng, 6, key) for name, _ in source.test_list
    }
    files[source.meta["filename"]] = pickle.dumps({source.meta["key"]: NAMES})
    (tmp_path / "served").mkdir()
    path = tmp_path / "served" / source.filename
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(f"{source.base_folder}/{name}")
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    monkeypatch.setattr(source, "tgz_md5", md5(path.read_bytes()))
    monkeypatch.setattr(source, "train_list", [[name, md5(files[name])] for name, _ in source.train_list])
    monkeypatch.setattr(source, "test_list", [[name, md5(files[name])] for name, _ in source.test_list])
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(files[source.meta["filename"]])})
    return MAKERS[request.param], source, path


@pytest.fixture
def online(archive, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archive[2].parent))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("RELEARN_MIRROR", f"http://127.0.0.1:{server.server_port}/")
        yield
        server.shutdown()


@pytest.fixture
def offline(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("RELEARN_MIRROR", f"http://127.0.0.1:{port}")


def refused(maker, source, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        maker(root)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        os.environ["RELEARN_MIRROR"].rstrip("/") + "/" + source.filename,
        source.tgz_md5,
        str(root / source.filename),
    ):
        assert part in message
    return message


def test_torchvision_loads_in_a_fresh_process():
    code = (
        "from relearn.runtime.torchvision_compat import torchvision; t = torchvision(); assert torchvision() is t;"
        "t.models.resnet.BasicBlock, t.models.vgg.make_layers, t.datasets.CIFAR10; import torchvision.transforms.v2"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(relearn.__file__).parents[1])}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment)


def test_cifar_is_downloaded_once_and_read(archive, online, tmp_path):
    maker, source, served = archive
    root = tmp_path / "deep" / "root"
    found = maker(root)
    assert found.classes == NAMES and len(found.train) == 4 * len(source.train_list) and len(found.test) == 6
    first = pickle.loads((root / source.base_folder / source.train_list[0][0]).read_bytes())["data"][1]
    assert np.array_equal(found.train.images[1].permute(2, 0, 1).numpy().ravel(), first)
    assert found.train.labels[:4].tolist() == [0, 1, 0, 1] and found.test.index.tolist() == list(range(6))
    served.unlink()
    assert torch.equal(maker(root).train.images, found.train.images)


def test_cifar_subsets_are_seeded_and_independent(archive, online, tmp_path):
    maker = archive[0]
    one, two = (maker(tmp_path / "root", train_per_class=k, test_per_class=2, seed=3) for k in (1, 2))
    assert len(one.train) == 2 and len(two.train) == 4 and torch.equal(one.test.index, two.test.index)
    assert len({tuple(maker(tmp_path / "root", test_per_class=1, seed=s).test.index.tolist()) for s in range(8)}) > 1
    with pytest.raises(UserError, match="99 images per class"):
        maker(tmp_path / "root", train_per_class=99)


def test_cifar_offline_names_the_remedy_which_works(archive, offline, tmp_path):
    maker, source, served = archive
    root = tmp_path / "root"
    assert "the file there" not in refused(maker, source, root)
    (root / source.filename).write_bytes(served.read_bytes())
    assert len(maker(root).test) == 6


def test_cifar_refuses_a_damaged_archive_put_by_hand(archive, offline, tmp_path):
    maker, source, served = archive
    root = tmp_path / "root"
    root.mkdir()
    half = served.read_bytes()[:-20]
    (root / source.filename).write_bytes(half)
    assert f"the file there has md5 {md5(half)}" in refused(maker, source, root)
    assert not (root / source.base_folder).exists()


def test_cifar_truncated_download_is_repaired_by_the_next_try(archive, online, tmp_path):
    maker, source, served = archive
    whole = served.read_bytes()
    served.write_bytes(whole[:100])
    assert f"the file there has md5 {md5(whole[:100])}" in refused(maker, source, tmp_path / "root")
    assert not (tmp_path / "root" / source.base_folder).exists()
    served.write_bytes(whole)
    assert len(maker(tmp_path / "root").test) == 6


def test_cifar_half_extracted_is_extracted_anew(archive, online, tmp_path):
    maker, source, _ = archive
    expected = maker(tmp_path / "root").train.images
    extracted = tmp_path / "root" / source.base_folder
    for name in (source.train_list[0][0], source.test_list[0][0], source.meta["filename"]):
        (extracted / name).write_bytes(b"cut")
        found = maker(tmp_path / "root")
        assert torch.equal(found.train.images, expected) and found.classes == NAMES


def test_cifar_files_of_another_checksum_are_never_unpickled(archive, offline, tmp_path):
    maker, source, served = archive
    with tarfile.open(served) as tar:
        tar.extractall(tmp_path / "root", filter="data")

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    for name in (source.test_list[0][0], source.meta["filename"]):
        file = tmp_path / "root" / source.base_folder / name
        content = file.read_bytes()
        file.write_bytes(pickle.dumps(Trap()))
        refused(maker, source, tmp_path / "root")
        file.write_bytes(content)
    assert not (tmp_path / "sprung").exists()
    assert len(maker(tmp_path / "root").test) == 6


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
