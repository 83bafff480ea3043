"""What `relearn adopt` finds clean, and what it does with the rest, over files that no engine made."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from snakemake.persistence.file import FilePersistence

from helpers.bridge import filled, md5, record, remember
from helpers.engines import POISON, RECORD
from relearn import grid, params
from relearn.engines import bridge, dvc
from relearn.errors import UserError

MOVED = "settings, sources or inputs have changed since DVC recorded them"
TRAIN = "relearn train digits/lsp/cnn/erm/0"
HISTORY = "results/runs/digits/lsp/cnn/erm/0/history.csv"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a tiny grid, its dvc.yaml, and a file for every artifact."""
    monkeypatch.chdir(filled(tmp_path / "copy"))
    return tmp_path / "copy"


def reasons(monkeypatch) -> dict[str, str]:
    """Why jobs would run again, by their command, if every file had the right settings and DVC had no links."""
    monkeypatch.setattr(bridge, "_run", lambda *arguments: "")
    monkeypatch.setattr(bridge, "_has_settings", lambda *arguments: True)
    checked = params.load()
    return {job.command: why for job, why in bridge._reasons(checked, grid.jobs(checked)).items() if why}


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("cmd", lambda cmd: f"{cmd} "),
        ("cmd", lambda cmd: None),
        ("deps", lambda deps: deps[1:]),
        ("deps", lambda deps: [*deps, {"path": "params.yaml", "md5": md5("params.yaml")}]),
        ("deps", lambda deps: [deps[0] | {"md5": "0" * 32}, *deps[1:]]),
        ("params", lambda values: {}),
        ("params", lambda values: {"params.yaml": values["params.yaml"] | {"seed": 1}}),
        ("params", lambda values: values | {"other.yaml": {"seed": 1}}),
        ("params", lambda values: {"params.yaml": values["params.yaml"] | {"methods.erm": {"gray": 0}}}),
        ("params", lambda values: json.loads(json.dumps(values).replace('"batch": 128', '"batch": 128.0'))),
        ("params", lambda values: json.loads(json.dumps(values).replace('"flip": false', '"flip": 0'))),
    ],
)
def test_a_job_that_dvc_recorded_otherwise_is_not_clean(folder, monkeypatch, entry, change):
    """An entry of dvc.lock differs in the smallest way; what is made from it runs again as well."""
    record(folder)
    assert reasons(monkeypatch) == {}
    lock = json.loads((folder / "dvc.lock").read_text())
    stage = lock["stages"]["train-digits-lsp-cnn-erm-0"]
    assert (changed := change(stage[entry])) != stage[entry] or repr(changed) != repr(stage[entry])
    stage[entry] = changed
    (folder / "dvc.lock").write_text(json.dumps(lock))
    found = reasons(monkeypatch)
    assert found.pop(TRAIN) == MOVED
    assert found and set(found.values()) == {"made from these"}


def test_settings_in_dvc_lock_are_read_as_dvc_reads_them(folder):
    """By YAML 1.2, like params.yaml: with 1.1 the text `no` would be false, and equal what it is not."""
    text = "params: {params.yaml: {a: no, b: 010, c: 1:30, d: 5e-4, e: 2020-01-01, f: null}}"
    (folder / "dvc.lock").write_text(f"stages: {{a: {{cmd: x, {text}}}}}")
    values = {"a": "no", "b": 10, "c": "1:30", "d": 5e-4, "e": "2020-01-01", "f": None}
    recorded = dvc.read_stages()["a"]
    job = grid.Job("x", "", (), (), (), ())
    assert dvc.is_current(replace(job, rule="y"), recorded._replace(command="relearn y"), values, md5)
    assert not dvc.is_current(job, recorded._replace(command="relearn x"), values | {"a": False}, md5)


def test_adopt_hashes_itself_what_dvc_would_trust(folder, monkeypatch):
    """DVC does not hash what it put there itself; here other bytes of the same size and time count."""
    record(folder)
    assert reasons(monkeypatch) == {}
    status = os.stat(HISTORY)
    Path(HISTORY).write_text("x" * status.st_size)
    os.utime(HISTORY, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = reasons(monkeypatch)
    assert found[TRAIN] == "not the files that DVC recorded"
    assert found["relearn aggregate"] == MOVED and found["relearn tabulate accuracy"] == "made from these"


def test_a_source_that_changed_runs_again_what_uses_it(folder, monkeypatch):
    record(folder)
    with open("src/relearn/poisons/lsp.py", "a") as file:
        file.write("# other\n")
    found = reasons(monkeypatch)
    assert found.pop("relearn poison digits/lsp") == MOVED
    assert TRAIN in found and set(found.values()) == {"made from these"}


def test_files_to_run_again_are_old_and_without_a_record(folder):
    """Also one that Snakemake has never heard of, and one whose job was killed, which Snakemake knows itself."""
    incomplete = bridge._snakemake_file("incomplete", POISON)
    incomplete.parent.mkdir(parents=True)
    incomplete.write_text("{}")
    remember(RECORD)
    bridge._mark_outdated([RECORD, HISTORY, POISON, "results/missing"])
    assert not bridge._snakemake_file("metadata", RECORD).exists() and incomplete.exists()
    assert [os.stat(name).st_mtime for name in (RECORD, HISTORY, POISON)] == [bridge.OLD] * 3


@pytest.mark.parametrize("left", ["nothing", "another time"])
def test_adopt_looks_at_what_snakemake_did(folder, monkeypatch, left):
    """Should a newer Snakemake not do what `touching` lets it do, that is an error, and no results pass for adopted."""
    record(folder)
    names = [name for job in grid.jobs(params.load()) for name in job.outputs]

    def touch():
        for name in names:
            os.utime(name, (5, 5))
            remember(name)
        if left == "nothing":
            bridge._snakemake_file("metadata", RECORD).unlink()
            os.utime(RECORD, (bridge.OLD, bridge.OLD))
        else:
            os.utime(RECORD, (6, 6))

    monkeypatch.setattr(bridge, "_run", lambda program, *arguments: touch() if program == "snakemake" else "")
    monkeypatch.setattr(bridge, "_has_settings", lambda *arguments: True)
    with pytest.raises(UserError, match=f"{RECORD} is not adopted"):
        bridge.adopt(params.load())


@pytest.mark.parametrize("program", ["dvc", "snakemake", "a lock"])
def test_where_nothing_can_be_judged_nothing_is_changed(folder, monkeypatch, program):
    """Without either engine, and while Snakemake runs."""
    record(folder)
    remember(RECORD)
    Path(POISON).write_text("changed")
    for other in {"dvc", "snakemake"} - {program}:
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / other).write_text("#!/bin/sh\nexit 0\n")
        (folder / "bin" / other).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"))
    if program == "a lock":
        (folder / ".snakemake/locks").mkdir()
        (folder / ".snakemake/locks/0.output.lock").write_text(f"{POISON}\n")
    before = {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}
    wanted = "Snakemake is running here" if program == "a lock" else f"{program} is not installed here"
    with pytest.raises(UserError, match=wanted):
        bridge.adopt(params.load())
    assert before == {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}


def test_a_real_lock_is_seen(folder):
    bridge._check_idle()
    persistence = FilePersistence()
    persistence._write_locks("output", [POISON])
    with pytest.raises(UserError, match="is running here"):
        bridge._check_idle()
    persistence._delete_locks()
    bridge._check_idle()
