"""What training and crafting cost: passes per image, and how fast an architecture makes them here."""

import time

import torch

from relearn import device as devices
from relearn import models, registry
from relearn.data import Split
from relearn.params import Params
from relearn.seeding import Seeds

WARM, TIMED = 2, 5  # batches


def passes(params: Params, poison: str, images: int) -> float:
    """Forward and backward passes per image that a poison of params.yaml makes for so many images; a training-free one declares none."""
    use = params.entry("poisons", poison).name
    declared = getattr(registry.module("poisons", use), "PASSES", {})
    return float(declared[use](params.settings("poisons", poison), images)) if use in declared else 0.0


def attacked(params: Params, poison: str) -> str | None:
    """The architecture, a name of params.yaml, that a poison is crafted on; None for one without."""
    surrogate = params.named("poisons", poison, "SurrogateName")
    return (
        params.settings("surrogates", surrogate)["arch"]
        if surrogate
        else params.named("poisons", poison, "ArchitectureName")
    )


def speed(params: Params, arch: str, height: int, width: int) -> tuple[float, int]:
    """Images per second of forward and backward, and bytes of the weights, measured here and now on a few batches."""
    use, settings = params.architectures[arch]
    batch, device = params.recipe["batch"], devices.choose()
    generator = Seeds("plan").generator("images")
    images = torch.randint(0, 256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)
    model = models.build(use, settings, images=images, classes=10, generator=generator, device=device)
    x = images.to(device).permute(0, 3, 1, 2).float() / 255
    for k in range(WARM + TIMED):
        if k == WARM:
            begin = time.perf_counter()
        model(x).sum().backward()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return TIMED * batch / (time.perf_counter() - begin), sum(t.numel() * 4 for t in model.state_dict().values())


def announced(params: Params, poison: str, train: Split) -> str:
    """One line on what crafting a poison for these images will cost."""
    count, arch = len(train), attacked(params, poison)
    wanted = passes(params, poison, count)
    if not arch or not wanted:
        return f"poison {poison}: {count} images, no model"
    seconds = wanted * count / speed(params, arch, *train.images.shape[1:3])[0]
    length = (
        f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 36_000
        else f"{seconds / 3600:.0f} h"
    )
    return f"poison {poison}: {count} images, {wanted:.0f} passes each through {arch}, at most about {length} at the speed of a few batches just timed"
