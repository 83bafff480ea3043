"""Purification by a rate-constrained autoencoder with class embeddings. Yu et al., 2024 (arXiv 2405.01460)."""

import torch
from torch import nn

from relearn.crafting.craft import CraftContext
from relearn.crafting.disentangling import GROUPS, Disentangling, loss
from relearn.data import Split, to_float
from relearn.errors import UserError
from relearn.registry import Channels, NonNegative, Positive, PositiveInt, Seed, register
from relearn.runtime import memory
from relearn.training import schedule

RATE_WEIGHT = 0.01  # of the rate in the loss
FREE = 11 / 60  # share of the epochs in which the perturbation may have any size
LEAST = 0.002  # mean square of the perturbation that is free afterwards, for values in [0, 1]
CLIP = 5.0  # norm to which gradients are cut
CODED = 500  # images at a time that are purified

#: forward and backward passes per image, from settings and the number of images: two autoencoders
PASSES = {"dvae": lambda settings, images: 2 * settings["epochs"]}


@register
def dvae(
    train: Split,
    craft: CraftContext,
    *,
    rough_rate: NonNegative = 1.0,
    fine_rate: NonNegative = 3.0,
    epochs: PositiveInt = 60,
    batch: PositiveInt = 128,
    lr: Positive = 0.005,
    width: Channels = 64,
    latent: Channels = 256,
    spatial: bool = False,
    seed: Seed = 0,
) -> torch.Tensor:
    """The training images, decoded by an autoencoder whose code has a rate of `fine_rate` nats per position.

    A perturbation costs rate and is not worth it; a second decoder, which gets an embedding of the class, explains it
    instead. Stage 1 trains at `rough_rate` and subtracts the perturbation that it found. Stage 2 trains anew on what is
    left at `fine_rate`, subtracts again, and gives the images decoded from the result. Each takes `epochs` by Adam at
    `lr`, falling to 0 along a cosine. `width` is that of the convolutions, `latent` that of the code; with `spatial`
    the embedding differs from place to place. It needs no clean image. Raises UserError for a width that is no multiple
    of 8, and for a batch larger than the training set.

    Ours: the convolutions (the paper's are in its code alone), group norm, a code at half the resolution, the mean of
    the code instead of a draw when images are purified, a cosine by step, and rounding to the nearest level.
    """
    if width % GROUPS:
        raise UserError(f"dvae: width must be a multiple of {GROUPS}, found {width}")
    if batch > len(train):
        raise UserError(f"dvae: batch is {batch}, but the training set has {len(train)} images; give a smaller one")
    pixels = train.images[0].numel() // 3
    values = batch * pixels * (20 * width + 2 * latent)  # what the layers put out, which backward needs
    weights = 4 * latent * (craft.classes * (pixels if spatial else 1) + 20 * width) + 200 * width**2  # and the like
    memory.check(
        4 * (values + weights), f"training dvae on batches of {batch} images", "give a smaller batch", craft.device
    )
    size = (train.images.shape[1], train.images.shape[2])
    images = train.images
    for stage, rate in enumerate((rough_rate, fine_rate)):
        part = train.with_images(images).to(craft.device)
        generator = craft.generator("init", seed, stage)
        model = Disentangling(craft.classes, size, width=width, latent=latent, spatial=spatial, generator=generator).to(
            craft.device
        )
        saved = craft.load_checkpoint(f"stage{stage}")
        if "images" in saved:
            images = saved["images"].cpu()
            continue
        _train(model, part, craft, saved, stage=stage, rate=rate, epochs=epochs, batch=batch, lr=lr, seed=seed)
        images = _purified(model, part, decoded=stage == 1)
        craft.save_checkpoint(f"stage{stage}", lambda: {"images": images}, always=True)  # noqa: B023, used at once
    return images


def _train(
    model: Disentangling,
    train: Split,
    craft: CraftContext,
    saved: dict,
    *,
    stage: int,
    rate: float,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
) -> None:
    """Train one autoencoder, from the epoch after the last that was saved."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    begin = saved.get("epoch", 0)
    if begin:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    steps = len(train) // batch
    with craft.progress(2 * epochs, stage * epochs + begin) as progress:
        for epoch in range(begin, epochs):
            order = torch.randperm(len(train), generator=craft.generator("order", seed, stage, epoch))
            order = order.to(train.images.device)
            least = LEAST if epoch >= FREE * epochs else None
            for k, rows in enumerate(order[: steps * batch].split(batch), epoch * steps):
                x, y = to_float(train.images.index_select(0, rows)), train.labels.index_select(0, rows)
                noise = craft.generator("code", seed, stage, k, device=craft.device)
                for group in optimizer.param_groups:
                    group["lr"] = lr * schedule.factor(k, steps * epochs, 0, "cosine")
                optimizer.zero_grad(set_to_none=True)
                total = loss(model(x, y, noise), x, rate=rate, weight=RATE_WEIGHT, least=least)
                craft.guard.note(total, "loss of dvae", f"stage {stage + 1}, step {k + 1} of {steps * epochs}")
                total.backward()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
            progress.advance_to(stage * epochs + epoch + 1)
            craft.save_checkpoint(
                f"stage{stage}",
                lambda done=epoch + 1: {
                    "epoch": done,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                },
            )
    craft.guard.check()


@torch.no_grad()
def _purified(model: Disentangling, train: Split, decoded: bool) -> torch.Tensor:
    """Images (N, H, W, 3) uint8 on the CPU without the perturbation that the model finds, `decoded` once more if so."""
    parts = []
    for images, labels in zip(train.images.split(CODED), train.labels.split(CODED), strict=True):
        x = to_float(images)
        x = (x - model(x, labels).perturbation).clamp(0, 1)
        x = model(x, labels).image if decoded else x
        parts.append(x.permute(0, 2, 3, 1).mul(255).add(0.5).floor().clamp(0, 255).byte().cpu())
    return torch.cat(parts)
