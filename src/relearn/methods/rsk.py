"""Random sharpening and a low-pass filter (RSK+FF). Kim and Sandoval-Segura, 2024 (arXiv 2411.01742), section 3."""

import torch

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import NonNegative, Positive, PositiveFraction, register
from relearn.training.augment import convolved
from relearn.training.degrade import cosines

NEIGHBOURS = (1, 3, 5, 7)  # above, left, right, below, in a row of 9 values


@register
class Rsk(ERM):
    """Plain training on images sharpened by a random 3x3 kernel each, of which only low frequencies are kept.

    The middle of a kernel is normal around `centre`, its four neighbours around (1 - middle) / 4, so that it sums to 1
    on average; the corners are 0, and `spread` is all standard deviations. Of the cosine coefficients (DCT-II) of the
    whole image the lowest share `kept` of either axis stays; 1 keeps all. Images are clipped to [0, 1] after both.
    Raises UserError for settings that change nothing.
    """

    def __init__(
        self, *, centre: Positive = 2.5, spread: NonNegative = 0.1, kept: PositiveFraction = 0.3, **augmentation
    ):
        super().__init__(**augmentation)
        if centre == kept == 1 and not spread:
            raise UserError("rsk: centre 1, spread 0 and kept 1 change no image; give another centre, or less kept")
        self.centre, self.spread, self.kept = centre, spread, kept

    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The augmentation of plain training, then sharpening and the filter."""
        x = super().augment(x, generator)
        noise = self.spread * torch.randn(len(x), 5, generator=generator, device=x.device)
        kernels = x.new_zeros(len(x), 9)
        kernels[:, 4] = self.centre + noise[:, 4]
        for k, place in enumerate(NEIGHBOURS):
            kernels[:, place] = noise[:, k] - (kernels[:, 4] - 1) / 4
        x = convolved(x, kernels)
        if self.kept == 1:
            return x
        x = self._low_pass(x.shape[2], x.device) @ x @ self._low_pass(x.shape[3], x.device)
        return x.clamp_(0, 1).contiguous(memory_format=torch.channels_last)

    def _low_pass(self, side: int, device: torch.device) -> torch.Tensor:
        """The projection (`side`, `side`) of an axis on its lowest frequencies, at least the mean."""
        # 1e-9, since 0.3 * 10 is a little less than 3
        low = cosines(side, device)[: max(1, int(self.kept * side + 1e-9))]
        return low.T @ low
