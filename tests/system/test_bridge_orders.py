"""Both engines over one results/: whatever the order of commands, all artifacts are of the settings of params.yaml.

Reference results are made once: by DVC with lr 0.1 and committed (branch `one`), then with lr 0.2 (branch `two`), both
pushed to a remote that is a local folder; Snakemake made the first, too. An order begins in one of

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

At the end of every order Snakemake runs what it wants (through `snakemake`), every artifact has the SHA-256 of the
reference for params.yaml as it stands, DVC takes over (`give`), and then neither engine has anything to do.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.engines import GIT, POISON, PRESET, RECORD, artifacts, copy, run
from helpers.projects import ROOT
from relearn import params

CODE = ROOT / "src/relearn/training/schedule.py"
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
    # no setting tells the results of this one apart
    "code changed, repro, code as it was": "made edit repro back refused snakemake",
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
            ["snakemake", "-n", "--quiet", "all"],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
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
        run(self.folder, "dvc", "pull", "-q", "train-digits-lsp-cnn-erm-0")

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
        other = CODE.read_text().replace("return warm * ", "return 0.9 * warm * ")
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
        f"{' '.join(words)}: {len(sums[lr])} artifacts equal those of a fresh run at lr {lr}; "
        "then neither engine has anything to do"
    )
