"""Figures of single runs, through the command line."""

import pytest

from helpers.projects import MINI, link_sources
from relearn import __main__, grid, params
from relearn.runtime.files import write_json, write_rows


@pytest.fixture
def figure(project, monkeypatch, capsys):
    """A function that gives `embedding` these cells and runs a command; the project is that of tests/data/mini.yaml."""
    link_sources(project.folder)
    monkeypatch.chdir(project.folder)
    text = MINI.read_text()

    def run(cells: str, *command: str) -> tuple[int, str]:
        written = text.replace("[digits/clean/cnn/erm/0, digits/lsp/cnn/pst/0]", cells)
        assert written != text
        (project.folder / "params.yaml").write_text(written)
        return __main__.main(list(command)), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "cells, words",
    [
        (
            "[digits/clean/cnn/emr/0]",
            "figures.embedding: 'digits/clean/cnn/emr/0' is not a cell of the grid; known: digits/clean/cnn/erm/0, ",
        ),
        ("[digits/lsp/cnn/erm/7]", "(did you mean 'digits/lsp/cnn/erm/0'?)"),
        ("[]", "figures.embedding.cells: must be a list of at least one, found []"),
        ("[7]", "figures.embedding.cells: must be the name of a cell, found 7"),
        ("digits/clean/cnn/erm/0", "figures.embedding.cells: must be a list, found 'digits/clean/cnn/erm/0'"),
    ],
)
def test_a_figure_of_cells_that_are_not_there(cells, words, figure):
    code, err = figure(cells, "check-params")
    assert code == 2 and words in err and err.count("\n") == 1


def test_a_figure_reads_the_runs_of_its_cells_only(figure):
    figure("[digits/lsp/cnn/pst/0]", "check-params")
    job = grid.job(params.load(), "plot", "embedding")
    runs = {f"results/runs/digits/lsp/cnn/pst/0/{name}" for name in ("train.json", "embeddings.csv")}
    assert set(job.inputs) == {"results/summary/histories.csv", "results/sources/plot.sha256"} | runs


def test_a_figure_of_networks_depends_on_all_that_builds_them(figure):
    figure("[digits/lsp/cnn/pst/0]", "check-params")
    text = (params.FILE).read_text() + "  shallow_filters: {cells: [digits/lsp/cnn/transplant/0]}\n"
    text = text.replace("poisons: [hypo]", "poisons: [lsp]")
    params.FILE.write_text(text)
    job = grid.job(params.load(), "plot", "shallow_filters")
    run = {f"results/runs/digits/lsp/cnn/transplant/0/{name}" for name in ("train.json", "model.safetensors")}
    run |= {"results/runs/digits/lsp/cnn/transplant/0/history.csv", "results/poisons/digits/lsp/train.safetensors"}
    data = {f"results/data/digits/{name}" for name in ("data.json", "train.safetensors")}
    assert set(job.inputs) == run | data | {"results/sources/plot.sha256"}
    assert {"architectures.cnn", "methods.transplant", "compute", "figures.shallow_filters"} == set(job.keys)
    own = ("methods/transplant", "architectures/cnn", "training/models", "probing/shallow")
    assert {f"src/relearn/{name}.py" for name in own} <= set(job.sources)
    others = grid.job(params.load(), "plot", "trap_curves")
    assert "src/relearn/training/models.py" not in others.sources and "results/data/digits/data.json" in others.inputs


def test_a_figure_refuses_a_run_of_other_settings(figure, project):
    folder = project.folder / "results/runs/digits/clean/cnn/erm/0"
    figure("[digits/clean/cnn/erm/0]", "check-params")
    cell = grid.Cell("digits", "clean", "cnn", "erm", 0)
    settings = grid.settings(params.load(), "train", cell=cell)
    write_rows(folder / "embeddings.csv", [{"epoch": 1, "group": "block2", "label": 0, "x": 0.0, "y": 0.0}])
    verdict = {"group": "block2", "acm": 0.1, "probe_accuracy": 0.1, "hidden_accuracy": 0.1, "kept": None}
    verdict |= {"verdict": "cannot tell", "reason": "not yet learned"}
    info = {
        "cell": vars(cell),
        "precision": "float32",
        "verdict": verdict,
        "steps": 1,
        "passes": 1.0,
        "steps_taken": 1,
        "rolled_back": [],
    }
    write_json(folder / "train.json", info | {"settings": settings})
    code, err = figure("[digits/clean/cnn/erm/0]", "plot", "embedding")
    assert code == 2 and "results/summary/histories.csv does not exist" in err  # what was checked so far is good
    write_json(folder / "train.json", info | {"settings": settings | {"train": settings["train"] | {"lr": 0.2}}})
    code, err = figure("[digits/clean/cnn/erm/0]", "plot", "embedding")
    assert code == 2 and "digits/clean/cnn/erm/0 was made with other settings than params.yaml now has" in err
