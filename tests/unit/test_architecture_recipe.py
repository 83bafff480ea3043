"""The recipe of an architecture: what it changes, for which jobs, what is refused, and what is planned."""

import pytest

from helpers.params_text import edited
from helpers.training import RECIPE
from relearn import grid, params
from relearn.errors import UserError
from relearn.rules.planning import cost, plan
from relearn.training.recipe import check

OWN = "{optimizer: adamw, lr: 1, epochs: 7, micro_batch: 16}"
TWO = ("cnn: {width: 4}", "cnn: {width: 4}\n  other: {use: cnn, width: 4, recipe: RECIPE}")
ALL = ("architectures: [cnn]", "architectures: all")
MORE = ("small: {arch: cnn}", "small: {arch: cnn}\n  second: {arch: other}")
USED = ("em: {arch: cnn}", "em: {arch: other}\n  tap: {surrogate: second}")
CELLS = {arch: grid.Cell("digits", "clean", arch, "erm", 0) for arch in ("cnn", "other")}


def loaded(tmp_path, recipe: str = OWN, *changes: tuple[str, str]) -> params.Params:
    text = edited(TWO, ALL, MORE, USED, *changes).replace("RECIPE", recipe)
    (tmp_path / "params.yaml").write_text(text)
    return params.load(tmp_path / "params.yaml")


def test_it_stands_in_the_place_of_what_it_sets(tmp_path):
    found = loaded(tmp_path)
    shared = found.recipe
    assert found.recipe_of("cnn") == shared and found.recipe_section("cnn") == "train"
    own = {"optimizer": "adamw", "lr": 1.0, "epochs": 7, "micro_batch": 16}
    assert found.recipe_of("other") == shared | own
    assert type(found.recipe_of("other")["lr"]) is float  # as declared
    assert found.recipe_section("other") == "architectures.other.recipe"
    assert found.architectures == {"cnn": ("cnn", {"width": 4}), "other": ("cnn", {"width": 4})}
    for nothing in ("null", "{}"):
        same = loaded(tmp_path, nothing)
        assert same.recipe_of("other") == shared and same.recipe_section("other") == "train"


def test_the_epochs_of_a_method_come_first(tmp_path):
    found = loaded(tmp_path, OWN, ("erm: {}", "erm: {epochs: 3}"))
    epochs = [found.recipe_of(arch, method)["epochs"] for arch in ("cnn", "other") for method in ("erm", "pst")]
    assert epochs == [3, 2, 3, 7]


def test_settings_of_every_job_that_trains_the_architecture_have_it(tmp_path):
    text = ("methods:\n", "pretraining:\n  supervised: {}\nmethods:\n")
    found, plain = loaded(tmp_path, OWN, text), loaded(tmp_path, "null", text)
    for arch, name, changed in (("cnn", "small", False), ("other", "second", True)):
        how = [
            ("train", {"cell": CELLS[arch]}),
            ("evaluate", {"cell": CELLS[arch]}),
            ("surrogate", {"dataset": "digits", "surrogate": name}),
            (
                "pretrain",
                {"dataset": "digits", "poison": "clean", "arch": arch, "pretraining": "supervised", "seed": 0},
            ),
        ]
        for rule, arguments in how:
            one, two = (grid.settings(checked, rule, **arguments) for checked in (found, plain))
            assert (one != two) == changed, rule
            assert one == two | {"train": found.recipe_of(arch)}
            assert one["architecture"] == {"width": 4, "use": "cnn"}
    # a poison trains by its own settings, whatever the architecture; a surrogate does not
    assert grid.settings(found, "poison", dataset="digits", poison="em") == grid.settings(
        plain, "poison", dataset="digits", poison="em"
    )
    assert grid.settings(found, "poison", dataset="digits", poison="tap") != grid.settings(
        plain, "poison", dataset="digits", poison="tap"
    )


def test_engines_watch_it_for_the_jobs_of_the_architecture_alone(tmp_path):
    found, other = loaded(tmp_path), loaded(tmp_path, "{lr: 0.5}")
    jobs = {job.command: job for job in grid.jobs(found)}
    assert jobs.keys() == {job.command for job in grid.jobs(other)}
    changed = {name for name, job in jobs.items() if grid.values(found, job.keys) != grid.values(other, job.keys)}
    cells = [str(cell) for cell in grid.cells(found) if cell.arch == "other"]
    assert changed == {f"relearn {rule} {cell}" for rule in ("train", "evaluate") for cell in cells} | {
        "relearn aggregate"
    }
    assert "architectures.other" in grid.job(found, "surrogate", "digits/second").keys
    assert "architectures.other" not in grid.job(found, "surrogate", "digits/small").keys


@pytest.mark.parametrize(
    "recipe, words",
    [
        ("{optimizer: adam}", "recipe.optimizer: found 'adam'; known: adamw, muon, sgd (did you mean 'adamw'?)"),
        ("{lrr: 1}", "recipe: unknown setting 'lrr'; known: batch, "),
        ("{epochs: 0}", "recipe.epochs: must be a whole number from 1 to 1,000,000, found 0"),
        ("{lr: null}", "recipe.lr: must be a number above 0, from 1e-9 to 1e9, found None"),
        ("[1]", "recipe: must be a mapping of settings of train:, found [1]"),
        ("3", "recipe: must be a mapping of settings of train:, found 3"),
        ("{momentum: 0}", "recipe: nesterov needs a momentum above 0; give one, or set nesterov: false"),
        ("{micro_batch: 65}", "recipe: micro_batch is 65, more than batch, 64; give a smaller one"),
    ],
)
def test_it_is_checked_as_train_is(recipe, words, tmp_path):
    with pytest.raises(UserError) as error:
        loaded(tmp_path, recipe)
    assert str(error.value).startswith(f"{tmp_path / 'params.yaml'}: architectures.other.{words}")
    assert "\n" not in str(error.value)


def test_what_is_wrong_with_train_is_said_once(tmp_path):
    with pytest.raises(UserError, match="params.yaml: train: nesterov needs a momentum above 0") as error:
        loaded(tmp_path, "{lr: 0.1}", ("{epochs: 2", "{momentum: 0, epochs: 2"))
    assert "architectures" not in str(error.value)


def test_checkpoints_of_a_surrogate_are_of_its_architectures_epochs(tmp_path):
    more = ("second: {arch: other}", "second: {arch: other, checkpoints: 7}")
    loaded(tmp_path, "{epochs: 7}", more)
    with pytest.raises(UserError, match="surrogates.second: 6 epochs give no 7 checkpoints"):
        loaded(tmp_path, "{epochs: 6}", more)


def test_plan_counts_its_epochs_and_times_its_batch(tmp_path, monkeypatch):
    found = loaded(tmp_path)
    assert [cost.epochs(found, arch, "erm") for arch in CELLS] == [2, 7]
    size = (100, 8, 8)
    assert [plan._train(found, size, cell).passes for cell in CELLS.values()] == [2, 7]
    assert [plan._surrogate(found, size, "digits", name).passes for name in ("small", "second")] == [2, 7]
    batches = []
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")
    monkeypatch.setattr(
        cost, "to_float", lambda images: batches.append(len(images)) or images.permute(0, 3, 1, 2) / 255
    )
    for arch in CELLS:
        cost.speed(found, arch, 8, 8, "float32")
    assert batches == [64, 16]


@pytest.mark.parametrize(
    "section, where", [("train", "train"), ("architectures.other.recipe",) * 2, ("pretraining.p", "train")]
)
def test_messages_name_the_place_where_it_can_be_changed(section, where, tiny):
    for key, value in (("probe_size", 19), ("warmup_steps", 16)):
        with pytest.raises(UserError, match=f"^{where}.{key} is {value}, "):
            check(RECIPE | {key: value}, tiny, section)
