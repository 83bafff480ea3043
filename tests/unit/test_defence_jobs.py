"""The jobs of methods that make more passes than plain training, or choose an epoch: what is counted and kept."""

import json
import math
from fractions import Fraction
from types import SimpleNamespace

import pytest

from helpers.params_text import cell_params
from relearn import __main__, grid, params
from relearn.methods import ueraser
from relearn.rules.planning import cost, plan
from relearn.runtime import files, structures

METHODS = {
    "erm": "{}",
    "at": "{steps: 2}",
    "attack": "{use: at, epochs: 2, norm: l2, epsilon: 64}",
    "early_stop": "{held_out: 0.2}",
    "ueraser": "{copies: 3}",
    "ueraser_max": "{}",
    "ueraser_lite": "{}",
    "randaugment": "{}",
}
PASSES = {"erm": 1, "at": 3, "attack": 11, "early_stop": 1, "ueraser": 1.5, "ueraser_max": 5}
PASSES |= {"ueraser_lite": 1, "randaugment": 1}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")
    (tmp_path / "params.yaml").write_text(cell_params(METHODS, epochs=4))
    return tmp_path


def test_passes_are_planned_as_declared(project, monkeypatch):
    loaded = params.load()
    assert {name: cost.passes_per_step(loaded, "cnn", name) for name in PASSES} == PASSES
    for name, expected in PASSES.items():
        epochs = 2 if name == "attack" else 4
        work = plan._train(loaded, (100, 16, 16), grid.Cell.parse(f"digits/lsp/cnn/{name}/0"))
        assert work.passes == expected * epochs


@pytest.mark.parametrize("epochs", [1, 2, 4, 5, 10, 100])
@pytest.mark.parametrize("first", ["0", "0.07", "0.17", "0.25", "0.5", "1"])
def test_passes_of_ueraser_are_those_it_makes(epochs, first):
    """Copies change after an epoch, so a quarter of five epochs is two of them; 0.07 of 100 are 7."""
    expected, first = epochs + 2 * math.ceil(Fraction(first) * epochs), float(first)
    method, made = ueraser.Ueraser(first=first, copies=3), 0
    for epoch in range(1, epochs + 1):
        made += 1 if method.lite else 3
        method.on_epoch(SimpleNamespace(step=epoch * 7, steps=epochs * 7))
    assert ueraser.PASSES_PER_STEP["ueraser"]({"first": first, "copies": 3}, epochs) * epochs == pytest.approx(made)
    assert made == expected


def test_records_count_passes_and_name_the_epoch(project):
    for command in ("prepare digits", "poison digits/lsp"):
        assert __main__.main(command.split()) == 0
    for method, expected in {"at": 3, "ueraser": 1.5, "early_stop": 1}.items():
        cell = grid.Cell.parse(f"digits/lsp/cnn/{method}/0")
        assert __main__.main(["train", str(cell)]) == __main__.main(["evaluate", str(cell)]) == 0
        info = json.loads(cell.path("train", "info").read_text())
        record = json.loads(cell.path("evaluate", "record").read_text())["result"]
        assert info["passes"] == record["passes"] == pytest.approx(expected)
        history = files.read_rows(cell.path("train", "history"), structures.HISTORY)
        if method != "early_stop":
            assert info["outcome"] == {}
            continue
        chosen = info["outcome"]["epoch"]
        assert 1 <= chosen <= 4 and 0 <= info["outcome"]["held_out_accuracy"] <= 100
        # the accuracy of the record is that of the chosen epoch, and the row of the last epoch says the same
        accuracy = history[chosen - 1]["test_accuracy"]
        assert record["accuracy"] == pytest.approx(accuracy) == history[-1]["test_accuracy"]
