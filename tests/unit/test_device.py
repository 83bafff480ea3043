"""Jobs side by side on a machine of several GPUs: each gets one of its own, until its process ends."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.projects import ROOT
from relearn.errors import UserError
from relearn.runtime import device, memory

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


@pytest.mark.parametrize("made", ["link", "file", "open to others"])
def test_a_lock_folder_that_others_could_have_made_is_refused(made, tmp_path, monkeypatch):
    """Through a link in a shared temporary folder a job would open, and empty, files that another user chose."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder, elsewhere = tmp_path / f"relearn-{os.getuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "gpu-0.lock").write_text("precious")
    if made == "link":
        folder.symlink_to(elsewhere)
    elif made == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(UserError, match="not a folder that only you can write to.*TMPDIR"):
        device._claimed.__wrapped__(("0",))
    assert (elsewhere / "gpu-0.lock").read_text() == "precious"


def test_a_lock_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert device._private_folder().stat().st_mode & 0o777 == 0o700
    found = device._private_folder()
    user = os.getuid() + 1
    found.rename(tmp_path / f"relearn-{user}")
    monkeypatch.setattr(os, "getuid", lambda: user)
    with pytest.raises(UserError, match="not a folder that only you can write to"):
        device._private_folder()


def test_the_lock_of_a_gpu_is_no_way_to_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (device._private_folder() / "gpu-0.lock").symlink_to(precious)
    with pytest.raises(OSError):
        device._claimed.__wrapped__(("0",))
    assert precious.read_text() == "precious"


# The memory that a process keeps


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_freed_memory_is_kept_for_the_next_allocation():
    """Blocks of 64 MB, allocated and freed again and again, cost page faults at first only."""
    code = """
import resource, sys, torch
from relearn.runtime import memory
if sys.argv[1] == "keep":
    memory.keep_freed()
for _ in range(10):
    torch.zeros(2**24).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    torch.zeros(2**24).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", code, how], check=True, capture_output=True).stdout)

    assert faults("leave") > 480_000 > 3 * faults("keep")  # a block may find a new place a few times more


def test_a_system_without_that_option_goes_on(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    memory.keep_freed()
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    memory.keep_freed()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="getrusage of a child begins with its parent's peak")
def test_peak_memory_is_that_of_the_job_not_of_who_started_it():
    child = "from relearn.runtime.run_report import peak_memory_mb; print(peak_memory_mb())"
    code = f"""
import subprocess, sys
held = b"x" * (300 * 2**20)  # written, so that it is really held
sys.stdout.write(subprocess.run([sys.executable, "-c", {child!r}], check=True, capture_output=True, text=True).stdout)
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 5 < float(found.stdout) < 200
