"""What `snakemake --report` and `dvc plots show` show of a finished grid."""

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from helpers.engines import PRESET, copy, run
from relearn import grid, params
from relearn.runtime import structures

FIGURES = "figures:\n  trap_curves: {}\n  accuracy_matrix: {relative: true}\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A copy of the project in which everything that is shown has been made: files of a pixel or a line."""
    folder = copy(tmp_path_factory.mktemp("reports") / "copy", PRESET)
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.partition("\nfigures:")[0] + "\n" + FIGURES)
    run(folder, "relearn", "grid", "--write")
    for job in grid.jobs(params.load(folder / "params.yaml")):
        for name in job.outputs if job.rule in ("aggregate", "tabulate", "plot") else ():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".png"):
                Image.new("RGB", (1, 1)).save(folder / name)
            else:
                columns = [*structures.HISTORIES, "poison_use"]
                (folder / name).write_text("{}" if name.endswith(".json") else f"{','.join(columns)}\n")
    return folder


def test_dvc_plots_lists_the_curves_and_the_figures(finished):
    names = ["histories.csv", "trap_curves.png", "accuracy_matrix.png"]
    definitions = json.loads(run(finished, "dvc", "plots", "show", "--json").splitlines()[-1])
    assert [Path(name).name for name in definitions["data"]] == names


def test_the_report_of_snakemake_has_every_figure_and_table_with_its_caption(finished):
    run(finished, "snakemake", "--report", "report.zip")
    with zipfile.ZipFile(finished / "report.zip") as report:
        names = [Path(name).name for name in report.namelist()]
        page = "".join(report.read(name).decode() for name in report.namelist() if name.endswith((".html", ".js")))
    assert {"trap_curves.png", "accuracy_matrix.png", "accuracy.csv"} <= set(names)
    for words in ("take turns", "undoes part of it", "a dash marks a combination", "Training images that were changed"):
        assert words in page, words
