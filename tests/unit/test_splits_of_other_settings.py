"""Jobs by hand, out of order: a split that was prepared with other settings than what it is used with is refused."""

import shutil
from pathlib import Path

import pytest

from helpers import results
from relearn import grid, params
from relearn.errors import UserError
from relearn.reporting import examples
from relearn.rules import evaluate, surrogate, train
from relearn.runtime import files
from relearn.training.starts import load_clean

CELL = grid.Cell.parse("digits/lsp/cnn/erm/0")
OTHER = results.PARAMS.replace("copies: 1", "copies: 2")
MESSAGE = "was prepared with other settings than what it is used with"
VERDICT = {"group": "block1", "acm": 0.5, "probe_accuracy": 0.5, "hidden_accuracy": 0.5}


@pytest.fixture
def prepared(tmp_path, monkeypatch) -> params.Params:
    """Results of which the test split and data.json were made anew with other settings; params.yaml is as before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")
    results.make(text=OTHER)
    shutil.copytree("results/data", "other")
    results.make()
    shutil.copy("other/digits/test.safetensors", "results/data/digits/test.safetensors")
    return params.load()


def test_a_victim_is_not_tested_on_them(prepared):
    with pytest.raises(UserError, match=f"digits/test.safetensors {MESSAGE}; run prepare"):
        train.run(prepared, CELL)
    info = {"cell": vars(CELL), "settings": grid.settings(prepared, "train", cell=CELL), "precision": "float32"}
    info |= {"verdict": VERDICT | {"kept": 0.9, "verdict": "cannot tell", "reason": "few"}, "passes": 1.0}
    files.write_json(CELL.path("train", "info"), info | {"steps_taken": 3, "steps": 3, "rolled_back": []})
    with pytest.raises(UserError, match=MESSAGE):
        evaluate.run(prepared, CELL)


def test_nor_is_a_surrogate(prepared):
    text = results.PARAMS.replace("architectures:\n", "surrogates:\n  small: {arch: cnn}\narchitectures:\n")
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match=MESSAGE):
        surrogate.run(params.load(), "digits", "small")


def test_clean_images_are_those_that_were_poisoned(prepared):
    text = results.PARAMS.replace("  pst: {}\n", "  added: {use: clean_added, images: 4}\n")
    Path("params.yaml").write_text(text)
    checked, cell = params.load(), grid.Cell.parse("digits/lsp/cnn/added/0")
    settings = grid.settings(checked, "poison", dataset="digits", poison="lsp")
    assert load_clean(checked, CELL, settings) is None
    assert len(load_clean(checked, cell, settings)) == 12
    shutil.copy("other/digits/train.safetensors", "results/data/digits/train.safetensors")
    with pytest.raises(UserError, match=f"digits/train.safetensors {MESSAGE}"):
        load_clean(checked, cell, settings)


def test_a_perturbation_is_the_difference_to_the_images_that_were_poisoned(prepared):
    assert examples.of_poison(prepared, "digits", "lsp")["use"] == "lsp"
    shutil.copy("other/digits/train.safetensors", "results/data/digits/train.safetensors")
    with pytest.raises(UserError, match="lsp/train.safetensors is not made from results/data/digits/train.safetensors"):
        examples.of_poison(prepared, "digits", "lsp")
