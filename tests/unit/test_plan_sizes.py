"""What relearn plan takes for the size of a dataset, and what it says beside its table."""

import shutil
from pathlib import Path

import pytest

from helpers import results
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


def test_a_dataset_that_was_prepared_with_other_settings_has_the_size_it_will_have(here):
    """As prepared, 12 images; of other settings, what these will give."""
    for changed, prepared in (("{copies: 1}", True), ("{copies: 3}", False)):
        results.make()
        assert of(edited(("{copies: 1}", changed)), "digits")[0] == (
            12 if prepared else 3 * (1797 - 10 * TEST_PER_CLASS)
        )


def test_plan_says_what_it_times_and_that_a_machine_is_busy(here, monkeypatch, capsys):
    Path("params.yaml").write_text(edited())
    monkeypatch.setattr(cost, "speed", lambda *arguments, **shown: (1000.0, 4))
    monkeypatch.setattr(plan, "deterministic", lambda threads: None)
    for load, busy in ((0.0, False), (1000.0, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        text = plan.plan(params.load())
        assert ("this machine is busy (load 1000.0 on " in text) == busy
        assert "60000" not in text
    assert "timing cnn on images of 32x32 ..." in capsys.readouterr().err


@pytest.fixture
def timed(monkeypatch) -> list[tuple]:
    """What was timed, at 1,000 images per second, without a network."""
    calls: list[tuple] = []

    def speed(params, arch, height, width, precision, given=None, shown=False, quick=False):
        calls.append((arch, height, width, given))
        return given or 1000.0, 4

    monkeypatch.setattr(cost, "speed", speed)
    monkeypatch.setattr(plan, "deterministic", lambda threads: None)
    return calls


TWO = ("[digits]", "[digits, images]")


def test_jobs_of_a_dataset_of_unknown_size_are_left_out_and_counted(here, timed):
    Path("params.yaml").write_text(edited(IMAGES, TWO))
    whole = plan.plan(params.load())
    shutil.rmtree("data")
    left = plan.plan(params.load())
    assert "not counted" not in whole and ("cnn", 24, 24, None) in timed
    # prepare, a surrogate, two poisons and eight cells
    assert "not counted: 12 jobs of images, which does not say how many images it has; plan again after: rel" in left
    assert "images/clean" in whole and "images/" not in left and "digits/clean" in left


def test_an_architecture_is_timed_for_each_size_of_images(here, timed):
    Path("params.yaml").write_text(edited(IMAGES, TWO))
    plan.plan(params.load())
    assert timed == [("cnn", 32, 32, None), ("cnn", 24, 24, None)]


def test_hours_are_said_to_be_without_purifications(here, timed):
    """Their networks are their own, and not timed: a purify job counts as the start of a process."""
    assert "purify" not in plan.plan(params.load())
    dvae = ("grid:", "  clear: {use: purified, purification: dvae}\npurifications:\n  dvae: {epochs: 7}\ngrid:")
    Path("params.yaml").write_text(edited(dvae))
    lines = plan.plan(params.load()).splitlines()
    [row] = [line.split() for line in lines if line.startswith("purify ")]
    assert row[1:3] == ["2", "14.0"]  # of clean and hypo, two networks of 7 epochs
    assert "hours are without 2 purify jobs, whose own networks are not timed here; their passes are above" in lines


def test_hours_of_each_poison(here, timed):
    Path("params.yaml").write_text(edited(("hypo: {surrogate: small}", "hypo: {surrogate: small, steps: 3000}")))
    rows = {line.split()[0]: line.split()[1:] for line in plan.plan(params.load()).splitlines() if "digits/" in line}
    images = 1797 - 10 * TEST_PER_CLASS
    assert rows["digits/hypo"][0] == "3000.0" and float(rows["digits/hypo"][1]) == pytest.approx(
        (3000 * images / 1000 + plan.STARTUP_SECONDS) / 3600, abs=0.005
    )
    # four cells of two epochs, which evaluate and train start for
    assert rows["digits/clean"][2] == "4" and float(rows["digits/clean"][3]) == pytest.approx(
        4 * (2 * images / 1000 + 2 * plan.STARTUP_SECONDS) / 3600, abs=0.005
    )


def test_the_speed_of_another_device(here, timed, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    Path("params.yaml").write_text(edited())
    for given, word, used in (
        (["20000"], "jobs at the speed given", 20000),
        (["cnn=500"], "jobs on cpu, cnn at 500 images", 500),
        (["cnn=500", "9"], "jobs at the speed given, cnn at 500 images per second", 500),
    ):
        text = plan.plan(params.load(), given=given)
        assert word in text and timed.pop() == ("cnn", 32, 32, used)
        assert ("this machine is busy" in text) == ("20000" not in given and "9" not in given)


@pytest.mark.parametrize(
    "given, words",
    [
        ("fast", "--speed takes images per second, as 3000 or resnet18=3000, found 'fast'"),
        ("cnn=-1", "found 'cnn=-1'"),
        ("nan", "found 'nan'"),
        ("cnn=", "found 'cnn='"),
        ("cn=3", r"unknown architecture 'cn'; known: cnn \(did you mean 'cnn'\?\)"),
    ],
)
def test_a_speed_that_is_none_is_one_line(given, words, here):
    Path("params.yaml").write_text(edited())
    with pytest.raises(UserError, match=words):
        plan.plan(params.load(), given=[given])


def test_what_is_written_for_a_cluster_is_measured(here):
    Path("params.yaml").write_text(edited())
    with pytest.raises(UserError, match="--write asks for the memory .* leave one out"):
        plan.plan(params.load(), write=True, given=["3000"])


def test_a_given_speed_times_nothing(here, monkeypatch, capsys):
    Path("params.yaml").write_text(edited())
    monkeypatch.setattr(cost.time, "perf_counter", lambda: pytest.fail("it was timed"))
    found, weights = cost.speed(params.load(), "cnn", 32, 32, "float32", 123.0)
    assert found == 123.0 and weights > 4000 and "timing" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "method, expected",
    [("erm", 5), ("view", 12), ("pst_rollback", 5), ("pst", 5 + 2 * 12)],  # two stages that begin anew
)
def test_a_method_is_planned_for_the_epochs_it_may_train(method, expected):
    assert cost.epochs(params.load(ROOT / "workflow/presets/pst.yaml"), "speednet", method) == expected


@pytest.mark.parametrize("seconds, batches", [(1e-4, [16] * 7), (1.0, [16] * 7), (2.3, [9] * 7), (100.0, [])])
def test_a_slow_network_is_timed_on_few_images(seconds, batches, here, monkeypatch):
    """`seconds` for 8 images: 7 batches are to take 20 s at most; beyond that these 8 images are all that is timed."""
    Path("params.yaml").write_text(edited(("batch: 64", "batch: 16")))
    seen: list[int] = []
    monkeypatch.setattr(cost, "_seconds", lambda model, x, device: seconds)
    build = cost.models.build

    def noted(*arguments, **settings):
        model = build(*arguments, **settings)
        model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
        return model

    monkeypatch.setattr(cost.models, "build", noted)
    found, _ = cost.speed(params.load(), "cnn", 32, 32, "float32", quick=True)
    assert seen[-7:] == batches and (seconds < 100 or found == pytest.approx(8 / 100))
