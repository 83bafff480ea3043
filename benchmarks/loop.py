"""What the training loop and PST's looks cost beside the bare model: ratios in one run, `python benchmarks/loop.py`.

Per architecture: images per second of forward, backward and optimizer step on one fixed batch (bare), of the training
loop with crop and flip (erm), with grayscale and colour jitter too (erm_cg), and seconds of one look at the probe set.
"""

import argparse
import dataclasses
import time

import torch
import torch.nn.functional as F

from relearn.runtime import device as devices
from relearn import registry
from relearn.training import models
from relearn.training.augment import to_float
from relearn.data import split
from relearn.training.fit import Run
from relearn.params import Recipe
from relearn.probing.probe_set import Probe
from relearn.runtime.seeding import Seeds, deterministic

IMAGES = 4096


def run(arch: str, settings: dict, method, device: str) -> Run:
    """A run on random images."""
    seeds = Seeds("benchmark", arch)
    draw = seeds.generator("images")
    images = torch.randint(0, 256, (IMAGES, 32, 32, 3), generator=draw, dtype=torch.uint8)
    train = split(images, torch.randint(0, 10, (IMAGES,), generator=draw)).to(device)
    model = models.build(arch, settings, images=images, classes=10, generator=seeds.generator("init"), device=device)
    probe = Probe.draw(train, 1000, seeds.generator("probe"))
    return Run(model.train(), method, train, dataclasses.asdict(Recipe()), seeds, probe, "float32")


def seconds(action, repeats: int, device: str) -> float:
    """The fastest of three means over `repeats` calls, after one to warm up."""
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


def bare_step(of: Run):
    """One step on a batch that stays the same: nothing but the model and the optimizer."""
    batch = of.recipe["batch"]
    x, y = to_float(of.train.images[:batch]), of.train.labels[:batch]

    def step() -> None:
        of.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(of.model(x), y).backward()
        of.optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--width", type=int, default=8, help="of resnet18")
    options = parser.parse_args()
    deterministic(options.threads)
    device = devices.choose()
    erm = registry.load("methods", "erm")
    print(
        f"{'':<12} {'bare':>9} {'erm':>9} {'erm_cg':>9}  images/s {'erm/bare':>9} {'cg/bare':>8} {'look':>7} s  {'look/epoch of 50,000':>20}"
    )
    for arch, settings in (("cnn", {}), ("resnet18", {"width": options.width})):
        plain, coloured = run(arch, settings, erm(), device), run(arch, settings, erm(gray=0.5, jitter=0.4), device)
        batch = plain.recipe["batch"]
        bare = seconds(bare_step(plain), options.repeats, device)
        loop = seconds(plain.advance, options.repeats, device)
        colour = seconds(coloured.advance, options.repeats, device)
        look = seconds(lambda: plain.probe.measure(plain.model), 1, device)
        speeds = "".join(f" {batch / value:>9.0f}" for value in (bare, loop, colour))
        print(
            f"{arch:<12}{speeds}{'':>11}{bare / loop:>9.2f} {bare / colour:>8.2f} {look:>7.3f}    {look / (loop * 50_000 / batch):>20.4f}"
        )


if __name__ == "__main__":
    main()
