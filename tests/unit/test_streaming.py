"""Images that do not fit the memory: kept in files, gathered a batch ahead, with the bytes of resident ones."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.compare import same
from helpers.images import DEVICE
from helpers.training import run_of
from relearn.crafting import perturbation
from relearn.data import Dataset, load_split, save_split
from relearn.datasets.imagenet_mini import imagenet_mini
from relearn.errors import UserError
from relearn.runtime import memory
from relearn.runtime.scratch import room
from relearn.training.batches import Batches
from relearn.training.models import weights


@pytest.fixture
def small(monkeypatch):
    """A machine whose memory holds next to no image."""
    monkeypatch.setattr(memory, "HELD", 1e-12)


def batches_of(images: torch.Tensor) -> list[torch.Tensor]:
    """Batches of an order that goes back, as after a roll-back, and ends."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).split(16)
    maker = Batches(images, torch.device(DEVICE))
    rows = [part if maker.ahead else part.to(DEVICE) for part in order]
    steps = [0, 1, 2, 1, 2, 3, 4]
    nothing = order[0][:0]
    return [maker.take(step, rows[step], (*order, nothing)[step + 1]).cpu() for step in steps]


def test_batches_are_the_same_wherever_the_images_lie(tiny, monkeypatch):
    resident = batches_of(tiny.images.to(DEVICE))
    monkeypatch.setattr(memory, "HELD", 1e-12)
    assert Batches(tiny.images, torch.device(DEVICE)).ahead
    assert same(batches_of(tiny.images), resident)


def test_a_training_on_a_file_is_that_on_memory(tiny, tmp_path, monkeypatch):
    """Whole runs, with the test of an epoch and checkpoints of it: the same weights and history, byte for byte."""
    save_split(tmp_path / "train.safetensors", tiny, {"classes": list("abcdefghij"), "settings": {}})
    found = []
    for held in (0.5, 1e-12):
        monkeypatch.setattr(memory, "HELD", held)
        train = load_split(tmp_path / "train.safetensors")[0].to(DEVICE)
        run = run_of(train)
        assert run.batches.ahead == (held < 0.5)
        for step in range(run.training.steps):
            run.advance()
            if (step + 1) % run.training.steps_per_epoch == 0:
                run.end_epoch(train.pick(torch.arange(20)))
        found.append((weights(run.training.model), run.history))
    assert same(*found)


def test_room_is_a_file_without_a_name(small, tmp_path):
    made = room((3, 4, 5), tmp_path / "new")
    made.fill_(7)
    assert made.dtype == torch.uint8 and made.shape == (3, 4, 5) and int(made.sum()) == 7 * 60
    assert list((tmp_path / "new").iterdir()) == []


def test_room_on_a_full_disk_names_it(small, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=str(tmp_path)):
        room((3,), tmp_path)


def test_poisoned_images_in_a_file_are_those_in_memory(tiny, tmp_path, monkeypatch):
    delta = torch.randint(-8, 9, tiny.images.shape, generator=torch.Generator().manual_seed(0)).float()
    added = perturbation.Perturbation(delta, perturbation.Budget("linf", 8.0))
    resident, measured = perturbation.apply(tiny.images, added)
    monkeypatch.setattr(memory, "HELD", 1e-12)
    monkeypatch.setattr(perturbation, "CHUNK", 7)  # images at once change nothing
    found, again = perturbation.apply(tiny.images, added, room(tuple(tiny.images.shape), tmp_path))
    assert torch.equal(found, resident) and measured == pytest.approx(again, rel=1e-12)


# imagenet_mini


def paint(base: Path, counts: dict[str, int], classes: tuple[str, ...] = ("n01", "n02", "n03"), side: int = 64) -> Path:
    rng = np.random.default_rng(0)
    for part, count in counts.items():
        for label in classes:
            (base / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (side, side + 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(base / part / label / f"{label}_{number}.JPEG", "JPEG")
    return base


def test_imagenet_mini_takes_the_first_classes_and_a_share(tmp_path, monkeypatch):
    base = paint(tmp_path / "own", {"train": 10, "val": 3})
    made = imagenet_mini(tmp_path / "root", path=str(base), classes=2, share=0.3, size=28, shorter=32, seed=4)
    assert made.classes == ["n01", "n02"] and made.train.images.shape == (6, 28, 28, 3) and len(made.test) == 6
    assert made.train.originals == 20 and made.train.labels.tolist() == [0] * 3 + [1] * 3
    numbers = [int(Path(name).stem.partition("_")[2]) + 10 * name.count("n02/") for name in made.files["train"]]
    assert numbers == made.train.index.tolist() and made.files["test"][5] == "val/n02/n02_2.JPEG"
    larger = imagenet_mini(tmp_path / "root", path=str(base), classes=2, share=0.5, size=28, shorter=32, seed=4)
    assert set(made.files["train"]) < set(larger.files["train"])
    whole = imagenet_mini(tmp_path / "root", path=str(base), classes=None, share=1, size=28, shorter=32)
    assert len(whole.train) == 30 and whole.train.originals in (None, 30)
    monkeypatch.setattr(memory, "HELD", 1e-12)
    lazy = imagenet_mini(tmp_path / "root", path=str(base), classes=2, share=0.3, size=28, shorter=32, seed=4)
    assert isinstance(made, Dataset) and same(vars(made.train), vars(lazy.train)) and made.files == lazy.files


def test_imagenet_mini_resizes_then_cuts_out_the_centre(tmp_path):
    """Against all of the image resized, as torchvision does it: a picture of 64x84 is 32x42 before the cut."""
    base = paint(tmp_path / "own", {"train": 2, "val": 1})
    made = imagenet_mini(tmp_path / "root", path=str(base), classes=3, share=1, size=28, shorter=32)
    with Image.open(base / made.files["train"][0]) as image:
        whole = np.asarray(image.resize((42, 32), Image.Resampling.BILINEAR))[2:30, 7:35]
    assert np.abs(made.train.images[0].numpy().astype(int) - whole).max() <= 1


def test_imagenet_mini_refuses_in_one_line(tmp_path):
    base = paint(tmp_path / "own", {"train": 2, "val": 1})

    def wrong(**own) -> str:
        with pytest.raises(UserError) as caught:
            imagenet_mini(tmp_path / "root", **{"path": str(base), "classes": None, "size": 8, "shorter": 8} | own)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "train/ holds 3 class folders, but classes is 100; null takes all" in wrong(classes=100)
    assert "size is 9, more than shorter, 8" in wrong(size=9)
    assert "is not a folder; give one with train/CLASS/ and val/CLASS/" in wrong(path=str(tmp_path / "none"))
    (base / "val" / "ILSVRC2012_val_1.JPEG").write_bytes(b"x")
    assert "val/ILSVRC2012_val_1.JPEG lies outside the folders of the classes" in wrong()
    (base / "val" / "ILSVRC2012_val_1.JPEG").unlink()
    (base / "train" / "n02" / "n02_0.JPEG").write_bytes(b"x")
    assert "train/n02/n02_0.JPEG cannot be read (not an image)" in wrong(share=1)
    (base / "train" / "n04").mkdir()
    assert "class 'n04' is in train/ but not in val/" in wrong()


LIMIT = 500 * 2**20  # bytes
IMAGES = 3600  # of 224 pixels: 542 MB, more than the limit
CHILD = """
import json, sys, threading, time
from pathlib import Path
from relearn.runtime import memory
memory.LIMIT = Path("limit")
def anonymous():
    fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Rss"))
    return 1024 * (int(fields["RssAnon"].split()[0]) + int(fields["RssShmem"].split()[0]))
peaks = {}
def watch():
    while True:
        peaks[now] = max(peaks.get(now, 0), anonymous())
        time.sleep(0.002)
now = "start"
threading.Thread(target=watch, daemon=True).start()
from relearn import grid, params
from relearn.rules import evaluate, poison, prepare, train
memory.keep_freed()
cell = grid.Cell("mini", "clean", "cnn", "erm", 0)
for now, job in (
    ("prepare", lambda: prepare.run(params.load(), "mini")),
    ("poison", lambda: poison.run(params.load(), "mini", "clean")),
    ("train", lambda: train.run(params.load(), cell)),
    ("evaluate", lambda: evaluate.run(params.load(), cell)),
):
    job()
print(json.dumps(peaks))
"""
PARAMS = """
compute: {threads: 1}
datasets:
  mini: {use: imagenet_mini, path: own, classes: null, share: 1}
poisons:
  clean: {}
architectures:
  cnn: {width: 4}
methods:
  erm: {downsample: 8}
train: {epochs: 1, batch: 16, warmup_steps: 1, probe_size: 20, crop_pad: 4}
grid:
  main: {datasets: all, poisons: all, architectures: all, methods: all, seeds: [0]}
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel must tell anonymous memory apart")
def test_a_training_on_more_images_than_the_memory_holds(tmp_path):
    """All jobs of a cell in a process whose anonymous memory (RssAnon and RssShmem) is watched, every 2 ms.

    Pages of files do not count: the kernel drops them as it needs. RLIMIT_DATA would count the private mapping of an
    artifact as if all of it were written. The files are links to few images.
    """
    few = paint(tmp_path / "few", {"train": 20, "val": 2}, ("a", "b"), side=256)
    for label in ("a", "b"):
        (tmp_path / "own" / "train" / label).mkdir(parents=True)
        for number in range(IMAGES // 2):
            target = few / "train" / label / f"{label}_{number % 20}.JPEG"
            (tmp_path / "own" / "train" / label / f"{number}.jpg").symlink_to(target)
    (tmp_path / "own" / "val").symlink_to(few / "val")
    (tmp_path / "limit").write_text(str(LIMIT))
    (tmp_path / "params.yaml").write_text(PARAMS)
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    peaks = json.loads(done.stdout.splitlines()[-1])
    print({name: f"{peak / 2**20:.0f} MB" for name, peak in peaks.items()})
    assert len(peaks) == 5 and max(peaks.values()) < LIMIT
    assert (tmp_path / "results/data/mini/train.safetensors").stat().st_size > LIMIT
    listed = json.loads((tmp_path / "results/data/mini/data.json").read_text())["files"]
    assert len(listed["train"]) == IMAGES and listed["test"][0] == "val/a/a_0.JPEG"


MEASURED = """
import torch
from relearn.crafting import perturbation
from relearn.runtime import memory
def anonymous():
    fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return 1024 * int(fields["RssAnon"].split()[0])
memory.keep_freed()
torch.set_num_threads(1)
held = [torch.empty(8) for _ in range(20000)]  # fill the holes that imports left: what is made next lies behind them
images = torch.zeros(1, 224, 224, 3, dtype=torch.uint8).expand(400, -1, -1, -1)
before = anonymous()
perturbation.measure(images, images)
print(anonymous() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel must tell anonymous memory apart")
def test_measuring_holds_a_few_chunks_however_many_there_are():
    """400 images of 224 pixels are 40 chunks, 6 MB each as floats.

    Older versions of glibc do not find a freed block of 64-byte alignment again unless it has grown by its neighbours.
    A small tensor of each chunk that stays keeps them apart, and the memory grew by a block per chunk: to 2.3 GB for
    3,600 images.
    """
    done = subprocess.run([sys.executable, "-c", MEASURED], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 150 * 2**20


def test_crafting_says_when_its_noise_cannot_fit(tiny, craft, monkeypatch):
    context = craft("em", tiny)
    monkeypatch.setattr(memory, "total", lambda device="cpu": 8 * tiny.images.numel() - 1)
    with pytest.raises(UserError, match="noise for 80 images of 32x32, which crafting holds at once, needs about"):
        context.on_device(tiny)
    context.check_memory(tiny, 1, "cpu")
    monkeypatch.setattr(memory, "total", lambda device="cpu": 4 * tiny.images.numel() - 1)
    with pytest.raises(UserError, match="give fewer or smaller images"):
        context.map_batches(tiny, 16, lambda images, labels, rows: images)
