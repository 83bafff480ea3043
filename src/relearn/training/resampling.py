"""Images resampled at any places: every pixel of an image may show another place of it."""

import torch


def sampled(x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, wrap: bool = False) -> torch.Tensor:
    """A batch (B, C, H, W) whose pixels show the places `rows`, `columns`, both (B, H, W) float, in pixels.

    Values between pixels are interpolated bilinearly. Outside the image is 0, or with `wrap` the opposite side. No
    gradient is meant to pass. The result is channels-last.
    """
    count, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
    first = torch.arange(count, device=x.device).view(-1, 1, 1) * (height * width)
    above, before = rows.floor(), columns.floor()
    shown = torch.zeros_like(pixels)
    for lower in (0, 1):
        for later in (0, 1):
            row, column = above.long() + lower, before.long() + later
            weight = (rows - above if lower else 1 - (rows - above)) * (
                columns - before if later else 1 - (columns - before)
            )
            if not wrap:
                weight = weight * ((row >= 0) & (row < height) & (column >= 0) & (column < width))
            place = first + row % height * width + column % width
            shown.addcmul_(pixels.index_select(0, place.reshape(-1)), weight.reshape(-1, 1))
    return shown.view(count, height, width, channels).permute(0, 3, 1, 2)


def affine(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Every image of a batch (B, C, H, W) under an affine map around its middle, black where nothing comes from.

    `matrices` (B, 2, 3) say where a pixel's value comes from: they take its column, row and 1, measured from the middle
    of the image, to the column and row of the source.
    """
    height, width = x.shape[2:]
    down = torch.arange(height, device=x.device, dtype=x.dtype)[:, None] - (height - 1) / 2
    right = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    column, row = (m[:, 0] * right + m[:, 1] * down + m[:, 2] for m in matrices[..., None, None].unbind(1))
    return sampled(x, row + (height - 1) / 2, column + (width - 1) / 2)
