"""Every block of code in docs/recipes.md, run."""

import importlib.util
import os
import subprocess
import sys

import pytest

from helpers.projects import ROOT
from helpers.recipes import blocks, given
from relearn.training import staging

pytestmark = pytest.mark.filterwarnings("ignore")  # as in test_pst_lightning.py
BLOCKS = blocks()
PROCESSES = "DistributedDataParallel"
NEEDS = {
    "Accelerate": ["accelerate"],
    "Lightning": ["lightning"],
    "Trainer of Hugging Face": ["transformers", "accelerate"],
    "Models of timm": ["timm"],
}


def check(heading: str) -> None:
    missing = [name for name in NEEDS.get(heading, ()) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (make extras)")


@pytest.mark.parametrize("heading", [heading for heading in BLOCKS if heading != PROCESSES])
def test_a_block_runs(heading, tmp_path, monkeypatch):
    check(heading)
    monkeypatch.chdir(tmp_path)  # for checkpoints
    monkeypatch.setattr(staging, "judge", staging.judge)  # put back afterwards
    names = given()
    if heading == "Accelerate":
        names["Accelerator"] = lambda **how: importlib.import_module("accelerate").Accelerator(cpu=True, **how)
    code = BLOCKS[heading]
    if "Trainer" in heading:
        code = code.replace("TrainingArguments(", 'TrainingArguments(report_to="none", use_cpu=True, output_dir=')
    if heading == "Lightning":
        code = code.replace("lightning.Trainer(", 'lightning.Trainer(logger=False, accelerator="cpu", ')
    exec(compile(code, f"recipes.md: {heading}", "exec"), names)
    pst = names["trainer"].pst if "Trainer" in heading else names["watch"].pst if "watch" in names else names["pst"]
    if heading == "Models of timm":
        return
    assert pst.stage == "stage 2" and pst.training.step == pst.training.steps > 0


def test_the_block_of_several_processes(tmp_path):
    script = tmp_path / "train.py"
    after = "\nprint('ended', pst.stage, sum(p.double().sum().item() for p in model.parameters()))\n"
    script.write_text("from helpers.recipes import given\nglobals().update(given())\n" + BLOCKS[PROCESSES] + after)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}", "CUDA_VISIBLE_DEVICES": ""}
    env |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    ended = [line for line in done.stdout.splitlines() if line.startswith("ended")]
    assert len(ended) == 2 and ended[0] == ended[1] and ended[0].startswith("ended stage 2")
    assert sum(line.startswith("trapped") or "trap" in line for line in done.stdout.splitlines()) <= 1  # of the first


def test_every_block_of_the_page_is_run():
    assert len(BLOCKS) == 8 and set(NEEDS) < set(BLOCKS) and PROCESSES in BLOCKS
