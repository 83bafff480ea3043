"""Every bad input of bad_inputs.yaml ends in one line that says what is wrong, and leaves nothing behind."""

import fnmatch
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
from relearn import __main__, params, registry

TABLE = yaml.load(Path(__file__).with_name("bad_inputs.yaml").read_text(encoding="utf-8"), tiny_project.Loader)  # noqa: S506
ENTRIES = {(area, name): entry for area, names in TABLE.items() for name, entry in names.items()}
FIELDS = {"run", "says", "code", "made", "environment", "process", "longest", *tiny_project.CHANGES}
LONGEST = 300  # characters of the line
PROGRESS = re.compile(
    r"(train|poison|surrogate|pretrain) [\w/]+: |external: "
)  # lines of a job in progress, what it will cost, what it found
ALWAYS_MADE = (
    "results/locks/*",
    "results/digests/*",
)  # the lock of the job, free again; what is known of files of yours


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The project in which everything is made, never changed; and the copy that every entry changes."""
    original, copy = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("copy") / "project"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(original)
        patch.setenv("RELEARN_DEVICE", "cpu")
        tiny_project.make(original)
    shutil.copytree(original, copy)
    return original, copy


@pytest.fixture
def here(made, monkeypatch):
    """The copy, the current folder; afterwards it is again what it was."""
    original, copy = made
    before = state(copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")
    yield copy
    after = state(copy)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            _restore(original / name, copy / name)


def _restore(original: Path, copy: Path) -> None:
    if copy.is_dir() and not copy.is_symlink():
        shutil.rmtree(copy)
    copy.unlink(missing_ok=True)
    if original.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(original, copy) if original.is_dir() else shutil.copy(original, copy)


def state(folder: Path) -> dict[str, tuple]:
    """What tells a file, folder or link in `folder` from a changed one."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        written = () if path.is_dir() else (status.st_mtime_ns, status.st_size)
        found[str(path.relative_to(folder))] = (status.st_ino, status.st_mode, *written)
    return found


def files(folder: Path) -> dict[str, tuple]:
    """The same of files and links alone: an empty folder is no harm."""
    return {name: found for name, found in state(folder).items() if len(found) > 2}


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
def test_bad_input(entry, here, capsys, monkeypatch):
    tiny_project.change(here, entry)
    before = files(here)
    for name, value in entry.get("environment", {}).items():
        monkeypatch.setenv(name, value)
    command = entry.get("run", "check-params")
    code = __main__.main(command.split() if isinstance(command, str) else command)
    check(entry, code, capsys.readouterr().err, before, files(here))


IN_A_PROCESS = {name: entry for name, entry in ENTRIES.items() if "process" in entry}


@pytest.mark.parametrize("entry", IN_A_PROCESS.values(), ids=[f"{area}: {name}" for area, name in IN_A_PROCESS])
def test_bad_input_in_a_process(entry, here):
    """The same for a process of its own."""
    tiny_project.change(here, entry)
    before = files(here)
    command = entry.get("run", "check-params")
    arguments = command.split() if isinstance(command, str) else command
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | entry.get("environment", {})
    done = subprocess.run(
        [sys.executable, "-m", "relearn", *arguments], env=environment, capture_output=True, timeout=120, check=False
    )
    check(entry, done.returncode, done.stderr.decode("utf-8"), before, files(here))


def test_every_setting(log):
    """A value that no setting takes, for each setting of everything registered: one error, which names it."""
    content = yaml.safe_load(tiny_project.PARAMS)
    tried = 0
    for kind in registry.KINDS:
        for name, entry in registry.entries(kind).items():
            for setting in entry.settings:
                found = params.errors(
                    content | {kind: content.get(kind, {}) | {"x": {"use": name, setting.name: {"no": "value"}}}}
                )
                ours = [error for error in found if error.startswith(f"{kind}.x.{setting.name}: ")]
                assert len(ours) == 1 and len(ours[0]) < LONGEST and "\n" not in ours[0], (name, setting, found)
                tried += 1
    log(f"{tried} settings of everything registered refuse what they do not take")


def test_the_table():
    """An entry that misspells a field would test nothing."""
    assert len(ENTRIES) >= 150
    assert {name: set(entry) - FIELDS for name, entry in ENTRIES.items() if set(entry) - FIELDS} == {}
    assert [name for name, entry in ENTRIES.items() if not entry.get("says")] == []
