"""What the training loop and the probes of PST cost compared with the bare model: `python benchmarks/loop.py`.

For each architecture it prints images per second of three loops: forward, backward and optimizer step on one fixed
batch (bare), the training loop with crop and flip (erm), and the same with grayscale and colour jitter (erm_cg). It
also prints the ratios of these, the seconds of one probe, and those of a probe over an epoch of 50,000 images.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from relearn import registry
from relearn.data import split, to_float
from relearn.params import Recipe
from relearn.probing.probe_set import ProbeSet
from relearn.runtime import device as devices
from relearn.runtime.seeding import Seeds, deterministic
from relearn.training import models
from relearn.training.fit import Method, Run

IMAGES = 4096


def new_run(arch: str, settings: dict, method: Method, device: str) -> Run:
    """A run on random images."""
    seeds = Seeds("benchmark", arch)
    generator = seeds.generator("images")
    images = torch.randint(0, 256, (IMAGES, 32, 32, 3), generator=generator, dtype=torch.uint8)
    train = split(images, torch.randint(0, 10, (IMAGES,), generator=generator)).to(device)
    model = models.build(arch, settings, images=images, classes=10, generator=seeds.generator("init"), device=device)
    probe_set = ProbeSet.draw(train, 1000, seeds.generator("probe"))
    return Run(model.train(), method, train, dataclasses.asdict(Recipe()), seeds, probe_set)


def seconds(action: Callable[[], None], repeats: int, device: str) -> float:
    """The fastest of three means over `repeats` calls, after one call to warm up."""
    action()
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(repeats):
            action()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - begin) / repeats)
    return best


def bare_step(run: Run) -> Callable[[], None]:
    """One step on a batch that stays the same: nothing but the model and the optimizer."""
    batch, model, optimizer = run.recipe["batch"], run.training.model, run.training.optimizer
    x, y = to_float(run.train.images[:batch]), run.train.labels[:batch]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def probe(run: Run) -> Callable[[], None]:
    """One forward pass over the probe set, and ACM of every layer group."""

    def measure() -> None:
        run.training.forget_measurement()  # else it would return the last result
        run.training.measure()

    return measure


def main() -> None:
    """Print a row per architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--width", type=int, default=8, help="of resnet18")
    options = parser.parse_args()
    deterministic(options.threads)
    device = devices.choose()
    erm = registry.load("methods", "erm")
    print("| images/s | bare | erm | erm_cg | erm/bare | erm_cg/bare | probe | probe/epoch |", flush=True)
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for arch, settings in (("cnn", {}), ("resnet18", {"width": options.width})):
        plain = new_run(arch, settings, erm(), device)
        coloured = new_run(arch, settings, erm(gray=0.5, jitter=0.4), device)
        bare = seconds(bare_step(plain), options.repeats, device)
        loop = seconds(plain.advance, options.repeats, device)
        colour = seconds(coloured.advance, options.repeats, device)
        taken = seconds(probe(plain), 1, device)
        batch = plain.recipe["batch"]
        speeds = " | ".join(f"{batch / step:.0f}" for step in (bare, loop, colour))
        share = taken / (loop * 50_000 / batch)
        print(
            f"| {arch} | {speeds} | {bare / loop:.2f} | {bare / colour:.2f} | {taken:.3f} s | {share:.4f} |", flush=True
        )


if __name__ == "__main__":
    main()
