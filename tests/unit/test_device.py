"""Jobs side by side on a machine of several GPUs: each gets one of its own, until its process ends."""

import os
import subprocess
import sys

import pytest

from helpers.projects import ROOT
from relearn.errors import UserError
from relearn.runtime import device

JOB = """
import sys
import torch
torch.cuda.device_count = lambda: 2  # the locks need no GPU
from relearn.runtime import device
print(device.choose(), device.choose(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def job(tmp_path):
    """A function that starts a process which chooses a device twice, says which, and lives until its input ends."""
    started = []

    def start(**environment: str) -> subprocess.Popen:
        env = {key: value for key, value in os.environ.items() if key not in ("RELEARN_DEVICE", "CUDA_VISIBLE_DEVICES")}
        env |= {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(tmp_path)} | environment
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, "-c", JOB], env=env, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def chosen(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def test_each_job_has_a_gpu_of_its_own_until_it_ends(job):
    first, second = job(), job()
    taken = {chosen(first): first, chosen(second): second}
    assert set(taken) == {"cuda:0 cuda:0", "cuda:1 cuda:1"}
    third = job()
    assert third.stderr.readline() == "all 2 GPUs are in use; waiting for one\n"
    assert third.poll() is None
    taken["cuda:1 cuda:1"].kill()  # as a time limit does, without a chance to clean up
    assert chosen(third) == "cuda:1 cuda:1"


def test_jobs_that_see_other_gpus_do_not_hinder_each_other(job):
    """Both call them cuda:0 and cuda:1; CUDA_VISIBLE_DEVICES says which they are."""
    assert [chosen(job(CUDA_VISIBLE_DEVICES=seen)) for seen in ("0,1", "2,3")] == ["cuda:0 cuda:0"] * 2
    assert chosen(job(CUDA_VISIBLE_DEVICES="0,3")) == "cuda:1 cuda:1"


def test_a_named_gpu_is_shared(job):
    assert [chosen(job(RELEARN_DEVICE="cuda:1")) for _ in range(2)] == ["cuda:1 cuda:1"] * 2
    assert chosen(job()) == "cuda:0 cuda:0"


def test_one_gpu_is_shared(monkeypatch):
    monkeypatch.delenv("RELEARN_DEVICE", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(device, "_claimed", None)
    assert device.choose() == "cuda:0"


def test_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("RELEARN_DEVICE", raising=False)
    assert device.choose() == "cpu"
    monkeypatch.setenv("RELEARN_DEVICE", "cuda")
    with pytest.raises(UserError, match="RELEARN_DEVICE is 'cuda', which is not here; known: cpu"):
        device.choose()
