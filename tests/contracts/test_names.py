"""A name that the changelog calls old is gone from the sources."""

import io
import re
import tokenize

import pytest

from helpers.projects import ROOT

ROW = re.compile(r"^\| `(?P<old>[^`]+)` \| `(?P<new>[^`]+)` \|", re.MULTILINE)
PLACEHOLDERS = re.compile(r"\b(RULE|ARGUMENT|CELL)\b")
OLD = list(dict.fromkeys(row["old"] for row in ROW.finditer((ROOT / "CHANGELOG.md").read_text())))
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "src").rglob("*.py"))}
# plain English in comments and texts; old only where Python reads a name
ENGLISH = {"Count", "Probe", "identity", "kept", "memory", "nearest", "node"}
THEIRS = {  # arguments of other packages: matplotlib, pandas, PyYAML
    "shrink": "src/relearn/figures/accuracy_matrix.py",
    "keep=": "src/relearn/figures/shallow_study.py",
    "node": "src/relearn/runtime/yaml_loader.py",
}


def names_only(text: str) -> str:
    """The names in a source text, each in its line."""
    lines: list[list[str]] = [[] for _ in range(text.count("\n") + 2)]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            lines[token.start[0] - 1].append(token.string)
    return "\n".join(map(" ".join, lines))


def test_there_are_names():
    assert len(OLD) > 90 and len(SOURCES) > 70
    assert {"train.probe", "Fault", "probe=", "relearn.probe", "optimiser", "runs/CELL/ticks.csv"} <= set(OLD)
    assert set(OLD) >= ENGLISH | set(THEIRS)


@pytest.mark.parametrize("old", [old for old in OLD if not PLACEHOLDERS.search(old)])
def test_an_old_name_is_in_no_source(old):
    pattern = re.compile(rf"\b{re.escape(old)}" + (r"\b" if re.match(r"\w", old[-1]) else ""))
    found = [
        f"{file}:{text.count(chr(10), 0, hit.start()) + 1}"
        for file, text in SOURCES.items()
        if THEIRS.get(old) != file
        for hit in pattern.finditer(names_only(text) if old in ENGLISH else text)
    ]
    assert found == []
