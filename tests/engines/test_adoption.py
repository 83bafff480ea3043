"""`relearn adopt` judges as DVC does and records as Snakemake does, though it asks neither for each job."""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from helpers.bridge import md5
from helpers.engines import POISON, PRESET, RECORD, copy, run
from relearn import grid, params
from relearn.engines import bridge, dvc

METADATA = Path(".snakemake/metadata")
OF_A_PROCESS = ("starttime", "endtime", "job_hash")  # what differs between two records of one file


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A copy with a file for every artifact, which DVC has recorded."""
    folder = copy(tmp_path_factory.mktemp("adoption") / "committed", PRESET)
    with contextlib.chdir(folder):
        checked = params.load()
        for job in grid.jobs(checked):
            for name in job.outputs:
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).write_bytes(content(checked, job, name))
    run(folder, "dvc", "commit", "--force", "--quiet")
    return folder


@pytest.fixture
def folder(committed, tmp_path, monkeypatch):
    """A copy of it, as the working directory."""
    shutil.copytree(committed, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def content(checked: params.Params, job: grid.Job, name: str) -> bytes:
    """An artifact that has nothing but the settings which it carries."""
    carries = job.rule in ("prepare", "poison", "train", "evaluate")
    settings = grid.settings(checked, job.rule, **grid.parse(job.rule, job.argument)) if carries else {}
    facts = json.dumps({"path": name, "settings": settings})
    if not name.endswith(".safetensors"):
        return facts.encode()
    header = json.dumps({"__metadata__": {"facts": facts}}).encode()
    return len(header).to_bytes(8, "little") + header


def replaced(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))


def append(path: str) -> None:
    with open(path, "a") as file:
        file.write("# changed\n")


CHANGES = {
    "nothing": lambda: None,
    "times only": lambda: os.utime(POISON, (2, 2)),
    "a setting of all trainings": lambda: replaced("params.yaml", "lr: 0.1", "lr: 0.2"),
    "a setting of a poison": lambda: replaced("params.yaml", "epsilon: 6", "epsilon: 5"),
    "a source of one poison": lambda: append("src/relearn/poisons/lsp.py"),
    "a source of every training": lambda: append("src/relearn/training/schedule.py"),
    "a source that none has": lambda: append("src/relearn/methods/pst.py"),
    "an artifact": lambda: append(POISON),
    "an artifact lost": lambda: Path(RECORD).unlink(),
    "a list of sources": lambda: append("results/sources/train.sha256"),
    "a command in dvc.lock": lambda: replaced("dvc.lock", "cmd: relearn train", "cmd: relearn  train"),
    "a hash in dvc.lock": lambda: replaced("dvc.lock", f"md5: {md5(RECORD)}", f"md5: {'f' * 32}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_finds_changed_what_dvc_status_does(folder, monkeypatch, change):
    CHANGES[change]()
    monkeypatch.setattr(bridge, "_has_settings", lambda *arguments: True)  # which DVC does not look at
    found = json.loads(run(folder, "dvc", "status", "--json").splitlines()[-1])
    checked = params.load()
    reasons = bridge._reasons(checked, grid.jobs(checked))
    own = {dvc.stage_name(job) for job, reason in reasons.items() if reason not in ("", "made from these")}
    assert own == set(found) - {"check"}
    assert bool(own) == (change not in ("nothing", "times only", "a source that none has"))


def records() -> dict[str, dict]:
    """Snakemake's record of every artifact, but for what differs between two processes."""
    found = {}
    for job in grid.jobs(params.load()):
        for name in job.outputs:
            record = json.loads(bridge._snakemake_file("metadata", name).read_text())
            assert record["endtime"] == os.stat(name).st_mtime
            found[name] = {key: value for key, value in record.items() if key not in OF_A_PROCESS}
    return found


def test_its_records_are_those_of_snakemake(folder):
    """Of a `--touch` with Snakemake's own scheduler, which takes minutes for a large grid."""
    assert run(folder, "relearn", "adopt") == "35 outputs adopted by Snakemake\n"
    adopted = records()
    assert {len(record["input_checksums"]) == len(record["input"]) for record in adopted.values()} == {True}
    assert "Nothing to be done" in run(folder, "snakemake", "-n")
    assert "Nothing to be done" in run(folder, "snakemake", "--cores", "1")
    shutil.rmtree(METADATA)
    (folder / "dvc.lock").unlink()  # with it Snakemake would refuse
    run(folder, "snakemake", "--cores", "1", "--touch", "--forceall", "--quiet", "all")
    assert adopted == records()


def test_it_records_only_what_is_clean_and_leaves_nothing_locked(folder):
    append(POISON)
    output = run(folder, "relearn", "adopt")
    clean = sum("/clean/" in name for job in grid.jobs(params.load()) for name in job.outputs)
    before = 10 + 3  # lists of sources, and the data
    assert output.startswith(f"{clean + before} outputs adopted by Snakemake\n2 outputs to run again: not the files")
    assert "results/poisons/digits/lsp/train.safetensors" in run(folder, "snakemake", "-n")
    assert not list((folder / ".snakemake").glob("locks/*")) and not list((folder / ".snakemake/incomplete").iterdir())


@pytest.mark.parametrize("command", ["relearn --help", "relearn check-params", "relearn adopt", "snakemake -n"])
def test_no_torch_is_loaded_where_nothing_is_computed(folder, command):
    """It takes seconds to load, and both engines can be on a machine that has none."""
    module, *arguments = command.split()
    start = {"relearn": "from relearn.__main__ import main", "snakemake": "from snakemake.cli import main"}[module]
    script = (
        f"import sys\n{start}\n"
        f"try: code = main({arguments})\nexcept SystemExit as ended: code = ended.code\n"
        "print(code or 0, sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    run(folder, "relearn", "adopt")
    assert run(folder, sys.executable, "-c", script).splitlines().count("0 []") == 1
