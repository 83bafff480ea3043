"""`relearn diff`: differences worked out by hand, what only one has, settings, and inputs that cannot be compared."""

import re
import shutil
from pathlib import Path

import pandas
import pytest

from helpers import results
from helpers.records import ROWS, frame
from relearn import __main__
from relearn.reporting.pages import comparison

# A has the records of helpers/records.py. B, by hand, in the accuracies:
#   tap_4/pst  73 73 84 of 70 74 78: differences 3 -1 6, mean 8/3 = 2.67, deviations 1/3 -11/3 10/3,
#              sd = sqrt((1 + 121 + 100) / 9 / 2) = 3.51
#   tap_4/erm  25 of 20, seed 1 is not in B, seed 7 not in A: difference 5, no sd, n = 1
#   clean/erm  not in B; clean/pst not in A
OTHER = [
    ("tap_4", "pst", 0, 73.0, 75.0, 50, 1.25, 0.25, 0.75, "not trapped"),
    ("tap_4", "pst", 1, 73.0, 77.0, 52, 1.25, 0.25, 0.75, "not trapped"),
    ("tap_4", "pst", 2, 84.0, 84.0, 57, 1.25, 0.25, 0.75, "not trapped"),
    ("tap_4", "erm", 0, 25.0, 31.0, 3, 1.0, 0.75, 0.25, "trapped"),
    ("tap_4", "erm", 7, 99.0, 99.0, 3, 1.0, 0.75, 0.25, "trapped"),
    ("clean", "pst", 0, 90.0, 90.5, 59, 1.0, 0.25, 0.75, "not trapped"),
]


@pytest.fixture
def diff(tmp_path, monkeypatch, capsys):
    """Run the command in a folder with a.csv and b.csv: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    frame(ROWS).to_csv("a.csv", index=False, float_format="%.6f")
    frame(OTHER).to_csv("b.csv", index=False, float_format="%.6f")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = __main__.main(["diff", *arguments])
        return code, *capsys.readouterr()

    return run


def test_the_values(diff):
    found = comparison.compare(comparison.side("a.csv"), comparison.side("b.csv"))
    expected = pandas.DataFrame(
        [
            ("cifar10", "resnet18", "tap_4", "pst", 74.0, 230 / 3, 8 / 3, (222 / 18) ** 0.5, 3),
            ("cifar10", "resnet18", "tap_4", "erm", 20.0, 25.0, 5.0, float("nan"), 1),
        ],
        columns=["dataset", "arch", "poison", "method", "A", "B", "B - A", "sd", "n"],
    )
    pandas.testing.assert_frame_equal(found.differences, expected, check_dtype=False)
    assert found.only_a == ["cifar10/tap_4/resnet18/erm/1", "cifar10/clean/resnet18/erm/0"]
    assert found.only_b == ["cifar10/tap_4/resnet18/erm/7", "cifar10/clean/resnet18/pst/0"]


def test_what_is_printed(diff):
    code, out, _ = diff("a.csv", "b.csv")
    assert code == 0
    assert out.splitlines() == [
        "| dataset | arch | poison | method | A | B | B - A | sd | n |",
        "| :-- | :-- | :-- | :-- | --: | --: | --: | --: | --: |",
        "| cifar10 | resnet18 | tap_4 | pst | 74.00 | 76.67 | 2.67 | 3.51 | 3 |",
        "| cifar10 | resnet18 | tap_4 | erm | 20.00 | 25.00 | 5.00 | – | 1 |",
        "",
        "A is a.csv, B is b.csv; clean test accuracy after the last epoch, in percent",
        "4 cells in both (2 without seeds); the largest mean difference is +5.00, of cifar10/tap_4/resnet18/erm",
        "only in A: 2 cells: cifar10/tap_4/resnet18/erm/1, cifar10/clean/resnet18/erm/0",
        "only in B: 2 cells: cifar10/tap_4/resnet18/erm/7, cifar10/clean/resnet18/pst/0",
        "settings were not compared: a.csv and b.csv have no params.yaml",
    ]


def test_nothing_in_common(diff):
    other = pandas.read_csv("b.csv").assign(dataset="cifar100")
    other.to_csv("b.csv", index=False)
    code, out, err = diff("a.csv", "b.csv", "--out", "page.html")
    assert code == 2 and out == "" and err.count("\n") == 1 and not Path("page.html").exists()
    assert "a.csv and b.csv have no cell in common: 6 and 6 cells, such as cifar10/tap_4/resnet18/pst/0" in err


@pytest.fixture
def clones(diff, tmp_path, monkeypatch):
    """Two folders with results; of b the epochs, one accuracy and a poison are others."""
    for name, text, skip in (
        ("a", results.PARAMS, ()),
        ("b", results.PARAMS.replace("epochs: 3", "epochs: 4").replace("  pst: {}", "  pst: {gray: 1.0}"), ["x"]),
    ):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        results.make(text=text, skip=skip)
    record = Path("results/metrics/digits/lsp/cnn/erm/0/record.json")
    record.write_text(record.read_text().replace('"accuracy": 32.0', '"accuracy": 34.5'))
    shutil.rmtree("results/metrics/digits/clean")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("summary", [False, True])
def test_folders(clones, diff, tmp_path, monkeypatch, capsys, summary):
    if summary:  # the summary of a folder is what is read, where it has one
        monkeypatch.chdir(tmp_path / "a")
        assert __main__.main(["aggregate"]) == 0
        shutil.rmtree("results/metrics")
        monkeypatch.chdir(tmp_path)
    code, out, _ = diff("a", "b", "--out", "page.html")
    assert code == 0 and "| digits | cnn | lsp | erm | 30.00 | 31.25 | 1.25 | 1.77 | 2 |" in out
    assert "only in A: 4 cells: digits/clean/cnn/erm/0" in out and "only in B" not in out
    assert "params.yaml: 2 settings differ" in out
    assert "| train.epochs | 3 | 4 |" in out and "| methods.pst.gray | not set | 1.0 |" in out
    page = Path("page.html").read_text()
    assert ">1.25<" in page and "methods.pst.gray" in page and "<li>digits/clean/cnn/erm/0</li>" in page
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:|//)""", page)


def test_the_same_folder_has_no_difference(clones, diff):
    code, out, _ = diff("a", "a")
    assert code == 0 and "the largest mean difference is +0.00" in out and "params.yaml: no settings differ" in out


def test_hostile_names_are_escaped_in_the_page_and_shown_on_the_terminal(diff):
    for name in ("a.csv", "b.csv"):
        text = Path(name).read_text().replace("tap_4", "<script>x\x1b[31m</script>|")
        Path(name).write_text(text)
    code, out, _ = diff("a.csv", "b.csv", "--out", "page.html")
    page = Path("page.html").read_text()
    assert code == 0 and page.count("<script") == 1 and "&lt;script&gt;x" in page
    assert "\x1b" not in out and r"<script>x\x1b[31m</script>\|" in out


@pytest.mark.parametrize(
    "text, says",
    [
        (None, "x.csv does not exist"),
        ("", "x.csv has no rows"),
        ("a,b\n1,2\n", "x.csv has no column dataset"),
        ("twice", "x.csv has two records of cifar10/tap_4/resnet18/pst/0"),
    ],
)
def test_a_file_that_cannot_be_compared(diff, text, says):
    if text == "twice":
        text = Path("a.csv").read_text()
        text += text.splitlines()[1] + "\n"
    if text is not None:
        Path("x.csv").write_text(text)
    code, out, err = diff("a.csv", "x.csv")
    assert code == 2 and out == "" and err.count("\n") == 1 and says in err


def test_a_folder_without_records(diff, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = diff("empty", "a.csv")
    assert code == 2 and "empty has no records: neither results/summary/records.csv nor a record.json" in err
