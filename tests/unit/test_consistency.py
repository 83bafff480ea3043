"""Settings that are fine alone but impossible together, or with the training set: one line before anything is made."""

import pytest
import torch

from helpers.images import coloured
from helpers.params_text import edited
from helpers.training import RECIPE, model_of, run_of
from relearn import params
from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.methods.pst import PST
from relearn.methods.random_frozen import RandomFrozen
from relearn.registry import load, shown
from relearn.runtime import memory
from relearn.training import models
from relearn.training.fit import fit

GROUPS = "(block1, block2, block3, block4, head)"
# what is written instead of what, and what the one error must say
TOGETHER = {
    "nesterov without momentum": (
        "{epochs: 2",
        "{momentum: 0, epochs: 2",
        "train: nesterov needs a momentum above 0; give one, or set nesterov: false",
    ),
    "more checkpoints than epochs": (
        "small: {arch: cnn}",
        "small: {arch: cnn, checkpoints: 3}",
        "surrogates.small: 2 epochs give no 3 checkpoints; give fewer checkpoints",
    ),
    "more checkpoints than its own epochs": (
        "small: {arch: cnn}",
        "small: {arch: cnn, epochs: 1, checkpoints: 2}",
        "surrogates.small: 1 epochs give no 2 checkpoints",
    ),
    "more models than checkpoints": (
        "hypo: {surrogate: small}",
        "hypo: {use: sep, surrogate: small, models: 4}",
        "poisons.hypo: it needs 4 checkpoints of its surrogate, but surrogates.small has 1; set checkpoints: 4 there",
    ),
    "frozen groups beyond those there are": (
        "erm: {}",
        "erm: {use: random_frozen, full_rate_groups: 99}",
        "methods.erm.full_rate_groups: for architectures.cnn it must be less than 5, "
        f"the number of layer groups {GROUPS}, found 99",
    ),
    "all groups kept": (
        "pst: {}",
        "pst: {full_rate_groups: [2, 5]}",
        "methods.pst.full_rate_groups: for architectures.cnn it must be less than 5, ",
    ),
    "no stages": (
        "pst: {}",
        "pst: {full_rate_groups: []}",
        "methods.pst.full_rate_groups: must be a list of at least one",
    ),
    "all groups transplanted": (
        "erm: {}",
        "erm: {use: transplant, surrogate: small, groups: 5}",
        "methods.erm.groups: for architectures.cnn it must be less than 5",
    ),
    "threads": (
        "{threads: 1}",
        "{threads: 100000}",
        "compute.threads: must be a whole number from 1 to 1,024, found 100000",
    ),
    "width": ("{width: 4}", "{width: 1000000}", "architectures.cnn.width: must be a whole number from 1 to 4,096"),
    "pad": ("{epochs: 2", "{crop_pad: 100000, epochs: 2", "train.crop_pad: must be a whole number from 0 to 1,024"),
    "huge number": (
        "{epochs: 2",
        f"{{lr: 1{'0' * 4000}, epochs: 2",
        "train.lr: must be a number above 0, from 1e-9 to 1e9",
    ),
    "huge seed": ("[0, 1]", f"[{2**63}]", "grid.main.seeds: a seed is a whole number, 0 or more, below 2^63, found"),
    "epsilon": (
        "hypo: {surrogate: small}",
        "hypo: {use: tap, surrogate: small, epsilon: 1.0e+300}",
        "poisons.hypo.epsilon: must be a number from 1 to 255, found 1e+300",
    ),
}


@pytest.mark.parametrize("change", TOGETHER.values(), ids=TOGETHER)
def test_check_params_refuses(change, tmp_path):
    old, new, words = change
    (tmp_path / "params.yaml").write_text(edited((old, new)))
    with pytest.raises(UserError) as error:
        params.load(tmp_path / "params.yaml")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'params.yaml'}: {words}") and "\n" not in message and len(message) < 400


def test_a_group_of_an_architecture_that_no_cell_trains_is_no_matter(tmp_path):
    changes = ("pst: {}", "pst: {full_rate_groups: [5]}"), ("cnn: {width: 4}", "cnn: {width: 4}\n  resnet18: {}")
    text = edited(*changes).replace("architectures: [cnn]", "architectures: [resnet18]")
    (tmp_path / "params.yaml").write_text(text)
    params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "method, words",
    [
        (RandomFrozen(full_rate_groups=5), "random_frozen: full_rate_groups must be less than 5"),
        (PST(full_rate_groups=[99]), "pst: full_rate_groups must be less than 5"),
        (PST(full_rate_groups=[2, 5]), "pst: full_rate_groups must be less than 5"),
        (PST(full_rate_groups=[]), "pst: full_rate_groups is empty"),
    ],
)
def test_methods_that_would_do_nothing_are_refused_where_groups_are_not_declared(method, words, tiny):
    with pytest.raises(UserError, match=words):
        run_of(tiny, method)


@pytest.mark.parametrize(
    "recipe, words",
    [
        ({"batch": 81}, "train.batch is 81, but the training set has 80 images"),
        ({"warmup_steps": 16}, "train.warmup_steps is 16, but training has only 15 steps (3 epochs of 5)"),
        (
            {"probe_size": 19},
            "train.probe_size is 19, but a probe set needs 2 images of each of the 10 classes; give 20",
        ),
    ],
)
def test_what_a_training_set_makes_impossible(recipe, words, tiny):
    with pytest.raises(UserError) as error:
        run_of(tiny, **recipe)
    assert str(error.value).startswith(words)


def test_a_crop_that_can_miss_the_image(tiny, craft):
    with pytest.raises(UserError, match="crop_pad is 32, so that a crop can miss an image of 32x32"):
        run_of(tiny, crop_pad=32).advance()
    for name in ("em", "rem", "tap"):
        entry = {"arch": "cnn"} if name != "tap" else {"surrogate": "surrogate"}
        with pytest.raises(UserError, match="crop_pad is 32"):
            load("poisons", name)(tiny, craft(name, tiny), **entry, crop_pad=32)


def test_convolutions_of_no_width():
    with pytest.raises(UserError, match="3 convolutions of width 0 change nothing"):
        ERM(convolutions=3)


@pytest.mark.parametrize("name, more", [("hypo", {"surrogate": "surrogate"}), ("ar", {})])
def test_bounds_that_no_change_can_reach(name, more, tiny, craft):
    with pytest.raises(UserError, match=rf"{name}: an l\w+ bound of 1e\+06 is beyond"):
        load("poisons", name)(tiny, craft(name, tiny), **more, epsilon=1e6)


# Memory


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(memory, "total", lambda device="cpu": 50 * 10**6)


def test_a_network_is_estimated_before_it_is_made(tiny, small_machine, monkeypatch):
    made = []
    monkeypatch.setattr(torch.nn.Conv2d, "reset_parameters", lambda self: made.append(self.weight.device.type))
    with pytest.raises(
        UserError, match=r"training cnn, of 15,\d+,\d+ weights, needs about 0\.2 GB of memory, and cpu has 0"
    ):
        model_of(tiny, width=256)
    assert set(made) == {"meta"}


def test_a_batch_is_estimated_before_the_first_step(tiny, monkeypatch):
    model = model_of(tiny).train()
    before = models.weights(model)
    monkeypatch.setattr(memory, "total", lambda device="cpu": 10**6)
    run = run_of(tiny, model=model)
    how = {"probe_set": run.training.probe_set, "label": "t"}
    with pytest.raises(
        UserError, match=r"training on batches of 16 images needs about .* give a smaller batch under train:"
    ):
        fit(model, ERM(), tiny, tiny, RECIPE, run.seeds, **how)
    assert model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_memory_of_poisons_and_datasets(small_machine, craft, tmp_path):
    many = coloured([20] * 10, (64, 64), seed=1)
    with pytest.raises(UserError, match="lsp with patches of 1 pixels needs about .* choose a larger patch"):
        load("poisons", "lsp")(many, craft("lsp", many), patch=1)
    with pytest.raises(UserError, match="digits: 9 copies of 32x32 pixels needs about"):
        load("datasets", "digits")(tmp_path, copies=9)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 7 TiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: x"),
    ],
)
def test_running_out_of_memory_is_one_line(error):
    words = r"^relearn train x ran out of memory \(.*\); give a smaller batch"
    with pytest.raises(UserError, match=words), memory.explained("relearn train x"):
        raise error
    with pytest.raises(RuntimeError, match="^other$"), memory.explained("relearn train x"):
        raise RuntimeError("other")


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "LIMIT", tmp_path / "memory.max")
    whole = memory.total()
    for text, expected in (("1000000\n", 10**6), ("max\n", whole), (f"{2**62}", whole)):
        memory.LIMIT.write_text(text)
        assert memory.total() == expected


def test_long_values_are_cut():
    assert len(shown("x" * 10_000)) < 100 and len(shown(10**4000)) < 200 and shown([1, "a"]) == "[1, 'a']"
