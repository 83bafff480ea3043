"""Cells and the arguments of rules: how they are spelled, and where their files lie."""

from pathlib import Path

import pytest

from helpers.params_text import CELL, GOOD, edited
from relearn import grid, params
from relearn.errors import UserError


def test_a_cell_reads_what_it_writes():
    cell = grid.Cell.parse(CELL)
    assert cell == grid.Cell("digits", "clean", "cnn", "erm", 0) and str(cell) == CELL
    assert grid.Cell.parse("a/b/c/d/120").seed == 120


@pytest.mark.parametrize("seed", ["-1", "1.5", "01", "x", "", " 1", "1 ", "+1", "1_0", "\u0661", "0\n"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(UserError, match="the seed of a cell is a whole number, 0 or more; found '"):
        grid.Cell.parse(f"digits/clean/cnn/erm/{seed}")


@pytest.mark.parametrize("text", ["", "digits", "digits/clean/cnn/erm", f"{CELL}/0"])
def test_a_cell_has_five_parts(text):
    with pytest.raises(UserError) as caught:
        grid.Cell.parse(text)
    assert str(caught.value) == f"relearn train takes DATASET/POISON/ARCH/METHOD/SEED, found '{text}'"


def test_paths_of_a_cell():
    cell = grid.Cell.parse(CELL)
    assert cell.path("train", "model") == Path("results/runs", CELL, "model.safetensors")
    assert cell.path("train", "probes") == Path("results/runs", CELL, "probes.csv")
    assert cell.path("evaluate", "record") == Path("results/metrics", CELL, "record.json")
    assert cell.path("poison", "train") == Path("results/poisons/digits/clean/train.safetensors")
    assert cell.path("prepare", "test") == Path("results/data/digits/test.safetensors")


@pytest.mark.parametrize(
    "rule, argument, expected",
    [
        ("prepare", "digits", {"dataset": "digits"}),
        ("surrogate", "digits/small", {"dataset": "digits", "surrogate": "small"}),
        ("poison", "digits/em", {"dataset": "digits", "poison": "em"}),
        (
            "pretrain",
            "digits/em/cnn/stage/3",
            {"dataset": "digits", "poison": "em", "arch": "cnn", "pretraining": "stage", "seed": 3},
        ),
        ("train", CELL, {"cell": grid.Cell("digits", "clean", "cnn", "erm", 0)}),
        ("evaluate", CELL, {"cell": grid.Cell("digits", "clean", "cnn", "erm", 0)}),
        ("aggregate", "", {}),
        ("tabulate", "accuracy", {"table": "accuracy"}),
        ("sources", "train", {"rule": "train"}),
    ],
)
def test_arguments_of_rules(rule, argument, expected):
    assert grid.parse(rule, argument) == expected


@pytest.mark.parametrize(
    "rule, argument, form",
    [
        ("prepare", "", "DATASET"),
        ("prepare", "digits/em", "DATASET"),
        ("poison", "digits", "DATASET/POISON"),
        ("pretrain", "digits/em/cnn/stage", "DATASET/POISON/ARCH/PRETRAINING/SEED"),
        ("aggregate", "all", "no argument"),
    ],
)
def test_arguments_of_another_form(rule, argument, form):
    with pytest.raises(UserError) as caught:
        grid.parse(rule, argument)
    assert str(caught.value) == f"relearn {rule} takes {form}, found '{argument}'"


@pytest.mark.parametrize(
    "rule, argument, message",
    [
        ("train", "digits/clean/cnn/erm/x", "the seed of a cell"),
        ("train", "digits/cleen/cnn/erm/0", r"unknown poison 'cleen' in params.yaml; .*did you mean 'clean'"),
        ("surrogate", "digits/smal", r"unknown surrogate 'smal' in params.yaml; .*did you mean 'small'"),
        ("pretrain", "digits/clean/cnn/stage/x", "the seed of a cell"),
        ("pretrain", "digits/clean/cnn/stage/0", "unknown pretraining 'stage' in params.yaml; known: none"),
        ("sources", "trian", r"unknown rule 'trian'; .*did you mean 'train'"),
    ],
)
def test_jobs_of_names_that_are_not_there(rule, argument, message, tmp_path):
    (tmp_path / "params.yaml").write_text(GOOD)
    with pytest.raises(UserError, match=message):
        grid.job(params.load(tmp_path / "params.yaml"), rule, argument)


def test_settings_of_a_cell_reach_back_to_the_data(tmp_path):
    (tmp_path / "params.yaml").write_text(GOOD)
    checked, cell = params.load(tmp_path / "params.yaml"), grid.Cell.parse("digits/hypo/cnn/pst/1")
    found = grid.settings(checked, "train", cell=cell)
    assert list(found) == ["dataset", "poison", "compute", "train", "architecture", "method"]
    assert found["dataset"]["use"] == "digits" and found["method"]["full_rate_groups"] == [2]
    assert found["poison"]["surrogate_settings"]["surrogate"]["arch"] == "cnn"
    assert grid.settings(checked, "evaluate", cell=cell) == found
    # what a job found in the header of its input stands in the place of what params.yaml says
    read = {"dataset": {"use": "older"}, "poison": {"use": "older"}}
    assert grid.settings(checked, "train", inherited=read, cell=cell) == found | read


# Pretrainings

PRETRAINED = edited(
    (
        "methods:\n",
        "pretraining:\n  stage: {use: contrastive, lr: 0.3}\n  once: {use: supervised, shared: true}\nmethods:\n",
    ),
    ("  erm: {}\n", "  erm: {}\n  a: {use: frozen_pretrained, pretraining: stage}\n  b: {use: a, pretraining: once}\n"),
).replace("use: a,", "use: frozen_pretrained,")


@pytest.fixture
def pretrained(tmp_path) -> params.Params:
    (tmp_path / "params.yaml").write_text(PRETRAINED)
    return params.load(tmp_path / "params.yaml")


def test_pretrainings_are_jobs_before_those_that_start_from_them(pretrained):
    jobs = grid.jobs(pretrained)
    wanted = [job.argument for job in jobs if job.rule == "pretrain"]
    # one for each seed, or one for all
    assert wanted == [
        f"digits/{poison}/cnn/{rest}" for poison in ("clean", "hypo") for rest in ("stage/0", "stage/1", "once/0")
    ]
    by_command = {job.command: job for job in jobs}
    place = {command: number for number, command in enumerate(by_command)}
    for method, seed, own in (("a", 0, "stage/0"), ("a", 1, "stage/1"), ("b", 0, "once/0"), ("b", 1, "once/0")):
        train = by_command[f"relearn train digits/clean/cnn/{method}/{seed}"]
        model = f"results/pretraining/digits/clean/cnn/{own}/model.safetensors"
        assert [name for name in train.inputs if "/pretraining/" in name] == [model]
        assert place[f"relearn pretrain digits/clean/cnn/{own}"] < place[train.command]
    plain = by_command["relearn train digits/clean/cnn/erm/0"]
    assert not [name for name in plain.inputs if "/pretraining/" in name]


def test_a_pretraining_reads_the_poisoned_images_alone(pretrained):
    job = grid.job(pretrained, "pretrain", "digits/hypo/cnn/stage/1")
    assert job.inputs == ("results/poisons/digits/hypo/train.safetensors", "results/sources/pretrain.sha256")
    assert job.keys == ("compute", "train", "architectures.cnn", "pretraining.stage")
    folder = "results/pretraining/digits/hypo/cnn/stage/1"
    assert job.outputs == tuple(f"{folder}/{name}" for name in ("model.safetensors", "history.csv", "pretrain.json"))
    assert "src/relearn/pretraining/contrastive.py" in job.sources
    assert "pretraining" in grid.job(pretrained, "aggregate", "").keys


def test_settings_of_a_cell_reach_back_to_its_pretraining(pretrained):
    cell = grid.Cell.parse("digits/hypo/cnn/a/1")
    found = grid.settings(pretrained, "train", cell=cell)
    own = grid.settings(pretrained, "pretrain", **grid.parse("pretrain", "digits/hypo/cnn/stage/1"))
    assert list(own) == ["dataset", "poison", "compute", "train", "architecture", "pretraining"]
    assert own["pretraining"]["use"] == "contrastive" and own["pretraining"]["lr"] == 0.3
    assert found["method"]["pretraining"] == "stage" and found["method"]["pretraining_settings"] == own
    # what a job found in the header of the weights stands in the place of what params.yaml says
    read = grid.settings(pretrained, "train", starts={"pretraining_settings": {"lr": 7}}, cell=cell)
    assert read["method"] == found["method"] | {"pretraining_settings": {"lr": 7}}
    assert "pretraining_settings" not in grid.settings(pretrained, "train", cell=grid.Cell.parse(CELL))["method"]
