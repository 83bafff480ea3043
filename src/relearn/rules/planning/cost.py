"""What training and crafting cost: passes per image, and how fast an architecture makes them here."""

import contextlib
import time

import torch

from relearn import registry
from relearn.data import Split, to_float
from relearn.params import Params
from relearn.runtime import device as devices
from relearn.runtime.progress import ProgressBar
from relearn.runtime.seeding import Seeds
from relearn.training import models

WARM, TIMED = 2, 5  # batches
SMALL, QUICK_SECONDS = 8, 20.0  # images of a first look at a network, and what all batches of one may take when quick


def passes(params: Params, section: str, name: str, images: int) -> float:
    """Forward and backward passes per image that a poison or a purification makes for `images`; 0 without training.

    Those of a purification go through a network of its own, whose speed nothing here measures.
    """
    use = params.entry(section, name).name
    declared = getattr(registry.module(section, use), "PASSES", {})
    return float(declared[use](params.settings(section, name), images)) if use in declared else 0.0


def epochs(params: Params, arch: str, method: str) -> int:
    """Epochs that a method trains an architecture for at most: those of its recipe, but for stages that it adds."""
    use, own = params.entry("methods", method).name, params.recipe_of(arch, method)["epochs"]
    declared = getattr(registry.module("methods", use), "EPOCHS", {})
    return declared[use](params.settings("methods", method), own) if use in declared else own


def passes_per_step(params: Params, arch: str, method: str) -> float:
    """Forward and backward passes per image of a step, on average over the recipe's epochs; 1 in plain training."""
    use = params.entry("methods", method).name
    declared = getattr(registry.module("methods", use), "PASSES_PER_STEP", {})
    if use not in declared:
        return 1.0
    return float(declared[use](params.settings("methods", method), params.recipe_of(arch, method)["epochs"]))


def speed(
    params: Params,
    arch: str,
    height: int,
    width: int,
    precision: str,
    given: float | None = None,
    shown: bool = False,
    quick: bool = False,
) -> tuple[float, int]:
    """Images per second of forward and backward, and bytes of the weights, measured here and now on a few batches.

    A speed that is `given` is taken as it is; then nothing is measured. Progress is `shown` or not. When `quick`, the
    batches of a slow network are smaller, so that it is timed in about `QUICK_SECONDS`, or just two passes of `SMALL`
    images; the memory of the process then says nothing.
    """
    use, settings = params.architectures[arch]
    recipe, device = params.recipe_of(arch), devices.choose() if given is None else "cpu"
    batch = recipe["micro_batch"] or recipe["batch"]
    generator = Seeds("plan").generator("images")
    images = torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)
    model = models.build(
        use, settings, images=images, classes=10, generator=generator, device=device, precision=precision
    )
    weights = sum(t.numel() * 4 for t in model.state_dict().values())
    if given is not None:
        return given, weights
    x = to_float(images.to(device))
    if quick and batch > SMALL:
        seconds = _seconds(model, x[:SMALL], device) / SMALL
        batch = min(batch, int(QUICK_SECONDS / (WARM + TIMED) / seconds))
        if batch < SMALL:
            return 1 / seconds, weights
        x = x[:batch]
    label = f"timing {arch} on images of {height}x{width}, batches of {batch}"
    with ProgressBar(WARM + TIMED, label) if shown else contextlib.nullcontext() as progress:
        for k in range(WARM + TIMED):
            if k == WARM:
                _wait(device)
                begin = time.perf_counter()
            model(x).sum().backward()
            if progress:
                progress.advance_to(k + 1)
        _wait(device)
    return TIMED * batch / (time.perf_counter() - begin), weights


def cost_message(params: Params, poison: str, train: Split, precision: str) -> str:
    """One line on what crafting a poison for these images in `precision` will cost."""
    count, arch = len(train), params.target_arch(poison)
    needed = passes(params, "poisons", poison, count)
    if not arch or not needed:
        return f"poison {poison}: {count} images, no model"
    height, width = train.images.shape[1:3]
    seconds = needed * count / speed(params, arch, height, width, precision)[0]
    return (
        f"poison {poison}: {count} images, {needed:.0f} passes each through {arch}, "
        f"at most about {_duration(seconds)} at the speed of a few batches just timed"
    )


def _seconds(model: torch.nn.Module, x: torch.Tensor, device: str) -> float:
    """What a forward and a backward pass of a few images takes."""
    seconds = 0.0
    for _ in range(2):  # the first is slower: memory, caches, compilation
        _wait(device)
        begin = time.perf_counter()
        model(x).sum().backward()
        _wait(device)
        seconds = time.perf_counter() - begin
    return seconds


def _wait(device: str) -> None:
    """Wait for what a GPU was told to compute."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def _duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.0f} h"
