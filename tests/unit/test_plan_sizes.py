"""What relearn plan takes for the size of a dataset, and what it says beside its table."""

import shutil
from pathlib import Path

import pytest

from helpers.params_text import edited
from helpers.projects import ROOT, copy_project
from relearn import params
from relearn.datasets.digits import TEST_PER_CLASS
from relearn.errors import UserError
from relearn.rules.planning import cost, plan, sizes

IMAGES = ("digits: {copies: 1}", "digits: {copies: 1}\n  images: {use: folder, path: data/mine, size: 24}")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A project whose params.yaml names a folder of two classes of 100 and 20 images, one behind a link."""
    copy_project(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")
    for part, label, count in (("train", "a", 100), ("train", "b", 20), ("test", "a", 5), ("test", "b", 5)):
        Path("data/mine", part, label).mkdir(parents=True)
        for number in range(count):
            Path("data/mine", part, label, f"{number}.png").touch()
    shutil.move("data/mine/train/b", "elsewhere")
    Path("data/mine/train/b").symlink_to(Path("elsewhere").absolute())
    return tmp_path / "project"


def of(text: str, dataset: str):
    Path("params.yaml").write_text(text)
    return sizes.size(params.load(), dataset)


def test_a_dataset_that_is_not_prepared_has_the_size_it_will_have(here):
    assert of(edited(IMAGES), "images") == (120, 24, 24)
    assert of(edited(IMAGES).replace("size: 24", "size: 24, train_per_class: 50"), "images") == (70, 24, 24)
    assert of(edited(("{copies: 1}", "{copies: 3, size: 20}")), "digits") == (3 * (1797 - 10 * TEST_PER_CLASS), 20, 20)
    cifar = edited(("digits: {copies: 1}", "digits: {use: cifar100, train_per_class: 7}"))
    assert of(cifar, "digits") == (700, 32, 32)
    assert of(edited(("digits: {copies: 1}", "digits: {use: cifar10}")), "digits") == (50_000, 32, 32)
    shutil.rmtree("data")
    assert of(edited(IMAGES), "images") is None


def test_a_prepared_file_that_is_none_is_one_line(here):
    Path("results/data/digits").mkdir(parents=True)
    Path("results/data/digits/train.safetensors").write_text("x")
    with pytest.raises(UserError, match="train.safetensors is corrupt or not written by relearn"):
        of(edited(), "digits")


def test_plan_says_what_it_times_and_that_a_machine_is_busy(here, monkeypatch, capsys):
    Path("params.yaml").write_text(edited())
    monkeypatch.setattr(cost, "speed", lambda *arguments: (1000.0, 4))
    monkeypatch.setattr(plan, "deterministic", lambda threads: None)
    for load, busy in ((0.0, False), (1000.0, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        text = plan.plan(params.load())
        assert ("this machine is busy (load 1000.0 on " in text) == busy
        assert "60000" not in text
    assert "timing cnn on images of 32x32 ..." in capsys.readouterr().err


@pytest.mark.parametrize(
    "method, expected",
    [("erm", 5), ("view", 12), ("pst_rollback", 5), ("pst", 5 + 2 * 12)],  # two stages that begin anew
)
def test_a_method_is_planned_for_the_epochs_it_may_train(method, expected):
    assert cost.epochs(params.load(ROOT / "workflow/presets/pst.yaml"), "speednet", method) == expected
