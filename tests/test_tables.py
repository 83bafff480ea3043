"""Tables: numbers worked out by hand, and their text byte for byte."""

from pathlib import Path

import pandas
import pytest

from relearn import registry
from relearn.rendering import render

GOLDEN = Path(__file__).parent / "golden"

# Neither poisons nor methods stand in alphabetical order, and pst was not run on clean data. By hand:
#   tap_4/pst   70 74 78  mean 74, deviations -4 0 4, sd = sqrt(32 / 2) = 4; of clean erm 74 / 90 = 82.222222 %
#   tap_4/erm   20 22     mean 21, deviations -1 1,   sd = sqrt(2 / 1) = 1.414214;     21 / 90 = 23.333333 %
#   clean/erm   90        one seed: no sd; 100 %
#   oracle      tap_4/pst 75 77 79: mean 77, sd 2; tap_4/erm 31 31: mean 31, sd 0; epochs (50 + 52 + 57) / 3 = 53, (3 + 4) / 2 = 3.5
#   trapped     0 of 3, 1 of 2, 0 of 1
COLUMNS = "poison method seed accuracy oracle_accuracy oracle_epoch passes acm ratio trapped".split()
ROWS = [
    ("tap_4", "pst", 0, 70.0, 75.0, 50, 1.25, 0.25, 0.5, False),
    ("tap_4", "pst", 1, 74.0, 77.0, 52, 1.25, 0.25, 0.5, False),
    ("tap_4", "pst", 2, 78.0, 79.0, 57, 1.25, 0.25, 0.5, False),
    ("tap_4", "erm", 0, 20.0, 31.0, 3, 1.0, 0.75, 1.0, True),
    ("tap_4", "erm", 1, 22.0, 31.0, 4, 1.0, 0.25, 0.5, False),
    ("clean", "erm", 0, 90.0, 90.5, 59, 1.0, 0.25, 0.5, False),
]


@pytest.fixture
def records():
    return pandas.DataFrame(ROWS, columns=COLUMNS).assign(dataset="cifar10", arch="resnet18")


@pytest.mark.parametrize("suffix", ["csv", "md", "tex"])
@pytest.mark.parametrize("name", ["accuracy", "oracle", "summary"])
def test_golden(records, name, suffix):
    text = render(registry.load("tables", name)(records))[suffix]
    assert text.encode() == (GOLDEN / f"{name}.{suffix}").read_bytes()


def test_blocks_keep_the_order_of_the_grid(records):
    other = records[records["poison"] == "clean"].assign(arch="alexnet")
    table = registry.load("tables", "accuracy")(pandas.concat([records, other]))
    assert list(table["arch"]) == ["resnet18", "resnet18", "alexnet"]
    assert list(table["poison"]) == ["tap_4", "clean", "clean"]
    assert list(table.columns) == ["dataset", "arch", "poison", "pst", "erm", "n"]


def test_without_clean_erm_there_is_no_reference(records):
    table = registry.load("tables", "summary")(records[records["poison"] != "clean"])
    assert table["vs_clean"].isna().all()


def test_render_escapes_and_marks_gaps():
    text = render(pandas.DataFrame({"a_b": ["50 % & more", "x|y"], "value": [1.0, float("nan")], "n": [3, 12]}))
    assert text["csv"] == "a_b,value,n\n50 % & more,1.000000,3\nx|y,,12\n"
    assert text["md"] == "| a_b | value | n |\n| :-- | --: | --: |\n| 50 % & more | 1.00 | 3 |\n| x\\|y | – | 12 |\n"
    assert r"a\_b & value & n \\" in text["tex"] and r"50 \% \& more & 1.00 & 3 \\" in text["tex"] and r"x|y & -- & 12 \\" in text["tex"]
