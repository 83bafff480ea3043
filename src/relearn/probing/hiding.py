"""A view of images that hides what unlearnable examples add: grayscale at half the resolution (docs/pst.md).

Most perturbations lie in colour and in fine detail, which matter little for the class of an image. So a network that
has learned the images still recognises most of them in this view, and one that has learned the perturbation does not.
"""

import torch
import torch.nn.functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of every common grayscale conversion


def gray(x: torch.Tensor) -> torch.Tensor:
    """Luma in all three channels of images (N, 3, H, W); for another number of channels their mean."""
    weights = LUMA if x.shape[1] == 3 else (1 / x.shape[1],) * x.shape[1]
    luma = torch.tensor(weights, device=x.device, dtype=x.dtype).reshape(1, -1, 1, 1)
    return (x * luma).sum(1, keepdim=True).expand_as(x).contiguous(memory_format=torch.channels_last)


def hidden(x: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W), float, in grayscale at half the resolution, enlarged again to their size.

    It is linear, so images may be normalised, by one mean and standard deviation for all channels or nearly so.
    """
    coarse = F.avg_pool2d(gray(x), 2, ceil_mode=True, count_include_pad=False)
    return F.interpolate(coarse, scale_factor=2, mode="nearest")[:, :, : x.shape[2], : x.shape[3]]


def blurred(x: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W), float, in grayscale, twice the mean of 3x3 pixels: less is left than in `hidden`.

    It is for `relearn check` (docs/check.md): perturbations crafted through grayscale survive `hidden`.
    """
    coarse = gray(x)
    for _ in range(2):
        coarse = F.avg_pool2d(coarse, 3, 1, 1, count_include_pad=False)
    return coarse
