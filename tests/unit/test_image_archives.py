"""SVHN, Tiny ImageNet and CINIC-10 from archives of the published formats: over HTTP, damaged, hostile."""

import gzip
import hashlib
import io
import itertools
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from helpers.served import served
from relearn.datasets import image_archives, svhn
from relearn.errors import UserError
from relearn.runtime.archives import Bounds, names
from relearn.runtime.download import Published
from relearn.runtime.torchvision_compat import torchvision

WNIDS = ("n01443537", "n01629819")
TINY, CINIC = "tiny-imagenet-200.zip", "CINIC-10.tar.gz"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """The folder that is served, as the mirror."""
    folder = tmp_path / "served"
    folder.mkdir()
    with served(folder) as address:
        monkeypatch.setenv("RELEARN_MIRROR", address)
        yield folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def published(path: Path) -> Published:
    content = path.read_bytes()
    return Published("it", f"http://nowhere.invalid/{path.name}", len(content), hashlib.md5(content).hexdigest())


def picture(rng, size: int, kind: str, mode: str = "RGB") -> bytes:
    pixels = rng.integers(0, 256, (size, size, 3) if mode == "RGB" else (size, size), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, kind)
    return file.getvalue()


def tiny_files(rng) -> dict[str, bytes]:
    """The members of Tiny ImageNet: numbers that sort otherwise as text, a grey image, test images without answers."""
    base, found = "tiny-imagenet-200", {}
    for wnid in reversed(WNIDS):
        for number in (10, 9, 0):
            mode = "L" if number == 9 else "RGB"
            found[f"{base}/train/{wnid}/images/{wnid}_{number}.JPEG"] = picture(rng, 64, "JPEG", mode)
        found[f"{base}/train/{wnid}/{wnid}_boxes.txt"] = b"0 0 1 1\n"
    lines = []
    for number in (11, 2, 1, 0):
        found[f"{base}/val/images/val_{number}.JPEG"] = picture(rng, 64, "JPEG")
        lines.append(f"val_{number}.JPEG\t{WNIDS[number % 2]}\t0\t0\t62\t62\n")
    found[f"{base}/val/val_annotations.txt"] = "".join(lines).encode()
    found[f"{base}/test/images/test_0.JPEG"] = picture(rng, 64, "JPEG")
    found[f"{base}/wnids.txt"] = "\n".join(WNIDS).encode()
    return found


def cinic_files(rng) -> dict[str, bytes]:
    images = itertools.product(("train", "valid", "test"), ("cat", "airplane"), ("n02123045_7", "cifar10-train-12"))
    found = {f"./{part}/{label}/{name}.png": picture(rng, 32, "PNG") for part, label, name in images}
    return found | {"./README.md": b"CINIC-10", "./train/cat/._x.png": b"?"}


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def pixels(content: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB")))


# What is read


def test_svhn(shelf, rng, tmp_path, monkeypatch):
    counts = {"train": 24, "test": 11}
    images = {part: rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8) for part, count in counts.items()}
    for part, x in images.items():
        y = np.arange(x.shape[3]).reshape(-1, 1) % 10 + 1
        savemat(shelf / f"{part}_32x32.mat", {"X": x, "y": y.astype(np.uint8)}, do_compression=True)
        monkeypatch.setitem(svhn.FILES, part, published(shelf / f"{part}_32x32.mat"))
    found = svhn.svhn(tmp_path / "root")
    assert found.train.labels.tolist() == [(k % 10 + 1) % 10 for k in range(24)] and found.classes[0] == "0"
    assert np.array_equal(found.train.images[5].numpy(), images["train"][..., 5]) and len(found.test) == 11
    few = svhn.svhn(tmp_path / "root", train_per_class=2, seed=1)
    assert few.train.labels.bincount().tolist() == [2] * 10
    with pytest.raises(UserError, match="3 images per class"):
        svhn.svhn(tmp_path / "root", train_per_class=3)


def test_tiny_imagenet(shelf, rng, tmp_path, monkeypatch):
    files = tiny_files(rng)
    monkeypatch.setattr(image_archives, "TINY", published(zipped(shelf / TINY, files)))
    found = image_archives.tiny_imagenet(tmp_path / "root")
    assert found.classes == list(WNIDS) and found.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for row, (wnid, number) in enumerate((wnid, number) for wnid in WNIDS for number in (0, 9, 10)):
        member = files[f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{number}.JPEG"]
        assert torch.equal(found.train.images[row], pixels(member))
    assert found.test.labels.tolist() == [0, 1, 0, 1]
    assert torch.equal(found.test.images[3], pixels(files["tiny-imagenet-200/val/images/val_11.JPEG"]))
    (shelf / TINY).unlink()
    few = image_archives.tiny_imagenet(tmp_path / "root", train_per_class=1, test_per_class=1, seed=3)
    assert few.train.originals == 6 and torch.equal(few.train.images, found.train.images[few.train.index])
    assert torch.equal(few.test.images, found.test.images[few.test.index])


def test_cinic10(shelf, rng, tmp_path, monkeypatch):
    files = cinic_files(rng)
    monkeypatch.setattr(image_archives, "CINIC", published(tarred(shelf / CINIC, files)))
    found = image_archives.cinic10(tmp_path / "root")
    assert found.classes == ["airplane", "cat"] and len(found.train) == len(found.test) == 4  # none of valid/
    assert torch.equal(found.train.images[0], pixels(files["./train/airplane/cifar10-train-12.png"]))
    assert torch.equal(found.test.images[3], pixels(files["./test/cat/n02123045_7.png"]))
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == [".lock", CINIC]


# What is refused, in one line


def refused(make, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        make(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=["tiny_imagenet", "cinic10"])
def archive(request, shelf, rng, monkeypatch):
    """The function, and a function that puts an archive of these files on the shelf, its md5 the published one."""
    name, file, write, files = {
        "tiny_imagenet": ("TINY", TINY, zipped, tiny_files(rng)),
        "cinic10": ("CINIC", CINIC, tarred, cinic_files(rng)),
    }[request.param]

    def put(change: dict[str, bytes] | None = None) -> Path:
        path = write(shelf / file, files | (change or {}))
        monkeypatch.setattr(image_archives, name, published(path))
        return path

    return getattr(image_archives, request.param), put, files


def test_a_wrong_checksum_and_a_short_download(archive, tmp_path):
    make, put, _ = archive
    path = put()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "it sent a file with md5" in refused(make, tmp_path / "root")
    path.write_bytes(whole[:100])
    assert f"sent 100 of {len(whole):,} bytes" in refused(make, tmp_path / "root")
    path.write_bytes(whole + b"x")
    assert f"more than the {len(whole):,} bytes" in refused(make, tmp_path / "root")
    assert [entry.name for entry in (tmp_path / "root").iterdir()] == [".lock"]


def test_an_archive_that_is_cut_off(archive, shelf, tmp_path, monkeypatch):
    """Its md5 is the published one, as if it had been published so."""
    make, put, _ = archive
    path = put()
    path.write_bytes(path.read_bytes()[:-300])
    name = "TINY" if path.suffix == ".zip" else "CINIC"
    monkeypatch.setattr(image_archives, name, published(path))
    assert "cannot be read" in refused(make, tmp_path / "root")


@pytest.mark.parametrize("name", ["../outside.png", "/outside.png", "train/../../x", "a\\..\\x"])
def test_a_member_that_lies_outside(archive, tmp_path, name):
    make, put, _ = archive
    put({name: b"x"})
    assert "lies outside" in refused(make, tmp_path / "root")
    assert not list(tmp_path.rglob("outside.png"))


def test_an_archive_that_unpacks_to_too_much(archive, tmp_path, monkeypatch):
    make, put, files = archive
    put({"bomb": bytes(2**23)})
    assert "'bomb' it unpacks to" in refused(make, tmp_path / "root")
    put()
    monkeypatch.setattr(image_archives, "BOUNDS", Bounds(2**22, sum(map(len, files.values())) - 1))
    assert "it unpacks to" in refused(make, tmp_path / "root")


def test_an_image_that_is_none_or_of_another_size(archive, rng, tmp_path):
    make, put, files = archive
    name = next(name for name in files if "train/" in name and name.endswith(("0.JPEG", "7.png")))
    put({name: b"no image"})
    assert f"{name} cannot be read (not an image)" in refused(make, tmp_path / "one")
    put({name: picture(rng, 40, "PNG")})
    assert "40x40 pixels, not" in refused(make, tmp_path / "two")
    put({name: files[name][:200]})
    assert f"{name} cannot be read" in refused(make, tmp_path / "three")


def test_links_and_names_that_come_twice(tmp_path):
    path = tmp_path / "links.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("train/cat/1.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(member)
    with pytest.raises(UserError, match="is a link"):
        names(path, Bounds(10, 10))
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        for _ in range(2):
            archive.writestr("a", b"x")
    with pytest.raises(UserError, match="is there twice"):
        names(tmp_path / "twice.zip", Bounds(10, 10))
    (tmp_path / "none.zip").write_bytes(gzip.compress(b"no archive"))
    with pytest.raises(UserError, match="cannot be read"):
        names(tmp_path / "none.zip", Bounds(10, 10))


def test_svhn_that_is_no_matlab_file(shelf, tmp_path, monkeypatch):
    for part in svhn.FILES:
        (shelf / f"{part}_32x32.mat").write_bytes(b"MATLAB 5.0" + bytes(500))
        monkeypatch.setitem(svhn.FILES, part, published(shelf / f"{part}_32x32.mat"))
    assert "cannot be read" in refused(svhn.svhn, tmp_path / "root")
    savemat(shelf / "train_32x32.mat", {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.full((4, 1), 11)})
    monkeypatch.setitem(svhn.FILES, "train", published(shelf / "train_32x32.mat"))
    assert "labels lie outside 1 to 10" in refused(svhn.svhn, tmp_path / "other")


def test_answers_that_name_no_image(shelf, rng, tmp_path, monkeypatch):
    answers = {image_archives.TINY_ANSWERS: b"val_77.JPEG\tn01443537\n"}
    monkeypatch.setattr(image_archives, "TINY", published(zipped(shelf / TINY, tiny_files(rng) | answers)))
    assert "names images that are not there" in refused(image_archives.tiny_imagenet, tmp_path / "root")
    files = {name: content for name, content in tiny_files(rng).items() if WNIDS[1] not in name or "val" in name}
    monkeypatch.setattr(image_archives, "TINY", published(zipped(shelf / TINY, files)))
    assert "lacks training or test images" in refused(image_archives.tiny_imagenet, tmp_path / "other")


def test_the_published_checksums_are_those_torchvision_has():
    """What of them another library knows."""
    for part, file in svhn.FILES.items():
        url, name, md5 = torchvision().datasets.SVHN.split_list[part]
        assert (file.url, file.filename, file.md5) == (url, name, md5)
