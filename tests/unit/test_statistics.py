"""Tables for a benchmark: intervals, chosen names, published figures, seconds beside the tables."""

import json

import pandas
import pytest
from scipy import stats

from helpers.projects import ROOT
from helpers.records import MORE, ROWS, THEIRS, frame
from relearn import registry
from relearn.errors import UserError
from relearn.reporting import seconds, statistics
from relearn.reporting.summaries import by_erm
from relearn.tables.published import COLUMNS, _read


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 30, 201])
def test_quantiles_are_those_of_scipy(share, freedom):
    found = statistics.t_quantile(share, freedom)
    assert found == pytest.approx(stats.t.ppf((1 + share) / 2, freedom), rel=1e-10)
    assert statistics.central_share(found, freedom) == pytest.approx(share)


def test_an_interval_is_that_of_scipy():
    values = pandas.Series([1.0, 2.5, -3.0, 4.0, None])
    low, high = stats.t.interval(0.9, 3, values.mean(), stats.sem(values.dropna()))
    assert statistics.half_width(values, 0.9) == pytest.approx((high - low) / 2)
    assert statistics.half_width(values[:1], 0.9) is None


def test_pairs_are_of_one_seed_poison_and_architecture():
    records = frame(ROWS)
    other = records.assign(arch="cnn", accuracy=records["accuracy"] + 1000)
    table = registry.load("tables", "paired")(pandas.concat([records, other]))
    assert list(table["minus erm"]) == ["+51.0", "+51.0"] and list(table["pairs"]) == [2, 2]
    against_pst = registry.load("tables", "paired")(records, baseline="pst", confidence=0.5)
    assert list(against_pst["minus pst"][:1]) == ["-51.0"] and list(against_pst["50 % interval"][:1]) == [
        "-52.0 to -50.0"
    ]


@pytest.mark.parametrize(
    "name, settings, words",
    [
        ("paired", {"baseline": "emr"}, "did you mean 'erm'"),
        ("paired", {"confidence": 1.0}, "confidence 1 is infinite"),
        ("benchmark", {"baseline": "emr"}, "did you mean 'erm'"),
        ("benchmark", {"methods": ["erm", "gary"]}, "no cell of the grid has the method 'gary'; known: erm, gray"),
        ("benchmark", {"poisons": ["tap"]}, "no cell of the grid has the poison 'tap'.*did you mean 'tap_4'"),
    ],
)
def test_names_that_no_cell_has(name, settings, words):
    with pytest.raises(UserError, match=words):
        registry.load("tables", name)(frame(ROWS + MORE["benchmark"]), **settings)


def test_a_benchmark_of_some_methods_and_poisons():
    make, records = registry.load("tables", "benchmark"), frame(ROWS + MORE["benchmark"])
    table = make(records, methods=["low", "pst"], poisons=["em"])
    assert list(table["method"]) == ["pst", "low"] and list(table["mean rank"]) == [1.0, 2.0]
    assert "tap_4" not in table and list(table["worst poison"]) == ["63.0 (em)", "30.0 (em)"]
    # the baseline counts where the table leaves it out
    assert list(table["clean minus erm"])[:1] == ["-0.5 ± 2.1"]
    clean = make(records[records["poison"] == "clean"])
    assert clean["mean rank"].isna().all() and list(clean["clean"]) == ["91.0 ± 1.4", "87.0 ± 6.6"]


def test_passes_are_over_those_of_the_baseline_on_the_poisons_that_are_shown():
    """By hand: pst makes 1.25 passes on tap_4 and clean data, 5 on em; on tap_4 and clean data erm makes 1."""
    records = frame(ROWS + MORE["benchmark"]).query("seed < 2")
    records.loc[records["method"] == "pst", "passes"] = 1.25
    records.loc[(records["method"] == "pst") & (records["poison"] == "em"), "passes"] = 5.0
    table = registry.load("tables", "benchmark")(records, baseline="pst", methods=["erm", "pst"], poisons=["tap_4"])
    assert table.set_index("method")["passes"].to_dict() == {"erm": 0.8, "pst": 1.0}


def test_blocks_of_a_benchmark_have_their_own_baseline():
    records = frame(ROWS + MORE["benchmark"])
    other = records[records["poison"] != "em"].assign(arch="cnn", passes=2 * records["passes"])
    table = registry.load("tables", "benchmark")(pandas.concat([records, other]))
    assert list(table["arch"]) == ["resnet18"] * 4 + ["cnn"] * 3
    assert table[table["method"] == "erm"]["passes"].tolist() == [1.0, 1.0]
    assert table[table["arch"] == "cnn"]["em"].isna().all()
    assert table[table["arch"] == "cnn"]["mean rank"].tolist() == [1.0, 2.5, 2.5]


# Published figures


def test_the_file_of_the_project_can_be_read():
    rows = _read(ROOT / "workflow/published/cifar10.csv")
    assert len(rows) > 100 and (rows["paper"] != "").all() and rows["accuracy"].between(0, 100).all()
    assert not rows.duplicated(["dataset", "poison", "method", "paper"]).any()
    at = rows.set_index(["poison", "method", "paper"])["accuracy"]
    assert at["tap", "erm", "BridgePure, NeurIPS 2025"] == 9.5 and at["em", "gray", "ISS, README"] == 93.0


@pytest.mark.parametrize(
    "text, words",
    [
        (THEIRS.replace("8.25", "low"), "line 3: accuracy must be a number, or nothing, found 'low'; correct it"),
        (THEIRS.replace("network", "net"), "has no network; it needs dataset, poison, method, network"),
        (",".join(COLUMNS) + "\n", "has no rows"),
        (THEIRS + "cifar10,em\n", "line 6: method must be text, found None"),
        (
            THEIRS.replace("cifar10,", "mnist,"),
            "has no cell of the grid; it has the methods erm, gray on cifar100, mnist",
        ),
    ],
)
def test_a_file_of_another_kind_is_one_line(text, words, tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        registry.load("tables", "published")(frame(ROWS), file=str(path))


def test_further_names_are_pairs(tmp_path):
    (tmp_path / "theirs.csv").write_text(THEIRS)
    with pytest.raises(UserError, match="OURS=PUBLISHED, such as erm_gray=gray, found 'tap'"):
        registry.load("tables", "published")(frame(ROWS), file=str(tmp_path / "theirs.csv"), same=["tap"])


# Seconds


def test_seconds_are_medians_by_device():
    runs = frame(ROWS).assign(seconds=[30.0, 50.0, 40.0, 10.0, 30.0, 20.0], device="cpu, x")
    other = runs[runs["method"] == "pst"].assign(device="gpu", seconds=4.0)
    table = seconds.of_methods(pandas.concat([runs, other]))
    assert list(table["seconds"]) == [40.0, 20.0, 4.0] and list(table["n"]) == [3, 3, 3]
    assert list(table["relative to erm"])[:2] == [2.0, 1.0] and table["relative to erm"].isna()[2]


def test_a_run_without_a_whole_report_has_no_seconds(tmp_path):
    def report(name: str, **content):
        (tmp_path / name).write_text(json.dumps({"seconds": 2.5, "device": "cpu", "processor": "x"} | content))
        return tmp_path / name

    whole, before = report("train.run.json"), report("pretrain.run.json", seconds=1.0)
    assert seconds.of_run([whole, before]) == {"seconds": 3.5, "device": "cpu, x"}
    assert seconds.of_run([whole, tmp_path / "none.json"]) is None
    assert seconds.of_run([whole, report("a.json", resumed=True)]) is None
    assert seconds.of_run([report("b.json", seconds="long")]) is None
    assert seconds.of_run([whole, report("d.json", device="A GPU")]) is None  # seconds of two devices are no sum
    (tmp_path / "c.json").write_text("{")
    assert seconds.of_run([tmp_path / "c.json"]) is None


def test_seconds_are_never_over_those_of_another_method_than_plain_training():
    """Of erm and gray, which both use erm, only gray ran here: there is nothing to divide by."""
    records = frame(ROWS)
    both = pandas.concat([records, records.assign(method="gray", method_use="erm")])
    runs = both.assign(plain=by_erm(both), seconds=10.0, device="cpu, x")
    here = seconds.of_methods(runs[runs["method"] == "gray"])
    assert list(here["method"]) == ["gray"] and here["relative to erm"].isna().all()
    assert (seconds.of_methods(runs)["relative to erm"] == 1).all()
