"""What a step leaves beside its arrays: JSON and CSV with fixed formatting, their hashes, and the machine's fingerprint."""

import contextlib
import csv
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from relearn.errors import Fault


@contextlib.contextmanager
def atomic(path: Path):
    """Give a temporary path for `path`, renamed to it when the block ends well and removed when it does not.

    It lies in a folder of its own beside `path`, `.NAME.PID.tmp`, with whatever a library leaves there while it writes
    (safetensors does). An OSError of writing names `path`.
    """
    path = Path(path)
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / path.name
        yield temporary
        temporary.chmod(
            folder.stat().st_mode & 0o666
        )  # what the umask gives; safetensors lets no one but the owner read
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None or Path(error.filename).is_relative_to(folder):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rounded(value):
    """The same nested value with every float at ten significant digits, so that text is the same everywhere."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends under a temporary name, then rename."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: dict) -> None:
    """Write JSON with sorted keys, two spaces and ten significant digits."""
    write_text(path, json.dumps(rounded(content), indent=2, sort_keys=True, allow_nan=False) + "\n")


def existing(path: Path) -> Path:
    """The path itself. Raises Fault when nothing is there."""
    if not Path(path).exists():
        raise Fault(f"{path} does not exist; the step before it makes it")
    return path


def read_json(path: Path) -> dict:
    """Read a JSON file. Raises Fault when it is missing or not JSON."""
    try:
        return json.loads(Path(existing(path)).read_text(encoding="utf-8"))
    except ValueError as error:
        raise Fault(f"{path} is not JSON ({error}); delete it and run again") from None


def write_rows(path: Path, rows: list[dict], header: tuple[str, ...] = ()) -> None:
    """Write a list of like dicts as CSV, floats with six decimals; `header` names the columns when there are no rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else header, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6f}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file. Raises Fault when it is missing."""
    with open(existing(path), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def settings_hash(settings) -> str:
    """The first 16 hex digits of the SHA-256 of `settings` as canonical JSON."""
    return hashlib.sha256(json.dumps(rounded(settings), sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(device: str) -> dict:
    """Where and with what a step ran: versions, processor, device, commit, job of Slurm. Never part of a tracked output."""
    import numpy
    import torch

    git = shutil.which("git")
    commit = (
        git
        and subprocess.run(
            [git, "rev-parse", "--verify", "--quiet", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
        ).stdout.strip()
    )
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "processor": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "commit": commit,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def peak_memory_mb() -> float:
    """The most memory this process has held so far, in megabytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


@contextlib.contextmanager
def provenance(path: Path, device: str):
    """Write `path` (a `*.run.json`, tracked by no engine) with seconds, peak memory and fingerprint of the block.

    The block may add entries to the dict it is given; `images`, how many were trained on, becomes a speed as well.
    """
    notes: dict = {}
    begin = time.perf_counter()
    yield notes
    notes["seconds"] = time.perf_counter() - begin
    if "images" in notes:
        notes["images_per_second"] = notes["images"] / notes["seconds"]
    notes["peak_memory_mb"] = peak_memory_mb()
    write_json(path, {**notes, **fingerprint(device)})
