"""Tables: numbers worked out by hand, and their text byte for byte."""

from pathlib import Path

import pandas
import pytest

from helpers.projects import DATA
from helpers.records import MORE, ROWS, THEIRS, frame
from relearn import registry
from relearn.errors import UserError
from relearn.reporting.rendering import render
from relearn.runtime import files, structures

GOLDEN = DATA / "golden"
GOLDEN_TABLES = ["accuracy", "oracle", "summary", "clean_cost", "relative", "benchmark", "paired", "published"]

SETTINGS = {"published": {"file": "theirs.csv", "same": ["tap_4=tap", "erm_gray=gray"]}}


@pytest.fixture
def records():
    return frame(ROWS)


@pytest.mark.parametrize("suffix", ["csv", "md", "tex"])
@pytest.mark.parametrize("name", GOLDEN_TABLES)
def test_golden(name, suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("theirs.csv").write_text(THEIRS)
    table = registry.load("tables", name)(frame(ROWS + MORE.get(name, [])), **SETTINGS.get(name, {}))
    text = render(table)[suffix]
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


def test_two_entries_of_clean_data_are_one(records):
    """Both have the same images, so that their runs are the same: one seed stays one, and no sd comes of its copy."""
    clean = records[records["poison"] == "clean"]
    more = [clean.assign(poison="untouched"), clean.assign(method="pst", method_use="pst", accuracy=88.0)]
    more.append(more[1].assign(poison="untouched"))
    doubled = pandas.concat([records, *more])
    table = registry.load("tables", "clean_cost")(doubled)
    rows = table[["accuracy", "n", "minus erm", "pairs"]].to_numpy().tolist()
    assert sorted(rows) == [["88.0", 1, "-2.0", 1], ["90.0", 1, "0.0", 1]]
    found = registry.load("tables", "benchmark")(doubled).set_index("method")[["clean", "clean minus erm"]]
    assert found.loc["erm"].tolist() == ["90.0", "0.0"] and found.loc["pst"].tolist() == ["88.0", "-2.0"]


def test_the_reference_counts_a_seed_once_however_many_entries_of_clean_data_have_it(records):
    """By hand: seeds of 90 and 80 have the mean 85; with the copy of the first it would be 86.67."""
    clean = records[records["poison"] == "clean"]
    more = [clean.assign(seed=1, accuracy=80.0), clean.assign(poison="untouched")]
    table = registry.load("tables", "summary")(pandas.concat([records, *more]))
    erm = table[(table["poison"] == "tap_4") & (table["method"] == "erm")]
    assert erm["vs_clean"].item() == pytest.approx(100 * 21 / 85)


@pytest.mark.parametrize("called", ["n", "dataset", "arch", "poison"])
@pytest.mark.parametrize("name", ["accuracy", "relative"])
def test_a_method_called_as_a_column_does_not_vanish(name, called, records):
    """A column of its own would be written over by the number of seeds, or the names of the data sets."""
    renamed = records.replace({"method": {"pst": called}})
    with pytest.raises(UserError, match=f"the method '{called}' is called as a column '{called}'"):
        registry.load("tables", name)(renamed)
    assert f"{called} (oracle)" in registry.load("tables", "oracle")(renamed)


@pytest.mark.parametrize("called", ["n", "passes", "clean", "method", "arch"])
def test_a_poison_called_as_a_column_does_not_vanish(called, records):
    renamed = records.replace({"poison": {"clean": "none"}}).replace({"poison": {"tap_4": called}})
    with pytest.raises(UserError, match=f"the poison '{called}' is called as a column '{called}'"):
        registry.load("tables", "benchmark")(renamed)


def test_equal_means_share_a_rank_whatever_their_last_bits():
    """Both means are 178.27 / 3, but summed in floats they differ: 59.423333333333325 and 59.42333333333334."""
    seeds = {"a": (51.07, 37.69, 89.51), "b": (51.20, 37.56, 89.51), "erm": (1.0, 1.0, 1.0)}
    rows = [
        ("em", name, seed, values[seed], 90.0, 1, 1.0, 0.5, 0.5, "trapped")
        for name, values in seeds.items()
        for seed in range(3)
    ]
    table = registry.load("tables", "benchmark")(frame(rows)).set_index("method")
    assert table["mean rank"].to_dict() == {"a": 1.5, "b": 1.5, "erm": 3.0}


@pytest.mark.parametrize(
    ("same", "said"),
    [
        (["tap_4=tapp"], "has no 'tapp'; .* .did you mean 'tap'"),
        (["tap_4=tap", "tap_4=em"], "'tap_4' two names, tap and em"),
    ],
)
def test_names_of_others_that_would_find_nothing_are_refused(same, said, records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("theirs.csv").write_text(THEIRS)
    with pytest.raises(UserError, match=said):
        registry.load("tables", "published")(records, file="theirs.csv", same=same)


@pytest.mark.parametrize("called", ["NA", "nan", "None", "null", "inf", "true", "1", ""])
def test_a_name_stays_text_through_a_csv_file(called, tmp_path):
    """Pandas reads such words as missing values, numbers or truths, and whole classes vanish."""
    path = tmp_path / "embeddings.csv"
    files.write_rows(path, [{"epoch": 1, "group": called, "label": called, "x": 0.5, "y": -1.0}])
    assert files.read_rows(path, structures.EMBEDDINGS) == [
        {"epoch": 1, "group": called, "label": called, "x": 0.5, "y": -1.0}
    ]
