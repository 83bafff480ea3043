"""Tables: numbers worked out by hand, and their text byte for byte."""

import pandas
import pytest

from helpers.projects import DATA
from relearn import registry
from relearn.errors import UserError
from relearn.reporting.rendering import render
from relearn.runtime import files, structures

GOLDEN = DATA / "golden"

# Neither poisons nor methods stand in alphabetical order, and pst was not run on clean data. By hand:
#   tap_4/pst   70 74 78  mean 74, deviations -4 0 4, sd = sqrt(32 / 2) = 4; of clean erm 74 / 90 = 82.222222 %
#   tap_4/erm   20 22     mean 21, deviations -1 1,   sd = sqrt(2 / 1) = 1.414214;     21 / 90 = 23.333333 %
#   clean/erm   90        one seed: no sd; 100 %
#   oracle      tap_4/pst 75 77 79: mean 77, sd 2; tap_4/erm 31 31: mean 31, sd 0;
#               epochs (50 + 52 + 57) / 3 = 53, (3 + 4) / 2 = 3.5
#   trapped     0 of 3, 1 of 2, 0 of 1; one of the three cannot be told, and its share kept is missing
COLUMNS = [
    "poison",
    "method",
    "seed",
    "accuracy",
    "oracle_accuracy",
    "oracle_epoch",
    "passes",
    "acm",
    "kept",
    "verdict",
]
ROWS = [
    ("tap_4", "pst", 0, 70.0, 75.0, 50, 1.25, 0.25, 0.75, "not trapped"),
    ("tap_4", "pst", 1, 74.0, 77.0, 52, 1.25, 0.25, 0.75, "not trapped"),
    ("tap_4", "pst", 2, 78.0, 79.0, 57, 1.25, 0.25, None, "cannot tell"),
    ("tap_4", "erm", 0, 20.0, 31.0, 3, 1.0, 0.75, 0.25, "trapped"),
    ("tap_4", "erm", 1, 22.0, 31.0, 4, 1.0, 0.25, 0.75, "not trapped"),
    ("clean", "erm", 0, 90.0, 90.5, 59, 1.0, 0.25, 0.75, "not trapped"),
]

# Rows that two tables need beside these. By hand:
#   clean_cost  erm 90 92: mean 91, sd sqrt(2); pst 88 93 80: mean 87, deviations 1 6 -7, sd = sqrt(86 / 2) = 6.6;
#               pst minus erm where both ran: -2 1, mean -0.5, sd = sqrt(4.5) = 2.1; passes (1 + 1 + 1.75) / 3 = 1.25
#   relative    of 90: pst 77.8 82.2 86.7, mean 82.2, sd 4.4; erm 22.2 24.4, mean 23.3, sd 1.6; on em 45 / 90 = 50 %;
#               mean over poisons: erm (23.3 + 50) / 2 = 36.7, pst a gap because it was not run on em
MORE = {
    "clean_cost": [
        ("clean", "erm", 1, 92.0, 92.0, 60, 1.0, 0.25, 0.75, "not trapped"),
        ("clean", "pst", 0, 88.0, 88.0, 60, 1.0, 0.25, 0.75, "not trapped"),
        ("clean", "pst", 1, 93.0, 93.0, 60, 1.0, 0.25, 0.75, "not trapped"),
        ("clean", "pst", 2, 80.0, 89.0, 40, 1.75, 0.25, 0.75, "not trapped"),
    ],
    "relative": [("em", "erm", 0, 45.0, 50.0, 5, 1.0, 0.75, 0.25, "trapped")],
}


def frame(rows: list[tuple]) -> pandas.DataFrame:
    """Records of entries that are called what they use."""
    made = pandas.DataFrame(rows, columns=COLUMNS).assign(dataset="cifar10", arch="resnet18")
    return made.assign(method_use=made["method"], poison_use=made["poison"])


@pytest.fixture
def records():
    return frame(ROWS)


@pytest.mark.parametrize("suffix", ["csv", "md", "tex"])
@pytest.mark.parametrize("name", ["accuracy", "oracle", "summary", "clean_cost", "relative"])
def test_golden(name, suffix):
    text = render(registry.load("tables", name)(frame(ROWS + MORE.get(name, []))))[suffix]
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


def test_each_block_has_its_own_reference(records):
    other = records.assign(arch="alexnet", accuracy=records["accuracy"] / 2)
    table = registry.load("tables", "relative")(pandas.concat([records, other]))
    own, others = (
        table[table["arch"] == arch].drop(columns="arch").reset_index(drop=True) for arch in ("resnet18", "alexnet")
    )
    pandas.testing.assert_frame_equal(own, others)
    assert list(own["poison"]) == ["tap_4", "clean", "mean over poisons"]
    # a block without a reference is left out
    table = registry.load("tables", "relative")(pandas.concat([records, other[other["poison"] != "clean"]]))
    assert set(table["arch"]) == {"resnet18"}
    # and one without poisons has no mean over them
    table = registry.load("tables", "relative")(records[records["poison"] == "clean"])
    assert list(table["poison"]) == ["clean"] and list(table["erm"]) == ["100.0"]


@pytest.mark.parametrize("name", ["relative", "clean_cost"])
def test_a_grid_without_clean_data(name, records):
    with pytest.raises(UserError, match=f"{name}: .* 'clean'"):
        registry.load("tables", name)(records[records["poison"] != "clean"])


def test_without_erm_on_clean_data_a_cost_is_a_gap(records):
    clean = records[records["poison"] == "clean"].assign(method="pst", method_use="pst")
    table = registry.load("tables", "clean_cost")(clean)
    assert table["minus erm"].isna().all() and list(table["accuracy"]) == ["90.0"] and list(table["pairs"]) == [0]


def test_render_escapes_and_marks_gaps():
    text = render(pandas.DataFrame({"a_b": ["50 % & more", "x|y"], "value": [1.0, float("nan")], "n": [3, 12]}))
    assert text["csv"] == "a_b,value,n\n50 % & more,1.000000,3\nx|y,,12\n"
    assert text["md"] == "| a_b | value | n |\n| :-- | --: | --: |\n| 50 % & more | 1.00 | 3 |\n| x\\|y | – | 12 |\n"
    assert (
        r"a\_b & value & n \\" in text["tex"]
        and r"50 \% \& more & 1.00 & 3 \\" in text["tex"]
        and r"x|y & -- & 12 \\" in text["tex"]
    )


def test_tables_go_by_what_an_entry_uses(records):
    """An entry called erm may use pst, and one called clean may use lsp: neither is the reference."""
    renamed = records.replace({"method": {"erm": "plain"}, "poison": {"clean": "none"}})
    for name in ("relative", "clean_cost", "summary"):
        table, as_called = (registry.load("tables", name)(found) for found in (renamed, records))
        values = [column for column in table if column not in ("poison", "method", "plain", "erm")]
        pandas.testing.assert_frame_equal(table[values], as_called[values])
    misleading = records.assign(method_use="pst", poison_use="lsp")
    assert registry.load("tables", "summary")(misleading)["vs_clean"].isna().all()
    for name in ("relative", "clean_cost"):
        with pytest.raises(UserError, match="the grid has no cell"):
            registry.load("tables", name)(misleading)


def test_of_several_entries_that_use_erm_the_one_called_so_is_plain(records):
    gray = records[records["poison"] == "clean"].assign(method="gray", accuracy=10.0)
    table = registry.load("tables", "relative")(pandas.concat([gray, records]))
    assert list(table[table["poison"] == "clean"]["erm"]) == ["100.0"]
    two = pandas.concat([gray, records.replace({"method": {"erm": "plain"}})])
    assert registry.load("tables", "summary")(two)["vs_clean"].isna().all()


@pytest.mark.parametrize("called", ["NA", "nan", "None", "null", "inf", "true", "1", ""])
def test_a_name_stays_text_through_a_csv_file(called, tmp_path):
    """Pandas reads such words as missing values, numbers or truths, and whole classes vanish."""
    path = tmp_path / "embeddings.csv"
    files.write_rows(path, [{"epoch": 1, "group": called, "label": called, "x": 0.5, "y": -1.0}])
    assert files.read_rows(path, structures.EMBEDDINGS) == [
        {"epoch": 1, "group": called, "label": called, "x": 0.5, "y": -1.0}
    ]
