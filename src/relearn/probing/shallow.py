"""What the shallow layers of a network respond to: the image, or the perturbation on it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from relearn.errors import UserError

Respond = Callable[[torch.Tensor], torch.Tensor]  # images (N, 3, H, W) in [0, 1] to responses (N, C, h, w)
WINDOW = 16  # pixels; of a filter that sees more, the middle


@dataclass(frozen=True)
class Responses:
    """How a shallow part of a network responds to `N` images with and without their perturbation.

    `input_share` and `share` are shares of a variance, that of the pixels and that of the responses: the mean square
    of what the perturbation changes, over that of how images differ from their mean; 0 is none of it. `shares` (C,)
    has the same for each channel, and `strength` (C,) the deviation of its responses. `image` and `change` (E, h, w)
    are root mean squares over the channels, in deviations of all responses, for the first E images: how far the clean
    image is from the mean, and how much the perturbation changes. All float32.
    """

    input_share: float
    share: float
    shares: torch.Tensor
    strength: torch.Tensor
    image: torch.Tensor
    change: torch.Tensor


@torch.no_grad()
def responses(respond: Respond, clean: torch.Tensor, poisoned: torch.Tensor, examples: int) -> Responses:
    """Measure the responses to `clean` and `poisoned`, both (N, 3, H, W) float32 as the network gets them.

    Raises UserError when the responses are no maps (N, C, h, w), such as those of a transformer.
    """
    before, after = respond(clean).float(), respond(poisoned).float()
    if before.dim() != 4:
        raise UserError(
            f"the responses of these layer groups have the shape {tuple(before.shape)}, not that of maps "
            "(N, channels, height, width); choose an architecture of convolutions, or other groups"
        )
    changed = (after - before).square().mean((0, 2, 3))
    spread = (after - after.mean(0)).square().mean((0, 2, 3))
    unit = spread.mean().clamp_min(1e-30)
    return Responses(
        input_share=_share(clean, poisoned),
        share=float(changed.mean() / unit),
        shares=changed / spread.clamp_min(1e-30),
        strength=spread.sqrt(),
        image=((before - before.mean(0))[:examples].square().mean(1) / unit).sqrt(),
        change=((after - before)[:examples].square().mean(1) / unit).sqrt(),
    )


def filters(respond: Respond, images: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """For each of `channels` the pattern (C, h, w, 3) float32 that raises its response most, per unit of contrast.

    It is the mean gradient of the response in the middle of the image by the pixels, over `images` (N, 3, H, W); for
    one convolution these are its weights. The window is what the response depends on, `WINDOW` pixels at most.
    """
    x = images.detach().clone().requires_grad_(True)
    out = respond(x).float()
    middle = out[:, :, out.shape[2] // 2, out.shape[3] // 2].sum(0)
    found = [
        torch.autograd.grad(middle[channel], x, retain_graph=place + 1 < len(channels))[0]
        for place, channel in enumerate(channels.tolist())
    ]
    seen = torch.stack([gradient.abs().sum((0, 1)) for gradient in found]).sum(0) > 0
    rows, columns = (_window(seen.any(axis)) for axis in (1, 0))
    return torch.stack([gradient.mean(0)[:, rows, columns].permute(1, 2, 0) for gradient in found])


def _window(seen: torch.Tensor) -> slice:
    """The places from the first that is seen to the last, or the middle of them."""
    places = torch.nonzero(seen).flatten()
    if not len(places):
        return slice(0, 1)  # nothing raises any of the responses
    first, last = int(places[0]), int(places[-1]) + 1
    surplus = max(0, last - first - WINDOW)
    return slice(first + surplus // 2, last - (surplus - surplus // 2))


def _share(clean: torch.Tensor, poisoned: torch.Tensor) -> float:
    spread = (poisoned - poisoned.mean(0)).square().mean().clamp_min(1e-30)
    return float((poisoned - clean).square().mean() / spread)
