"""How long poisons take to craft, on a CPU: `python benchmarks/poison_speed.py`.

The first table has the poisons without a model, each in its own process on `--images` random 32x32 images of ten
classes: seconds and peak memory, adding and rounding included. The second has the poisons that attack a model, on
`--attacked` images: the time of one of the passes that the poison declares, divided by the time of a bare forward and
backward pass of the same model to the image. Both are measured in turns within one run; the ratio is the median. A
ratio near 1 means that the poison adds almost nothing to its passes. Where a poison also trains the weights of a
surrogate, the ratio is larger.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from relearn import registry
from relearn.crafting import perturbation
from relearn.crafting.craft import CraftContext
from relearn.data import Split, levels, split
from relearn.runtime.run_report import peak_memory_mb
from relearn.runtime.seeding import Seeds, deterministic
from relearn.training import models

BARE = ("random", "lsp", "cuda", "ops", "ar", "pil")  # without a model
WHOLE = {"batch": 128, "steps": 10}
ATTACKS = {  # with their settings
    "hypo": {"surrogate": "s", **WHOLE},
    "tap": {"surrogate": "s", "restarts": 1, **WHOLE},
    "sep": {"surrogate": "s", "models": 3, **WHOLE},
    "em": {"arch": "net", "rounds": 2, "batches": 4, "stop_error": None, **WHOLE},
    "sem": {"arch": "net", "train_steps": 4, "samples": 2, "attack_steps": 3, **WHOLE},
    "rem": {"arch": "net", "train_steps": 2, "samples": 1, "attack_steps": 3, **WHOLE},
}


def random_images(count: int) -> Split:
    """`count` random images of ten classes."""
    images = torch.randint(0, 256, (count, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return split(images, torch.arange(count) % 10)


def new_context(name: str, train: Split, arch: tuple[str, dict], precision: str = "float32") -> CraftContext:
    """The context that the poison `name` is crafted with; its surrogate has three checkpoints, all untrained."""
    context = CraftContext(name, Seeds("benchmark", name), "cpu", 10, {"net": arch}, precision)
    own = {"images": train.images, "classes": 10, "device": "cpu", "precision": precision}
    context.surrogate, *earlier = (models.build(*arch, generator=torch.Generator(), **own) for _ in range(3))
    context.load_earlier = lambda: earlier
    return context


def declared_passes(name: str, settings: dict, count: int) -> float:
    """The forward and backward passes over `count` images that the poison declares for `settings`."""
    defaults = {s.name: s.default for s in registry.entry("poisons", name).settings}
    return registry.module("poisons", name).PASSES[name](defaults | settings, count)


def crafting(name: str, settings: dict, train: Split, context: CraftContext) -> Callable[[], torch.Tensor]:
    """An action that crafts the poison."""
    make = registry.load("poisons", name)
    return lambda: make(train, context, **settings)


def bare_pass(model: nn.Module, train: Split, batch: int) -> Callable[[], None]:
    """An action that takes the gradient of the loss to every image, batch by batch."""

    def plain() -> None:
        for rows in torch.arange(len(train)).split(batch):
            x = (levels(train.images[rows]) / 255).requires_grad_(True)
            torch.autograd.grad(F.cross_entropy(model(x), train.labels[rows], reduction="sum"), x)

    return plain


def bare(name: str, count: int) -> None:
    """Make one poison without a model and print seconds and peak memory."""
    train = random_images(count)
    begin = time.perf_counter()
    context = CraftContext(name, Seeds("benchmark", name), "cpu", 10)
    perturbation.apply(train.images, registry.load("poisons", name)(train, context))
    print(f"| {name} | {time.perf_counter() - begin:.1f} s | {peak_memory_mb():.0f} MB |", flush=True)


def attacks(arch: tuple[str, dict], options: argparse.Namespace) -> None:
    """Print the time of a declared pass over that of a bare one, for each attack."""
    train = random_images(options.attacked)
    plain = bare_pass(new_context("bare", train, arch).trained_surrogate(), train, WHOLE["batch"])

    def seconds(action: Callable[[], object]) -> float:
        begin = time.perf_counter()
        action()
        return time.perf_counter() - begin

    plain()
    for name, settings in ATTACKS.items():
        declared, found = declared_passes(name, settings, len(train)), []
        for _ in range(options.repeats):
            craft = crafting(name, settings, train, new_context(name, train, arch))
            before = seconds(plain)
            taken = seconds(craft)
            found.append(taken / declared / (0.5 * (before + seconds(plain))))
        print(f"| {name} | {declared:.0f} | {median(found):.2f} |", flush=True)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"threads": 2, "images": 50_000, "attacked": 1024, "repeats": 3, "width": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--arch", default="cnn")
    parser.add_argument("--bare", choices=BARE, help="measure only this poison")
    options = parser.parse_args()
    deterministic(options.threads)
    if options.bare:
        return bare(options.bare, options.images)
    print(f"| without a model, {options.images} images | time | peak memory |\n|---|---|---|", flush=True)
    sizes = ("--images", str(options.images), "--threads", str(options.threads))
    for name in BARE:
        subprocess.run([sys.executable, __file__, "--bare", name, *sizes], check=True, stderr=subprocess.DEVNULL)
    title = f"on {options.arch}, width {options.width}"
    print(f"\n| {title} | passes | time of one over a bare one (n = {options.repeats}) |\n|---|---|---|", flush=True)
    attacks((options.arch, {"width": options.width}), options)


if __name__ == "__main__":
    main()
