"""`*.run.json`: where, with what and how fast a job ran. No engine tracks these files, so they may differ."""

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from relearn.errors import UserError
from relearn.runtime.files import read_json, write_json
from relearn.runtime.hashing import file_digest

STATUS = Path("/proc/self/status")


@contextlib.contextmanager
def run_report(path: Path, device: str, made: Path) -> Iterator[dict]:
    """Write `path` with the seconds, peak memory and environment of the block, and when it finished (Unix seconds).

    The block may add entries to the dict that it gets; `images`, how many were trained on, becomes a speed as well.
    `made` is a file beside it that the block writes, whose SHA-256 says of which run the report is.
    """
    report: dict = {}
    begin = time.perf_counter()
    yield report
    report["seconds"] = time.perf_counter() - begin
    report["finished"] = int(time.time())  # a number, since `verify` takes texts for the environment
    if "images" in report:
        report["images_per_second"] = report["images"] / report["seconds"]
    report["peak_memory_mb"] = peak_memory_mb()
    report["of"] = {made.name: file_digest(made, "sha256")}
    write_json(path, report | environment(device))


def read_report(path: Path) -> dict:
    """What `run_report` has written at `path`; one of an older version does not say of which run it is.

    Raises UserError when it is missing, damaged, or of another run than the files beside it: engines fetch and restore
    those, and leave the report of the last run here as it is.
    """
    report = read_json(path)
    made = report.get("of")
    for name, digest in made.items() if isinstance(made, dict) else ():
        if file_digest(path.parent / name, "sha256") != digest:
            raise UserError(f"{path} is not of the run that made {name} beside it")
    return report


def environment(device: str) -> dict:
    """Versions, processor, device, commit and Slurm job of this process."""
    import numpy
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "processor": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "commit": commit(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in megabytes."""
    if STATUS.exists():  # getrusage begins with the peak of the process that started this one
        line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


def commit() -> str | None:
    """The commit of the clone that this code lies in; None without git, empty outside a clone."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "rev-parse", "--verify", "--quiet", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return done.stdout.strip()
