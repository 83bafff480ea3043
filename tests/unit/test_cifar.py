"""The CIFAR archives: over HTTP, put by hand, damaged, endless."""

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
from helpers.compare import same
from helpers.served import Quiet, Strange
from relearn.datasets.cifar import BYTES, cifar10, cifar10_jpeg, cifar100
from relearn.datasets.folder import folder
from relearn.errors import UserError
from relearn.runtime import download as downloads
from relearn.runtime.torchvision_compat import torchvision

NAMES = ["cat", "dog"]
MAKERS = {"CIFAR10": cifar10, "CIFAR100": cifar100}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def batch(rng, count: int, key: str) -> bytes:
    labels = [i % len(NAMES) for i in range(count)]
    return pickle.dumps({"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8), key: labels})


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
    monkeypatch.setitem(BYTES, request.param, path.stat().st_size)
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
    with tarfile.open(root / source.filename) as tar:
        first = tar.extractfile(f"{source.base_folder}/{source.train_list[0][0]}").read()
    first = pickle.loads(first)["data"][1]
    assert np.array_equal(found.train.images[1].permute(2, 0, 1).numpy().ravel(), first)
    assert found.train.labels[:4].tolist() == [0, 1, 0, 1] and found.test.index.tolist() == list(range(6))
    served.unlink()
    assert torch.equal(maker(root).train.images, found.train.images)
    assert sorted(path.name for path in root.iterdir()) == [".lock", source.filename]


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
    assert f"sent 100 of {len(whole):,} bytes" in refused(maker, source, tmp_path / "root")
    served.write_bytes(whole[:-1] + b"x")
    assert f"sent a file with md5 {md5(whole[:-1] + b'x')}" in refused(maker, source, tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".lock"]
    served.write_bytes(whole)
    assert len(maker(tmp_path / "root").test) == 6


def test_cifar_half_extracted_is_read_from_the_archive(archive, online, tmp_path):
    maker, source, served = archive
    expected = maker(tmp_path / "root").train.images
    with tarfile.open(served) as tar:
        tar.extractall(tmp_path / "root", filter="data")
    extracted = tmp_path / "root" / source.base_folder
    for name in (source.train_list[0][0], source.test_list[0][0], source.meta["filename"]):
        (extracted / name).write_bytes(b"cut")
        found = maker(tmp_path / "root")
        assert torch.equal(found.train.images, expected) and found.classes == NAMES


@pytest.mark.parametrize("extracted", [True, False])
def test_cifar_in_a_folder_that_is_read_only(extracted, archive, offline, tmp_path, monkeypatch):
    """As on a shared disk: neither a lock nor a file may be made in it, or be needed."""
    maker, source, served = archive
    root = tmp_path / "root"
    root.mkdir()
    if extracted:
        with tarfile.open(served) as tar:
            tar.extractall(root, filter="data")
    else:
        (root / source.filename).write_bytes(served.read_bytes())
    before = sorted(root.rglob("*"))
    assert len(maker(root).test) == 6
    assert sorted(root.rglob("*")) == before


def test_cifar_in_a_place_that_is_no_folder(archive, offline, tmp_path):
    maker, source, _ = archive
    (tmp_path / "root").write_text("a file")
    assert "File exists" in refused(maker, source, tmp_path / "root")


@pytest.fixture
def strange(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strange) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("RELEARN_MIRROR", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def test_cifar_from_a_server_that_never_ends(archive, strange, tmp_path, monkeypatch):
    maker, source, served = archive
    monkeypatch.setattr(Strange, "answer", "endless")
    assert f"more than the {served.stat().st_size:,} bytes" in refused(maker, source, tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".lock"]


def test_cifar_from_a_server_that_drips(archive, online, tmp_path, monkeypatch):
    maker, source, _ = archive
    monkeypatch.setattr(downloads, "SLOWEST", 1e12)
    monkeypatch.setattr(downloads, "PATIENCE", 0)
    monkeypatch.setattr(downloads, "CHUNK", 64)
    assert "seconds" in refused(maker, source, tmp_path / "root")


def test_cifar_redirected_to_a_file_of_this_machine(archive, strange, tmp_path, monkeypatch):
    maker, source, served = archive
    monkeypatch.setattr(Strange, "answer", f"to {served.as_uri()}")
    assert "not allowed" in refused(maker, source, tmp_path / "root")
    monkeypatch.setenv("RELEARN_MIRROR", served.parent.as_uri())
    assert "unknown url type" in refused(maker, source, tmp_path / "root")


def test_cifar_members_that_are_links_or_lie_outside_are_not_read(archive, offline, tmp_path, monkeypatch):
    """Only an archive of the published md5 is read; and of that only what is listed, if it is as published."""
    maker, source, _ = archive
    (tmp_path / "root").mkdir()
    path = tmp_path / "root" / source.filename
    with tarfile.open(path, "w:gz") as tar:
        for name, target in ((source.test_list[0][0], "/etc/hostname"), ("../../outside", "x")):
            member = tarfile.TarInfo(f"{source.base_folder}/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    monkeypatch.setattr(source, "tgz_md5", md5(path.read_bytes()))
    with pytest.raises(UserError, match="as published"):
        maker(tmp_path / "root")
    assert [entry.name for entry in (tmp_path / "root").iterdir()] == [source.filename]
    path.write_bytes(b"no archive")
    monkeypatch.setattr(source, "tgz_md5", md5(b"no archive"))
    with pytest.raises(UserError, match="cannot be read"):
        maker(tmp_path / "root")


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


def test_cifar10_as_jpeg_is_what_the_folder_of_its_files_gives(archive, online, tmp_path):
    """Encoded image by image in class folders, then read by `folder`: the same pixels, labels and index."""
    maker, *_ = archive
    if maker is not cifar10:
        pytest.skip("there is one of CIFAR-10 alone")
    plain = maker(tmp_path / "root")
    for part, content in (("train", plain.train), ("test", plain.test)):
        counts = dict.fromkeys(NAMES, 0)
        for image, label in zip(content.images.numpy(), content.labels.tolist(), strict=True):
            place = tmp_path / "files" / part / NAMES[label] / f"{counts[NAMES[label]]:04d}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place, quality=75, subsampling="4:2:0")
            counts[NAMES[label]] += 1
    for own in ({}, {"train_per_class": 2, "test_per_class": 1, "seed": 5}):
        found, expected = cifar10_jpeg(tmp_path / "root", **own), folder(None, path=str(tmp_path / "files"), **own)
        assert same(vars(found.train), vars(expected.train)) and same(vars(found.test), vars(expected.test))
        assert found.classes == expected.classes
    other = cifar10_jpeg(tmp_path / "root", quality=20).train.images
    assert not torch.equal(other, cifar10_jpeg(tmp_path / "root").train.images)
    with pytest.raises(UserError, match="quality is 96"):
        cifar10_jpeg(tmp_path / "root", quality=96)
