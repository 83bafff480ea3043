"""Batches of a user's loop on their way to the network: augmented, or grayscale, as the workflow has them."""

import math
from collections.abc import Callable

import torch

from relearn.errors import UserError
from relearn.methods import pst as workflow
from relearn.runtime.seeding import Seeds

CHANNELS = 3
OUTSIDE = 0.05  # of the range [0, 1]: how far resampling may carry a pixel


class Normalisation:
    """What a user's transform did to images in [0, 1]: (x - mean) / std for each of three channels."""

    def __init__(self, mean: object, std: object):
        self.mean, self.std = _channels("mean", mean), _channels("std", std)
        if not (self.std > 0).all():
            raise UserError(f"pst: std must be above 0 for each channel, found {self.std.flatten().tolist()}")

    def undone(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, H, W) as float32 in [0, 1], clamped."""
        return (images.float() * self.std.to(images.device) + self.mean.to(images.device)).clamp_(0, 1)

    def done(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) in [0, 1], normalised again."""
        return (x - self.mean.to(x.device)) / self.std.to(x.device)

    def check(self, images: torch.Tensor) -> None:
        """Raises UserError for images that are not (N, 3, H, W), or that another mean and std have normalised."""
        check_rgb(images)
        x = images.float() * self.std.to(images.device) + self.mean.to(images.device)
        low, high = x.min().item(), x.max().item()
        if low < -OUTSIDE or high > 1 + OUTSIDE:
            raise UserError(
                f"pst: without mean and std the images go from {low:.2f} to {high:.2f}, not from 0 to 1; "
                "give those of the dataset's transform"
            )


class Views:
    """What `method` makes of the batches of a loop; random draws depend on `seed`, the step and `rank` alone.

    `rank` is the number of the process, for its share of the batch has draws of its own.
    Without a `normalisation` there is nothing to make, and batches stay as they are.
    """

    def __init__(self, method: workflow.PST, normalisation: Normalisation | None, seed: int, rank: int = 0):
        self.method, self.normalisation, self.seeds = method, normalisation, Seeds("pst", seed)
        self.rank = ("rank", rank) if rank else ()
        self._generator: tuple[tuple, torch.Generator] | None = None

    def training(self, images: torch.Tensor, step: int, steps_taken: int) -> torch.Tensor:
        """A batch (B, 3, H, W) augmented; further batches of one step, as of accumulated gradients, draw on."""
        device = str(images.device)
        place = (step, steps_taken, device)
        if self._generator is None or self._generator[0] != place:
            self._generator = place, self.seeds.generator("augment", step, *self.rank, device=device)
        generator = self._generator[1]
        return self._changed(images, lambda x: self.method.augment(x, generator))

    def evaluation(self, images: torch.Tensor) -> torch.Tensor:
        """A batch (B, 3, H, W) as the network takes it outside training, at the present stage."""
        return self._changed(images, self.method.eval_transform)

    def forget(self) -> None:
        """Draw anew, since the step may be one that has been before."""
        self._generator = None

    def _changed(self, images: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if self.normalisation is None:
            return images
        check_rgb(images)
        with torch.autocast(images.device.type, enabled=False):
            x = self.normalisation.undone(images)
            changed = change(x)
            # what is not changed shall not be rounded either
            return images if changed is x else self.normalisation.done(changed).to(images.dtype)


def check_rgb(images: torch.Tensor) -> None:
    """Raises UserError unless `images` are floats (N, 3, H, W)."""
    if images.ndim != 4 or images.shape[1] != CHANNELS or not images.is_floating_point():
        raise UserError(
            f"pst: augmentation and pretraining take float images (N, {CHANNELS}, H, W), found {images.dtype} "
            f"{tuple(images.shape)}; turn images to RGB in the dataset's transform"
        )


def _channels(name: str, values: object) -> torch.Tensor:
    """`values` as (1, 3, 1, 1) float32. Raises UserError unless there is a finite number for each channel."""
    found = values.tolist() if hasattr(values, "tolist") else values
    numbers = list(found) if isinstance(found, tuple | list) else []
    good = [isinstance(number, int | float) and math.isfinite(number) for number in numbers]
    if len(good) != CHANNELS or not all(good):
        raise UserError(
            f"pst: {name} must be {CHANNELS} numbers, one for each channel of the images, found {found!r:.80}"
        )
    return torch.tensor(numbers, dtype=torch.float32).reshape(1, CHANNELS, 1, 1)
