"""A name that the changelog calls old is gone from the sources, from comments and texts too."""

import re

import pytest

from helpers.projects import ROOT

ROW = re.compile(r"^\| `(?P<old>[^`]+)` \|", re.MULTILINE)
PLACEHOLDERS = re.compile(r"\b(RULE|ARGUMENT|CELL)\b")
OLD = list(dict.fromkeys(row["old"] for row in ROW.finditer((ROOT / "CHANGELOG.md").read_text())))
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "src").rglob("*.py"))}
# names of pandas and of PyYAML
THEIRS = {"keep=": "src/relearn/figures/shallow_study.py", "Node": "src/relearn/runtime/yaml_loader.py"}


def test_there_are_names():
    assert len(OLD) > 90 and len(SOURCES) > 70
    assert {"train.probe", "Fault", "probe=", "relearn.probe", "runs/CELL/ticks.csv"} <= set(OLD)
    assert set(OLD) >= set(THEIRS)


@pytest.mark.parametrize("old", [old for old in OLD if not PLACEHOLDERS.search(old)])
def test_an_old_name_is_in_no_source(old):
    pattern = re.compile(rf"\b{re.escape(old)}" + (r"\b" if re.match(r"\w", old[-1]) else ""))
    found = [
        f"{file}:{text.count(chr(10), 0, hit.start()) + 1}"
        for file, text in SOURCES.items()
        if THEIRS.get(old) != file
        for hit in pattern.finditer(text)
    ]
    assert found == []
