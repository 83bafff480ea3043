"""What the numbers of a report depend on: processor, versions, load."""

import os
import platform
from collections.abc import Iterator
from datetime import date

import torch

import relearn
from benchmarks.options import Options
from relearn.runtime import cpu
from relearn.runtime.run_report import environment


def report(options: Options) -> Iterator[str]:
    """The beginning of the report."""
    yield "# How fast relearn is\n"
    commit = environment(options.device)["commit"] or "unknown"
    yield f"- date: {date.today()}; relearn {relearn.__version__}, commit {commit[:7]}"
    yield f"- processor: {processor()}, {os.cpu_count()} cores; bfloat16 flags: {_flags()}; load at the start {load()}"
    if options.device != "cpu":
        yield f"- device of training and PST: {torch.cuda.get_device_name(options.device)}"
    yield f"- torch {torch.__version__}; threads: {options.threads}"
    yield (
        f"- n = {options.repeats} rounds, in which all that is compared takes turns; median (quartiles). Seconds are "
        "CPU seconds, on a GPU wall seconds. Images are random, 32×32, of ten classes, where nothing else is said."
    )


def processor() -> str:
    """The model name of the processor."""
    lines = cpu.PROCESSOR.read_text().splitlines() if cpu.PROCESSOR.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def load() -> str:
    """How many processes want to compute, on average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _flags() -> str:
    found = set(cpu.PROCESSOR.read_text().split()) if cpu.PROCESSOR.exists() else set()
    return ", ".join(sorted(cpu.BFLOAT16 & found)) or "none"
