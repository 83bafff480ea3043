"""The peak memory of a training over what it cannot do without: images, model, activations of a batch."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks import runs
from benchmarks.options import Options
from benchmarks.timing import head, number, row
from relearn.data import to_float
from relearn.runtime.run_report import peak_memory_mb
from relearn.runtime.seeding import deterministic
from relearn.training.fit import Run
from relearn.training.models import COPIES

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = "import relearn, torch; from benchmarks.memory import peak; print(peak())"
STEPS = 3
MEGABYTE = 2**20


def report(options: Options) -> Iterator[str]:
    """A table with a row per architecture."""
    count = options.images_in_memory
    imports = int(_child("-c", IMPORTS))
    yield (
        f"## Memory\n\nPeak of a process that trains on {count:,} images of 32×32, {STEPS} steps and the test at the "
        f"end of an epoch, less the {imports / MEGABYTE:.0f} MB of one that only imported relearn and torch. "
        f"Needed are the images, {COPIES} copies of the weights (gradients, momentum) and what the backward pass of a "
        f"batch of {options.batch} reads. float32; in MB, n = 1.\n"
    )
    titles = ("images", "weights", "activations", "needed", "peak before the first step", "peak", "peak over needed")
    yield head("architecture", *titles)
    few = runs.images_for(options)
    for name, architecture in options.small.items():
        run = runs.new_run(architecture, few, options)
        weights = COPIES * sum(4 * parameter.numel() for parameter in run.training.model.parameters())
        parts = [count * few.images[0].numel(), weights, activations(run)]
        task = {"architecture": architecture, "images": count}
        task |= {"batch": options.batch, "threads": options.threads, "probe_size": options.probe_size}
        peaks = [peak - imports for peak in json.loads(_child("-m", "benchmarks.memory", json.dumps(task)))]
        sizes = [number(value / MEGABYTE) for value in (*parts, sum(parts), *peaks)]
        yield row(name, *sizes, number(peaks[-1] / sum(parts)))


def peak() -> int:
    """The most bytes of memory that this process has had at once."""
    return round(peak_memory_mb() * 2**20)


def activations(run: Run) -> int:
    """Bytes that the forward pass of a batch keeps for the backward pass, weights excepted."""
    part = run.recipe["micro_batch"] or run.recipe["batch"]
    weights = {parameter.untyped_storage().data_ptr() for parameter in run.training.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # the loss holds all that is kept, so that no address is used twice
        loss = F.cross_entropy(run.training.model(to_float(run.train.images[:part])), run.train.labels[:part])
    return sum(kept.values()) if loss.requires_grad else 0


def train(task: dict) -> list[int]:
    """Train on random images; the peak of memory before the first step, and in all."""
    deterministic(task["threads"])
    options = Options(batch=task["batch"])
    images = runs.random_images(task["images"])
    run = runs.new_run(tuple(task["architecture"]), images, options, probe_size=task["probe_size"])
    before = peak()
    for _ in range(STEPS):
        run.advance()
    run.end_epoch(images.pick(torch.arange(min(1000, len(images)))))
    return [before, peak()]


def _child(*arguments: str) -> str:
    """What a Python process of its own prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    print(json.dumps(train(json.loads(sys.argv[1]))))
