"""Every bad input of bad_inputs.yaml ends in one line that says what is wrong, and leaves nothing behind."""

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers import tiny_project
from helpers.projects import ROOT
from relearn import __main__

TABLE = yaml.load(Path(__file__).with_name("bad_inputs.yaml").read_text(encoding="utf-8"), tiny_project.Loader)  # noqa: S506
ENTRIES = {(area, name): entry for area, names in TABLE.items() for name, entry in names.items()}
FIELDS = {"run", "says", "code", "made", "process", "longest", "mended_by", *tiny_project.CHANGES}
LONGEST = 300  # characters of the line
PROGRESS = re.compile(r"(train|poison|surrogate) [\w/]+: ")  # lines of a job in progress, and what it will cost
ALWAYS_MADE = ("results/locks/*",)  # the lock of the job, free again


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RELEARN_DEVICE", "cpu")
        tiny_project.make(folder)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of the project, the current folder."""
    shutil.copytree(made, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")
    return tmp_path / "project"


def files(folder: Path) -> dict[str, str]:
    """What every file in `folder` holds, as a hash, and where every link points."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return found


def check(entry: dict, code: int, err: str, before: dict, after: dict) -> None:
    *progress, line = err.removesuffix("\n").split("\n")
    assert "Traceback" not in err and code == entry.get("code", 2), (code, err)
    assert line.startswith("relearn: ") and len(line) < entry.get("longest", LONGEST), (len(line), err)
    assert [text for text in progress if not PROGRESS.match(text)] == []
    said = entry["says"] if isinstance(entry["says"], list) else [entry["says"]]
    assert [words for words in said if words not in line] == [], line
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    allowed = (*ALWAYS_MADE, *entry.get("made", ()))
    assert [name for name in changed if not any(fnmatch.fnmatch(name, pattern) for pattern in allowed)] == []


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=[f"{area}: {name}" for area, name in ENTRIES])
def test_bad_input(entry, here, capsys, request):
    if "mended_by" in entry:
        request.applymarker(pytest.mark.xfail(reason=f"being mended: {entry['mended_by']}"))
    tiny_project.change(here, entry)
    before = files(here)
    command = entry.get("run", "check-params")
    code = __main__.main(command.split() if isinstance(command, str) else command)
    check(entry, code, capsys.readouterr().err, before, files(here))


IN_A_PROCESS = {name: entry for name, entry in ENTRIES.items() if "process" in entry}


@pytest.mark.parametrize("entry", IN_A_PROCESS.values(), ids=[f"{area}: {name}" for area, name in IN_A_PROCESS])
def test_bad_input_in_a_process(entry, here):
    """The same for a process of its own, in the environment that the entry names."""
    tiny_project.change(here, entry)
    before = files(here)
    command = entry.get("run", "check-params")
    arguments = command.split() if isinstance(command, str) else command
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | entry["process"]
    done = subprocess.run(
        [sys.executable, "-m", "relearn", *arguments], env=environment, capture_output=True, timeout=120, check=False
    )
    check(entry, done.returncode, done.stderr.decode("utf-8"), before, files(here))


def test_the_table():
    """An entry that misspells a field would test nothing."""
    assert len(ENTRIES) >= 150
    assert {name: set(entry) - FIELDS for name, entry in ENTRIES.items() if set(entry) - FIELDS} == {}
    assert [name for name, entry in ENTRIES.items() if not entry.get("says")] == []
