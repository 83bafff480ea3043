"""Augmentation as functions of a batch: every image gets its own draw, nothing loops over images.

Batches are float32 (B, 3, H, W) in [0, 1] unless said otherwise.
"""

import math

import torch
import torch.nn.functional as F

from relearn.errors import UserError
from relearn.probing.hiding import LUMA, gray


def crop_and_flip(images: torch.Tensor, pad: int, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """Random crop after zero padding by `pad`, then, if `flip`, a horizontal flip with probability 1/2.

    Images are (B, H, W, 3) uint8, and stay so. Raises UserError for a `pad` of a side or more.
    """
    count, height, width, channels = images.shape
    _check_pad(pad, height, width)
    device = images.device
    offset = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator, device=device)
    flipped = torch.rand(count, generator=generator, device=device) < 0.5
    if pad:
        padded = F.pad(images, (0, 0, pad, pad, pad, pad))
        # a row of a crop lies in one piece: take the pieces, of all places where one can begin
        line = channels * width
        pieces = padded.view(-1).as_strided((padded.numel() - line + 1, line), (1, 1))
        top = torch.arange(count, device=device)[:, None] * (height + 2 * pad) + offset[0]
        begin = (top + torch.arange(height, device=device)) * (width + 2 * pad) + offset[1]
        images = pieces.index_select(0, (channels * begin).view(-1)).view(count, height, width, channels)
    return torch.where(flipped.view(-1, 1, 1, 1), images.flip(2), images) if flip else images


def shift_and_flip(x: torch.Tensor, pad: int, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """One random crop after zero padding by `pad` and, if `flip`, one horizontal flip, for the whole batch.

    A single draw per batch lets a gradient pass through at the cost of a copy. `generator` is on the CPU.
    Raises UserError for a `pad` of a side or more.
    """
    height, width = x.shape[2:]
    _check_pad(pad, height, width)
    down, right, flipped = torch.rand(3, generator=generator).tolist()
    top, left = int(down * (2 * pad + 1)), int(right * (2 * pad + 1))
    x = F.pad(x, (pad, pad, pad, pad))[:, :, top : top + height, left : left + width]
    return x.flip(3) if flip and flipped < 0.5 else x


def _check_pad(pad: int, height: int, width: int) -> None:
    if pad >= min(height, width):
        raise UserError(
            f"crop_pad is {pad}, so that a crop can miss an image of {height}x{width} altogether; give a smaller one"
        )


def mix_channels(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Multiply the colour of every pixel by its image's matrix (B, 3, 3)."""
    mixed = torch.matmul(matrices, x.reshape(len(x), 3, -1)).reshape(x.shape)
    return mixed.contiguous(memory_format=torch.channels_last)


def random_gray(x: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """`gray` for each image with `probability`."""
    chosen = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < probability
    return torch.where(chosen, gray(x), x)


def downsample(x: torch.Tensor, factor: int) -> torch.Tensor:
    """The mean of every `factor` x `factor` square of pixels, which a class-wise filter changes least.

    Pixels at the border that fill no square are cut off.
    """
    return x if factor == 1 else F.avg_pool2d(x, factor)


def colour_jitter(
    x: torch.Tensor, strength: float, hue: float, probability: float, generator: torch.Generator
) -> torch.Tensor:
    """Change brightness, contrast and saturation by factors in 1 ± `strength`, and the hue by ± `hue` turns.

    Each image is changed with `probability`. All but contrast are linear in colour, so one 3x3 matrix per image does
    them at once; hue turns the chroma plane of YIQ. Results are clipped to [0, 1] once, at the end.
    """
    count, device = len(x), x.device

    def draw(width: float) -> torch.Tensor:
        return (torch.rand(count, 1, 1, generator=generator, device=device) * 2 - 1) * width

    eye = torch.eye(3, device=device)
    luma = torch.tensor(LUMA, device=device).expand(3, 3)
    brightness, contrast, saturation = 1 + draw(strength), 1 + draw(strength), 1 + draw(strength)
    matrix = saturation * eye + (1 - saturation) * luma
    matrix = brightness * torch.matmul(_hue_rotation(draw(hue) * 2 * math.pi, device), matrix)
    jittered = mix_channels(x, matrix)
    mean = gray(jittered).mean((1, 2, 3), keepdim=True)
    contrast = contrast[..., None]
    jittered = (contrast * jittered + (1 - contrast) * mean).clamp_(0, 1)
    chosen = torch.rand(count, 1, 1, 1, generator=generator, device=device) < probability
    return torch.where(chosen, jittered, x)


def random_convolution(x: torch.Tensor, width: float, generator: torch.Generator) -> torch.Tensor:
    """Filter each image with a 3x3 kernel of its own: 1 in the middle, plus noise uniform in ± `width` less its mean.

    The kernel sums to 1, so brightness stays; it is shared by the channels, and the border is reflected. Results are
    clipped to [0, 1]. Blurring and sharpening at random hides what a fixed filter per class has done.
    """
    noise = (torch.rand(len(x), 9, generator=generator, device=x.device) * 2 - 1) * width
    kernels = noise - noise.mean(1, keepdim=True)
    kernels[:, 4] += 1
    return convolved(x, kernels)


def convolved(x: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Filter each image with its own 3x3 kernel, a row of `kernels` (B, 9), the same for all channels.

    The border is reflected; results are clipped to [0, 1].
    """
    rows, columns = x.shape[2:]
    # by hand, since the gradient of a reflecting F.pad is not deterministic on a GPU
    padded = torch.cat([x[:, :, 1:2], x, x[:, :, -2:-1]], 2)
    padded = torch.cat([padded[..., 1:2], padded, padded[..., -2:-1]], 3)
    filtered = torch.zeros_like(x)
    for place, weight in enumerate(kernels.T):
        row, column = divmod(place, 3)
        filtered.addcmul_(padded[:, :, row : row + rows, column : column + columns], weight.reshape(-1, 1, 1, 1))
    return filtered.clamp_(0, 1)


def _hue_rotation(angle: torch.Tensor, device) -> torch.Tensor:
    """Colour matrices (B, 3, 3) that turn the I-Q plane by `angle` (B, 1, 1)."""
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], device=device)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.cat([torch.cat(row, 2) for row in ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))], 1)
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq
