"""Both engines over one results/: whatever the order of commands, no artifact is of other settings than params.yaml has.

Reference results are made once: by DVC with lr 0.1 and committed (branch `one`), then with lr 0.2 (branch `two`), both pushed
to a remote that is a local folder; Snakemake made the first, too. An order begins in one of

    made     a folder Snakemake has filled at lr 0.1, without dvc.lock
    clone    a clone at lr 0.1: dvc.lock, no results

and is made of these words:

    none        snakemake -n has nothing to do
    snakemake   snakemake --cores 2; where it refuses, relearn adopt and again: the refusal is then part of the order
    refused     snakemake -n must refuse and name relearn adopt
    repro       dvc repro, with the cache of the reference, so that it restores what it has run before
    pull        dvc pull; `part` pulls a single stage
    checkout    dvc checkout --force
    adopt       relearn adopt; `give` is relearn adopt --dvc
    one, two    lr 0.1, lr 0.2 in params.yaml; `branch` is git checkout two, params.yaml and dvc.lock
    edit        the code changes, so that results do; `back` undoes it
    delete      a record is deleted;  `hand` changes a poisoned training set by hand, keeping its header
    forget      .snakemake is deleted

At the end of every order Snakemake runs what it wants (through `snakemake`), every artifact has the SHA-256 of the reference for
params.yaml as it stands, DVC takes over (`give`), and then neither engine has anything to do.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import copy_project
from test_engines import artifacts, copy, run

from relearn import adopt, grid, params, stages, verify
from relearn.errors import Fault

ROOT = Path(__file__).resolve().parents[1]
PRESET = ROOT / "tests/bridge.yaml"
CODE = ROOT / "src/relearn/schedule.py"
RECORD = "results/metrics/digits/lsp/cnn/erm/0/record.json"
POISON = "results/poisons/digits/lsp/train.safetensors"
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")

ORDERS = {
    "pull, other lr, snakemake": "clone pull two refused snakemake",  # silent in engines without the bridge
    "snakemake, repro at other lr, first lr": "made two repro one refused snakemake",  # so was this
    "pull, adopt, other lr": "clone pull adopt two snakemake",
    "part of a pull, adopt": "clone part adopt snakemake",
    "part, adopt, the rest": "clone part adopt pull refused adopt none",
    "repro, adopt, other lr and back": "clone repro adopt two snakemake one snakemake",
    "snakemake, give, other lr, snakemake, checkout": "made give two snakemake checkout refused snakemake",
    "snakemake, give, branch, pull": "clone pull adopt branch pull refused adopt none",
    "branch without a pull": "clone pull adopt branch adopt snakemake",
    "code changed, repro, code as it was": "made edit repro back refused snakemake",  # no setting tells the results apart
    "pull, adopt, code changed and as it was": "clone pull adopt edit snakemake back snakemake",
    "a record deleted": "clone pull delete adopt snakemake",
    "a poison changed by hand": "clone pull adopt hand refused adopt snakemake",
    "snakemake, give, hand, give": "made hand ungiven",
    "memory of Snakemake lost": "made give forget refused adopt none",
    "snakemake, other lr, give": "made two ungiven snakemake",
}


def set_lr(folder: Path, lr: str) -> None:
    other = {"0.1": "0.2", "0.2": "0.1"}[lr]
    file = folder / "params.yaml"
    file.write_text(file.read_text().replace(f"lr: {other}", f"lr: {lr}"))


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The folder `made`, the repository to clone, and the SHA-256 of every artifact by lr."""
    base = tmp_path_factory.mktemp("bridge")
    origin = copy(base / "origin", PRESET)
    (origin / ".dvc/config").write_text(
        "[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = " + f"{base / 'store'}\n"
    )
    run(origin, "dvc", "repro", "-q")
    sums = {}
    for branch, lr in (("one", "0.1"), ("two", "0.2")):
        run(origin, *GIT, "checkout", "-q", "-b", branch)
        set_lr(origin, lr)
        run(origin, "dvc", "repro", "-q")
        sums[lr] = artifacts(origin)
        run(origin, *GIT, "add", "-A")
        run(origin, *GIT, "commit", "-q", "-m", f"lr {lr}")
        run(origin, "dvc", "push", "-q")
    made = copy(base / "made", PRESET)
    run(made, "snakemake", "--cores", "2", "--quiet", "rules")
    assert artifacts(made) == sums["0.1"] != sums["0.2"]
    return base, sums


class Order:
    """The words of an order, as methods."""

    def __init__(self, base: Path, folder: Path, words: list[str]):
        self.base, self.folder = base, folder
        if words[0] == "made":
            shutil.copytree(base / "made", folder)
        else:
            subprocess.run([*GIT, "clone", "-q", "-b", "one", str(base / "origin"), str(folder)], check=True)
        for word in words[1:]:
            getattr(self, word)()

    def snakemake(self):
        env = os.environ | {
            "PYTHONPATH": str(self.folder / "src"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["snakemake", "-n", "--quiet", "all"], cwd=self.folder, env=env, capture_output=True, text=True
        )
        if done.returncode:
            assert "relearn adopt" in done.stderr, done.stderr
            self.adopt()
        run(self.folder, "snakemake", "--cores", "2", "--quiet", "rules")

    def refused(self):
        output = run(self.folder, "snakemake", "-n", fails=True)
        assert "relearn adopt" in output and "Traceback" not in output

    def none(self):
        assert "Nothing to be done" in run(self.folder, "snakemake", "-n")

    def repro(self):
        shutil.copytree(self.base / "origin/.dvc/cache", self.folder / ".dvc/cache", dirs_exist_ok=True)
        run(self.folder, "dvc", "repro", "-q")

    def pull(self):
        run(self.folder, "dvc", "pull", "-q")

    def part(self):
        run(self.folder, "dvc", "pull", "-q", "train@digits-lsp-cnn-erm-0")

    def checkout(self):
        run(self.folder, "dvc", "checkout", "-q", "--force")  # without it DVC does not overwrite what it has no copy of

    def adopt(self):
        run(self.folder, "relearn", "adopt")

    def give(self):
        run(self.folder, "relearn", "adopt", "--dvc")

    def ungiven(self):
        output = run(self.folder, "relearn", "adopt", "--dvc", fails=True)
        assert output.startswith("relearn: ") and output.count("\n") == 1
        assert not (self.folder / "dvc.lock").exists()
        if "left" in output:  # changed by hand, and no dvc.lock to judge it by: the remedy the line names
            (self.folder / POISON).unlink()

    def one(self):
        set_lr(self.folder, "0.1")

    def two(self):
        set_lr(self.folder, "0.2")

    def branch(self):
        run(self.folder, *GIT, "checkout", "-q", "two")

    def edit(self):
        other = CODE.read_text().replace("warm * 0.5", "warm * 0.6")
        assert other != CODE.read_text()
        (self.folder / CODE.relative_to(ROOT)).write_text(other)

    def back(self):
        (self.folder / CODE.relative_to(ROOT)).write_text(CODE.read_text())

    def delete(self):
        (self.folder / RECORD).unlink()

    def hand(self):
        content = bytearray((self.folder / POISON).read_bytes())
        content[-1] ^= 1
        (self.folder / POISON).write_bytes(content)

    def forget(self):
        shutil.rmtree(self.folder / ".snakemake")


@pytest.mark.system
@pytest.mark.parametrize("name", ORDERS)
def test_every_order_ends_with_the_results_of_params(reference, tmp_path, log, name):
    base, sums = reference
    words = ORDERS[name].split()
    order = Order(base, tmp_path / "copy", words)
    if words[-1] not in ("snakemake", "none"):
        order.snakemake()
    lr = str(params.load(order.folder / "params.yaml").recipe["lr"])
    assert artifacts(order.folder) == sums[lr]
    order.give()
    assert json.loads(run(order.folder, "dvc", "status", "--json").splitlines()[-1]) == {}
    order.none()
    log(
        f"{' '.join(words)}: {len(sums[lr])} artifacts equal those of a fresh run at lr {lr}; then neither engine has anything to do"
    )


# ---- without engines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the tiny grid, the current one, and a file for every artifact."""
    copy_project(tmp_path / "copy")
    shutil.copy(PRESET, tmp_path / "copy/params.yaml")
    monkeypatch.chdir(tmp_path / "copy")
    stages.write(params.load())
    for item in grid.nodes(params.load()):
        for name in item.outputs:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(name)
    return tmp_path / "copy"


def remember(name: str) -> None:
    """What Snakemake would note of a file it has just made."""
    record = adopt._memory("metadata", name)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"endtime": os.stat(name).st_mtime}))


def test_without_dvc_lock_adopt_is_refused_and_changes_nothing(folder):
    before = {name: os.stat(name).st_mtime for item in grid.nodes(params.load()) for name in item.outputs}
    with pytest.raises(Fault, match="there is no dvc.lock here"):
        adopt.take(params.load())
    assert before == {name: os.stat(name).st_mtime for name in before}


def test_adopt_and_give_want_the_current_grid(folder):
    (folder / "workflow/grid.yaml").write_text("steps: {}\n")
    for act in (adopt.take, adopt.give):
        with pytest.raises(Fault, match="relearn grid --write"):
            act(params.load())


@pytest.mark.parametrize("program", ["dvc", "snakemake"])
def test_a_missing_engine_is_a_fault(folder, monkeypatch, program):
    monkeypatch.setenv("PATH", str(folder / "nowhere"))
    with pytest.raises(Fault, match=f"{program} is not installed here"):
        adopt._run(program, "--version")


def test_snakemake_is_stopped_only_by_files_it_does_not_know(folder):
    nodes = grid.nodes(params.load())
    adopt.check(nodes)  # no dvc.lock: not DVC's doing
    (folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    for name in (name for item in nodes for name in item.outputs):
        remember(name)
    adopt.check(nodes)
    os.utime(RECORD, (2, 2))
    with pytest.raises(Fault, match=f"{RECORD} is not as Snakemake left it.*relearn adopt"):
        adopt.check(nodes)
    os.utime(RECORD, (adopt.OLD, adopt.OLD))
    with pytest.raises(Fault, match=RECORD):
        adopt.check(nodes)  # with a record Snakemake would go by the content of its inputs
    adopt._memory("metadata", RECORD).unlink()
    adopt.check(nodes)  # marked to run again
    Path(RECORD).unlink()
    adopt.check(nodes)  # a missing one Snakemake makes again


@pytest.mark.parametrize("content", ["", "not: [yaml", "stages: 3", "stages: {a: {outs: [{path: x}]}}"])
def test_a_broken_lock_is_a_fault(folder, content):
    (folder / "dvc.lock").write_text(content)
    with pytest.raises(Fault, match="dvc.lock is not what DVC writes"):
        stages.locked()


def test_files_that_carry_other_settings_are_seen(folder):
    checked = params.load()
    item = next(item for item in grid.nodes(checked) if item.step == "evaluate" and "lsp" in item.argument)
    settings = grid.settings(checked, "train", **grid.coordinates("evaluate", item.argument))
    Path(RECORD).write_text(json.dumps({"settings": settings}))
    assert adopt._carries(checked, item, RECORD)
    Path(RECORD).write_text(json.dumps({"settings": settings | {"train": settings["train"] | {"lr": 0.2}}}))
    assert not adopt._carries(checked, item, RECORD)
    Path(RECORD).write_text("{")
    assert not adopt._carries(checked, item, RECORD)
    poison = next(item for item in grid.nodes(checked) if item.step == "poison" and "lsp" in item.argument)
    assert not adopt._carries(checked, poison, POISON)  # no safetensors at all
    header = json.dumps(
        {
            "__metadata__": {
                "facts": json.dumps({"settings": grid.settings(checked, "poison", dataset="digits", poison="lsp")})
            }
        }
    )
    Path(POISON).write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert adopt._carries(checked, poison, POISON)


def record(folder: Path) -> dict[str, str]:
    """Write the dvc.lock of the files as they are; the MD5 of each."""
    sums = {
        name: hashlib.md5(Path(name).read_bytes()).hexdigest()
        for item in grid.nodes(params.load())
        for name in item.outputs
    }
    locked = {
        stages.name(item): {"outs": [{"path": name, "md5": sums[name]} for name in item.outputs]}
        for item in grid.nodes(params.load())
    }
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": locked}))
    return sums


def test_adopt_hashes_itself_what_dvc_calls_clean(folder, monkeypatch):
    record(folder)
    monkeypatch.setattr(adopt, "_run", lambda *arguments: "{}")  # dvc status
    histories = "results/runs/digits/lsp/cnn/erm/0/history.csv"
    checked = params.load()
    item = next(item for item in grid.nodes(checked) if histories in item.outputs)
    monkeypatch.setattr(adopt, "_carries", lambda *arguments: True)
    assert not any(adopt._judged(checked, grid.nodes(checked)).values())
    Path(histories).write_text("corrupt")
    reasons = adopt._judged(checked, grid.nodes(checked))
    assert reasons[item] == "not the files DVC recorded"
    assert {found.step for found, reason in reasons.items() if reason == "made from these"} == {
        "evaluate",
        "aggregate",
        "tabulate",
    }


def test_verify_names_what_is_corrupt_in_the_cache(folder):
    sums = record(folder)
    kept = stages.cached(sums[RECORD])
    kept.parent.mkdir(parents=True)
    kept.write_bytes(Path(RECORD).read_bytes())
    lines, equal = verify.compare(params.load(), None)
    assert equal and lines[-1] == "33 equal, 0 different, 0 missing here, 0 missing there, compared with dvc.lock"
    kept.write_text("corrupt")
    lines, equal = verify.compare(params.load(), None)
    assert not equal and lines[-2:] == [
        f"corrupt       {kept}",
        "delete these and what is different above, then: dvc pull",
    ]


def clone(folder: Path) -> Path:
    shutil.copytree(folder, folder.parent / "other")
    return folder.parent / "other"


def test_verify_compares_with_another_clone(folder):
    other = clone(folder)
    lines, equal = verify.compare(params.load(), str(other))
    assert equal and lines[-1] == f"33 equal, 0 different, 0 missing here, 0 missing there, compared with {other}"
    assert lines[0] == "equal         results/sources/prepare.sha256"
    (other / RECORD).write_text("else")
    (other / POISON).unlink()
    Path("results/tables/accuracy.csv").unlink()
    beside = Path("results/runs/digits/lsp/cnn/erm/0/train.run.json")
    for root, torch in ((folder, "2.12"), (other, "2.13")):
        (root / beside).write_text(json.dumps({"seconds": 3.0, "torch": torch}))
    lines, equal = verify.compare(params.load(), str(other))
    assert not equal
    assert {f"different     {RECORD}", f"missing there {POISON}", "missing here  results/tables/accuracy.csv"} <= set(
        lines
    )
    assert lines[-4:] == [
        f"30 equal, 1 different, 1 missing here, 1 missing there, compared with {other}",
        "5 artifacts were made in two environments:", "  here:  torch 2.12", "  there: torch 2.13",
    ]  # fmt: skip


def test_verify_has_exit_codes(project, tmp_path):
    code, _, fault = project.run("verify")
    assert code == 2 and fault.startswith("relearn: there is no dvc.lock here")
    for other, words in ((".", "this very folder"), (str(tmp_path), "no clone of the project")):
        code, _, fault = project.run("verify", other)
        assert code == 2 and words in fault
    (project.folder / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    code, output, _ = project.run("verify")
    assert code == 1 and "0 equal" in output
