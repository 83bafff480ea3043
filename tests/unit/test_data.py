"""Splits on disk, and what every dataset must hold."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from helpers.compare import same
from helpers.images import coloured
from helpers.projects import ROOT
from relearn.data import (
    Dataset,
    check_dataset,
    count_in_both,
    load_split,
    load_tensors,
    save_split,
    save_tensors,
    subset,
)
from relearn.errors import UserError
from relearn.rules import prepare

FACTS = {"classes": ["NA", "nan", "None"], "settings": {}}


@pytest.fixture
def made() -> Dataset:
    return Dataset(coloured([4, 3, 2], (8, 8), seed=1), coloured([1, 2, 1], (8, 8), seed=2), FACTS["classes"])


def refused(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    return message


def test_a_split_comes_back(made, tmp_path):
    save_split(tmp_path / "split", made.train, FACTS)
    found, facts = load_split(tmp_path / "split")
    assert facts == FACTS and same(vars(found), vars(made.train))


def test_a_part_knows_how_many_the_whole_has(made, tmp_path):
    part = subset(made.train, 1, torch.Generator().manual_seed(0))
    save_split(tmp_path / "part", part.with_images(part.images), FACTS)
    found, facts = load_split(tmp_path / "part")
    assert found.originals == 9 == facts["originals"] and same(vars(found), vars(part))
    assert found.pick(torch.tensor([0])).to("cpu").originals == 9


@pytest.mark.parametrize(
    "tensors, facts, words",
    [
        ({"images": None}, {}, "images is missing"),
        ({"images": torch.zeros(9, 8, 8, 3)}, {}, "images must be uint8"),
        ({"images": torch.zeros(9, 3, 8, 8, dtype=torch.uint8)}, {}, "images must be uint8"),
        ({"labels": torch.zeros(9, 3, dtype=torch.int64)}, {}, "labels must be int64"),
        ({"labels": torch.zeros(9)}, {}, "labels must be int64"),
        ({"labels": torch.full((9,), 3)}, {}, ", of 3 classes"),
        ({"labels": torch.full((9,), -1)}, {}, ", of 3 classes"),
        ({"index": torch.zeros(8, dtype=torch.int64)}, {}, "index must be int64 (9,), found torch.int64 (8,)"),
        ({"images": torch.zeros(9, 0, 8, 3, dtype=torch.uint8)}, {}, "images must be uint8"),
        ({}, {"classes": None}, "classes"),
        ({}, {"classes": [1, 2, 3]}, "classes"),
        ({}, {"settings": "x"}, "settings must be a mapping"),
        ({}, {"originals": "9"}, ", of 9 originals"),
        ({}, {"originals": 8}, ", of 8 originals"),
        ({"index": torch.arange(-1, 8)}, {}, "index goes from -1"),
    ],
)
def test_a_file_of_another_structure_is_no_split(tensors, facts, words, made, tmp_path):
    whole = vars(made.train) | tensors
    save_tensors(tmp_path / "split", {name: t for name, t in whole.items() if t is not None}, FACTS | facts)
    assert words in refused(load_split, tmp_path / "split")


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


IMPOSSIBLE = {"x": {"dtype": "U8", "shape": [2**62, 2**62], "data_offsets": [0, 1]}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 10) + b"{",
        safetensors({}),
        safetensors({"__metadata__": {"facts": "[]"}}),
        safetensors({"__metadata__": {"facts": "5"}}),
        safetensors({"__metadata__": {"facts": "[" * 100_000}}),
        safetensors({"__metadata__": {"facts": "{}"}} | IMPOSSIBLE, b"x"),
        safetensors(
            {"__metadata__": {"facts": "{}"}, "x": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}, b"x"
        ),
        safetensors(b"[" * 100_000),
    ],
    ids=range(11),
)
def test_headers_of_another_structure(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    assert "delete it and run again" in refused(load_tensors, tmp_path / "file")


def test_what_a_dataset_must_hold(made):
    check_dataset("own", made)

    def wrong(**parts) -> str:
        return refused(check_dataset, "own", replace(made, **parts))

    train, test = made.train, made.test
    assert "at least two, of different names" in wrong(classes=["a"])
    assert "at least two, of different names" in wrong(classes=["a", "b", "b"])
    assert "'None' has 1 training images" in wrong(train=coloured([4, 3, 1], (8, 8), seed=1))
    assert "'nan' has 0, 'None' has 0 training" in wrong(train=coloured([4], (8, 8), seed=1))
    assert "'nan' has 0 test images, but 1 of each" in wrong(test=test.pick(torch.nonzero(test.labels != 1).flatten()))
    assert "8x8 but test images are 8x9" in wrong(test=coloured([1, 2, 1], (8, 9), seed=2))
    assert "outside its 3 classes" in wrong(train=replace(train, labels=train.labels + 1))
    assert "outside its 3 classes" in wrong(test=replace(test, labels=test.labels - 1))
    many = [str(k) for k in range(100)]
    assert "and 94 more" in wrong(classes=many, train=coloured([1] * 97 + [2] * 3, (8, 8), seed=1))


def test_images_in_both_splits_are_counted(made):
    assert count_in_both(made) == 0
    assert count_in_both(replace(made, test=made.train.pick(torch.tensor([0, 3, 3])))) == 3


# The rule


@pytest.fixture
def own(project, monkeypatch):
    """A project with the preset `folder`, whose images are drawn by `paint`."""
    monkeypatch.chdir(project.folder)
    (project.folder / "params.yaml").write_text((ROOT / "workflow/presets/folder.yaml").read_text())
    return project.folder


def paint(folder, counts: dict[str, tuple[int, int]], same: bool = False) -> None:
    random = np.random.default_rng(0)
    for name, (train, test) in counts.items():
        for part, count in (("train", train), ("test", test)):
            (folder / "data/images" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((8, 8, 3), 99, np.uint8) if same else random.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "data/images" / part / name / f"{number}.png")


def run() -> None:
    from relearn import params

    prepare.run(params.load(), "images")


def test_prepare_refuses_what_could_not_be_probed_and_writes_nothing(own):
    paint(own, {"a": (3, 1), "b": (1, 1)})
    assert "class 'b' has 1 training images, but 2 of each class are needed" in refused(run)
    assert not list((own / "results").rglob("*.safetensors")) and not list((own / "results").rglob("data.json"))


def test_the_preset_calls_no_suspect_image_clean(own):
    from relearn import params

    found = params.load()
    uses = {found.entry("poisons", name).name for name in found.names("poisons")}
    assert uses == {"suspect"}
    relative = (set(found.names("tables")) | set(found.names("figures"))) & {"relative", "clean_cost", "gallery"}
    assert not relative  # they need clean data


def test_prepare_says_how_many_test_images_were_trained_on(own, capsys):
    paint(own, {"NA": (2, 2), "None": (2, 1)}, same=True)
    run()
    assert "3 of 3 test images are training images too" in capsys.readouterr().err
    info = json.loads((own / "results/data/images/data.json").read_text())
    assert info["classes"] == ["NA", "None"] and info["images_per_class"] == {"test": [2, 1], "train": [2, 2]}


@pytest.mark.parametrize("ratio, per_class", [(1.0, None), (0.5, None), (1.0, 4), (0.5, 4)])
def test_a_foreign_poison_of_the_whole_set_meets_a_subset_and_a_share(ratio, per_class, own):
    """From the folder to the poisoned split: every image gets its own row of the file."""
    from relearn import params
    from relearn.rules import poison

    paint(own, {"a": (8, 1), "b": (6, 1)})
    noise = np.random.default_rng(1).integers(-8, 9, (14, 32, 32, 3)).astype(np.int8)
    np.save(own / "noise.npy", noise)
    content = yaml.safe_load((own / "params.yaml").read_text())
    content["datasets"]["images"] |= {"train_per_class": per_class}
    content["poisons"] |= {"external": {"file": "noise.npy", "ratio": ratio}}
    (own / "params.yaml").write_text(yaml.safe_dump(content))
    run()
    poison.run(params.load(), "images", "external")
    clean, facts = load_split(own / "results/data/images/train.safetensors")
    changed, _ = load_split(own / "results/poisons/images/external/train.safetensors")
    assert len(clean) == (8 if per_class else 14) and facts.get("originals") == (14 if per_class else None)
    expected = (clean.images.int() + torch.from_numpy(noise[clean.index]).int()).clamp(0, 255).to(torch.uint8)
    poisoned = (changed.images != clean.images).flatten(1).any(1)
    assert int(poisoned.sum()) == ratio * len(clean)
    assert torch.equal(changed.images[poisoned], expected[poisoned])
