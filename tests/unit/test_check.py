"""`relearn check` on small folders of images: verdicts, files, the same numbers again, hostile names."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from helpers.images import drawn
from helpers.projects import ROOT
from relearn import __main__
from relearn.params import errors
from relearn.probing import metrics
from relearn.pst.check import run, trials
from relearn.pst.check.sizing import sizes
from relearn.runtime.yaml_loader import read_yaml

SIZES = ("--images", "320", "--epochs", "6", "--width", "8", "--threads", "1")


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 32, 32, 3) uint8 with a bright square in the upper half (class 0) or the lower one (class 1)."""
    labels = torch.arange(count) % 2
    images = torch.randint(60, 120, (count, 32, 32, 3), generator=drawn(seed))
    columns = torch.randint(0, 24, (count,), generator=drawn(seed + 1))
    for image, label, column in zip(images, labels, columns, strict=True):
        top = 2 + 16 * int(label) + int(column) % 4
        image[top : top + 8, column : column + 8] += 50
    return images.to(torch.uint8), labels


def coloured_noise(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The images with stripes of red and green that go by the class, so that their luma hardly changes."""
    signs = 1 - 2 * (torch.arange(32) % 2)
    rows = signs[:, None, None].expand(32, 32, 1) * torch.tensor([40.0, -20.4, 0.0])
    stripes = torch.stack([rows, rows.transpose(0, 1)])[labels]
    return (images + stripes).clamp(0, 255).to(torch.uint8)


def folder(path, images, labels, names=("one", "two")):
    for row, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        (path / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(path / names[label] / f"{row:03}.png")
    return path


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")

    def run(*arguments) -> tuple[int, str, str]:
        code = __main__.main(["check", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_pictures_show_no_sign(check, tmp_path):
    code, out, _ = check(folder(tmp_path / "clean", *pictures(320, 1)), *SIZES)
    assert code == 0 and out.count("\n") == 1 and ": no sign of protection: " in out and "± 0." in out
    found = json.loads((tmp_path / "relearn-check-clean" / "check.json").read_text())
    assert found["trials"]["PST"] == found["trials"]["plain training"] and not found["untrained"]["by_class"]
    assert found["sizes"]["images"] == 320 and found["data"]["used"] == 320


def test_coloured_noise_protects_against_plain_training(check, tmp_path):
    images, labels = pictures(320, 1)
    path = folder(tmp_path / "noisy", coloured_noise(images, labels), labels)
    code, out, _ = check(path, "--original", folder(tmp_path / "before", images, labels), *SIZES)
    assert code == 0 and ": protected against plain training, not against PST: " in out
    found = json.loads((tmp_path / "relearn-check-noisy" / "check.json").read_text())
    assert found["trials"]["plain training"]["verdict"]["answer"] == "trapped"
    page = (tmp_path / "relearn-check-noisy" / "check.html").read_text()
    assert "Original, as given, and the difference times" in page and "grayscale at half the resolution" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "http" not in page.replace("<meta http-equiv=", "")


def test_clean_images_are_measured(check, tmp_path):
    path = folder(tmp_path / "few", *pictures(200, 1))
    code, out, _ = check(path, "--clean", folder(tmp_path / "test", *pictures(60, 5)), "--images", 200, *SIZES[2:])
    found = json.loads((tmp_path / "relearn-check-few" / "check.json").read_text())
    assert code == 0 and found["clean_images"] == 60 and "kept on clean images" in found["verdict"]["findings"][0]
    assert found["trials"]["PST"]["clean"] > 0.8


def test_clean_images_of_other_class_shares_count_as_if_of_the_same(check, tmp_path, monkeypatch):
    """A network that knows class 0 alone has half of the images right, whatever class the clean ones are of."""
    known = torch.tensor([[5.0, 0.0]])
    scores = SimpleNamespace(**vars(metrics) | {"logits": lambda model, images, *_: known.expand(len(images), 2)})
    monkeypatch.setattr(trials, "metrics", scores)
    images, labels = pictures(80, 5)
    rows = torch.cat([torch.nonzero(labels == 0).flatten()[:30], torch.nonzero(labels == 1).flatten()[:10]])
    clean = folder(tmp_path / "test", images[rows], labels[rows])
    path = folder(tmp_path / "few", *pictures(200, 1))
    code, out, err = check(path, "--clean", clean, "--images", 200, "--epochs", 1, "--width", 8, "--threads", 1)
    assert code == 0, err
    found = json.loads((tmp_path / "relearn-check-few" / "check.json").read_text())
    assert found["trials"]["plain training"]["clean"] == pytest.approx(found["trials"]["plain training"]["held_out"])
    assert found["clean_images"] == 40 and found["clean_effective"] == 30
    assert "the 40 clean images are worth 30" in " ".join(found["notes"])


def test_the_command_that_repeats_gives_the_same_numbers(check, tmp_path):
    path = folder(tmp_path / "clean", *pictures(240, 3))
    check(path, "--images", 240, "--epochs", 1, "--width", 8, "--threads", 1, "--out", "first")
    first = json.loads((tmp_path / "first" / "check.json").read_text())
    assert __main__.main([*first["repeat"].split()[1:], "--out", "second"]) == 0
    second = json.loads((tmp_path / "second" / "check.json").read_text())
    for key in ("verdict", "defects", "untrained", "trials", "sizes", "measured", "recipe"):
        assert first[key] == second[key], key


def test_the_time_chooses(check, tmp_path):
    path = folder(tmp_path / "clean", *pictures(200, 3))
    code, out, err = check(path, "--minutes", 60, "--threads", 1, "--epochs", 1)
    found = json.loads((tmp_path / "relearn-check-clean" / "check.json").read_text())
    assert code == 0 and "200 of 200 images" in err and found["speed"]["plain"] > 0 and "--epochs 1" in found["repeat"]


@pytest.mark.parametrize("times, chosen", [({1: 3.0, 2: 1.0}, 2), ({1: 1.0, 2: 3.0}, 1)])
def test_the_faster_number_of_threads_is_taken(check, tmp_path, monkeypatch, times, chosen):
    monkeypatch.setattr(run.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(run, "step_seconds", lambda *_: times[torch.get_num_threads()])
    path = folder(tmp_path / "clean", *pictures(200, 3))
    before = torch.get_num_threads()
    try:
        code, _, err = check(path, "--minutes", 60, "--epochs", 1, "--width", 8)
    finally:
        torch.set_num_threads(before)
    found = json.loads((tmp_path / "relearn-check-clean" / "check.json").read_text())
    assert code == 0 and f"threads {chosen};" in err and found["settings"]["threads"] == chosen
    assert f"--threads {chosen} " in found["repeat"]


def test_thirty_images_are_too_few_and_hostile_names_are_escaped(check, tmp_path):
    hostile = ('<img src=x onerror="alert(1)">', "a&b")
    path = folder(tmp_path / "<b>few", *pictures(30, 1), names=hostile)
    code, out, _ = check(path)
    assert code == 0 and "cannot tell, because there are only 30 images of 2 classes" in out
    page = (tmp_path / "relearn-check-_b_few" / "check.html").read_text()
    assert "onerror" in page and "<img src=x" not in page and "<b>few" not in page and "a&amp;b" in page
    found = json.loads((tmp_path / "relearn-check-_b_few" / "check.json").read_text())
    assert found["data"]["classes"] == sorted(hostile) and found["trials"] == {}


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("nowhere",), "'nowhere' is neither a folder nor a file"),
        (("clean", "--images", "900"), "--images is 900, but there are 240"),
        (("clean", "--minutes", "0"), "--minutes: invalid positive number value: '0'"),
        (("clean", "--clean", "other", *SIZES[2:], "--images", "240"), "--clean has a class 'three'"),
        (("clean", "--clean", "half", *SIZES[2:], "--images", "240"), "--clean has no image of the class 'two'"),
    ],
)
def test_bad_input_is_one_line(check, tmp_path, arguments, told):
    folder(tmp_path / "clean", *pictures(240, 3))
    folder(tmp_path / "other", *pictures(20, 3), names=("one", "three"))
    folder(tmp_path / "half", pictures(20, 3)[0], torch.zeros(20, dtype=torch.int64))
    code, out, err = check(*arguments)
    last = err.splitlines()[-1]
    assert code == 2 and out == "" and last.startswith("relearn: ") and told in last and "Traceback" not in err
    assert not list(tmp_path.glob("relearn-check-*"))


def test_settings_are_those_of_the_presets():
    preset = read_yaml(ROOT / "workflow" / "presets" / "pst.yaml")
    given = trials.parameters(sizes(50_000, 10, 16)).raw
    assert given["methods"]["pst"] == preset["methods"]["pst"] and given["methods"]["erm"] == {}
    assert given["train"] == preset["train"] | {"probe_size": 2000}
    assert given["architectures"]["speednet"] == preset["architectures"]["speednet"]
    assert not [error for error in errors(given) if "missing" not in error]
