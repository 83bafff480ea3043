"""The grid of the paper, as a newcomer meets it: without data, without a GPU."""

import re

import pytest

from helpers.engines import run
from helpers.projects import copy_project


@pytest.mark.slow
def test_the_paper_resolves_and_its_hours_are_told_without_data(tmp_path, log):
    folder = tmp_path / "copy"
    copy_project(folder)
    assert "360 cells, 803 jobs" in run(folder, "relearn", "preset", "paper")
    planned = run(folder, "relearn", "plan", "--speed", "4000", "--speed", "resnet18=8000")
    assert "not counted" not in planned  # the sizes of the data sets are declared
    total = re.search(r"^all +803 +(?P<hours>[\d.]+) +\d+$", planned, re.MULTILINE)
    assert total and 50 < float(total["hours"]) < 1000
    # 200 passes of 50,000 images at 8,000 a second, and a start
    em = re.search(r"^cifar10/em +201\.0 +(?P<hours>[\d.]+)", planned, re.MULTILINE)
    assert em and float(em["hours"]) == pytest.approx(201.024 * 50_000 / 8000 / 3600, abs=0.02)
    dry = run(folder, "snakemake", "-n", "--quiet", "rules", "--cores", "1")
    assert re.search(r"^train +360$", dry, re.MULTILINE) and re.search(r"^total +804$", dry, re.MULTILINE)
    log(f"preset paper: {total['hours']} hours on a GPU that trains resnet18 at 8,000 images a second, others at 4,000")
