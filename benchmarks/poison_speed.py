"""How fast poisons are made: `python benchmarks/poison_speed.py`, on a CPU.

First the poisons without a model, each in a process of its own on `--images` random 32x32 images of ten classes: seconds
and peak memory, adding and rounding included. Then those that attack a model: the time of one of the passes they declare,
over that of a bare forward and backward pass of the same model to the image, measured in turns within one run (medians).
A ratio near 1 says that the bookkeeping is free; training a surrogate's weights along the way makes it larger.
"""

import argparse
import resource
import subprocess
import sys
import time
from statistics import median

import torch
import torch.nn.functional as F

from relearn import registry
from relearn.crafting import perturbation
from relearn.training import models
from relearn.training.augment import levels
from relearn.crafting.craft import CraftContext
from relearn.data import Split, split
from relearn.runtime.seeding import Seeds, deterministic

BARE = {"random": {}, "lsp": {}, "cuda": {}, "ops": {}, "ar": {}, "pil": {}}  # without a model
WHOLE = {"batch": 128, "steps": 10}
ATTACKS = {
    "hypo": {"surrogate": "s", **WHOLE},
    "tap": {"surrogate": "s", "restarts": 1, **WHOLE},
    "sep": {"surrogate": "s", "models": 3, **WHOLE},
    "em": {"arch": "net", "rounds": 2, "batches": 4, "stop_error": None, **WHOLE},
    "sem": {"arch": "net", "steps_taken": 4, "samples": 2, "attack_steps": 3, **WHOLE},
    "rem": {"arch": "net", "steps_taken": 2, "samples": 1, "attack_steps": 3, **WHOLE},
}


def random_images(count: int) -> Split:
    """`count` random images of ten classes."""
    images = torch.randint(0, 256, (count, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return split(images, torch.arange(count) % 10)


def workshop(name: str, train: Split, arch: tuple[str, dict]) -> CraftContext:
    """What the poison `name` is crafted with."""
    made = CraftContext(name, Seeds("benchmark", name), "cpu", 10, {"net": arch})
    made.surrogate, *earlier = (
        models.build(*arch, images=train.images, classes=10, generator=torch.Generator(), device="cpu")
        for _ in range(3)
    )
    made.earlier = lambda: earlier
    return made


def bare(name: str, count: int) -> None:
    """Make one poison without a model and print seconds and peak memory."""
    train = random_images(count)
    begin = time.perf_counter()
    perturbation = registry.load("poisons", name)(train, CraftContext(name, Seeds("benchmark", name), "cpu", 10), **BARE[name])
    perturbation.apply(train.images, perturbation)
    seconds, memory = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {name} | {seconds:.1f} s | {memory:.0f} MB |", flush=True)


def attacks(arch: tuple[str, dict], options) -> None:
    """Print the time of a declared pass over that of a bare one, for each attack."""
    train = random_images(options.target_arch)
    model = workshop("bare", train, arch).trained_surrogate()

    def plain() -> None:
        for rows in torch.arange(len(train)).split(128):
            x = (levels(train.images[rows]) / 255).requires_grad_(True)
            torch.autograd.grad(F.cross_entropy(model(x), train.labels[rows], reduction="sum"), x)

    def seconds(action) -> float:
        begin = time.perf_counter()
        action()
        return time.perf_counter() - begin

    plain()
    for name, own in ATTACKS.items():
        make, passes = registry.load("poisons", name), registry.module("poisons", name).PASSES[name]
        defaults = {s.name: s.default for s in registry.entry("poisons", name).settings}
        declared = passes(defaults | own, len(train))
        ratios = []
        for _ in range(options.repeats):
            base = seconds(plain)
            taken = seconds(lambda: make(train, workshop(name, train, arch), **own))
            ratios.append(taken / declared / (0.5 * (base + seconds(plain))))
        print(f"| {name} | {declared:.0f} | {median(ratios):.2f} |", flush=True)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"threads": 2, "images": 50_000, "target_arch": 1024, "repeats": 3, "width": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--arch", default="cnn")
    parser.add_argument("--bare", choices=BARE, help="make this one only")
    options = parser.parse_args()
    deterministic(options.threads)
    if options.bare:
        return bare(options.bare, options.images)
    print(f"| without a model, {options.images} images | time | peak memory |\n|---|---|---|", flush=True)
    for name in BARE:
        subprocess.run(
            [
                sys.executable,
                __file__,
                "--bare",
                name,
                "--images",
                str(options.images),
                "--threads",
                str(options.threads),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    print(
        f"\n| on {options.arch}, width {options.width} | passes | time of one over a bare one (n = {options.repeats}) |\n|---|---|---|",
        flush=True,
    )
    attacks((options.arch, {"width": options.width}), options)


if __name__ == "__main__":
    main()
