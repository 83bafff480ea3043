"""The jobs of a cell whose PST ends in a later stage: what is stored, counted, and evaluated."""

import json

import pytest

from helpers.params_text import cell_params
from relearn import __main__, grid
from relearn.runtime import files, structures

PRETRAINING = "pretraining:\n  look: {use: contrastive, epochs: 1}"
PST = """{pretraining: look, plain_first: true, augmented_first: true, full_rate_groups: [3], staged_epochs: 3,
    confirm: 1, probe_steps: 5, kept_trapped: 1.0e+9, gray: 1.0}"""
CELL = "digits/lsp/cnn/pst/0"


@pytest.mark.usefixtures("decided_by_limit")
def test_a_cell_that_ends_in_its_second_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(cell_params({"erm": "{}", "pst": PST}, 2, PRETRAINING))
    for command in ("prepare digits", "poison digits/lsp", "pretrain digits/lsp/cnn/look/0", f"train {CELL}"):
        assert __main__.main(command.split()) == 0, command
    cell = grid.Cell.parse(CELL)
    history = files.read_rows(cell.path("train", "history"), structures.HISTORY)
    assert [(row["epoch"], row["stage"]) for row in history] == [(k, "stage 2") for k in (1, 2, 3)]
    info = json.loads(cell.path("train", "info").read_text())
    steps_per_epoch = history[0]["step"]
    before = 5 + 5  # plain, then augmented, until the first probe that is not the one at step 0
    assert (info["steps"], info["steps_taken"]) == (3 * steps_per_epoch, 3 * steps_per_epoch + before)
    # over the two epochs of plain training: the steps, and two views in the epoch of pretraining
    assert info["passes"] == pytest.approx((info["steps_taken"] / steps_per_epoch + 2) / 2)
    # in grayscale, as the last stage took them: it refuses weights that reach another accuracy than the history's
    assert __main__.main(f"evaluate {CELL}".split()) == 0
    record = json.loads(cell.path("evaluate", "record").read_text())["result"]
    assert record["passes"] == info["passes"] and record["accuracy"] == pytest.approx(history[-1]["test_accuracy"])
