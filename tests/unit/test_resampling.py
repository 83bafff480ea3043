"""Resampled images: against scipy, and by hand."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from helpers.images import drawn
from relearn.training.resampling import affine, sampled


@pytest.mark.parametrize("wrap, mode", [(True, "grid-wrap"), (False, "grid-constant")])
def test_places_are_shown_as_scipy_shows_them(wrap, mode):
    x = torch.rand(6, 3, 16, 12, generator=drawn(1)).contiguous(memory_format=torch.channels_last)
    offsets = (torch.rand(2, 6, 16, 12, generator=drawn(3)) * 2 - 1) * 5.3
    places = offsets + torch.stack(torch.meshgrid(torch.arange(16), torch.arange(12), indexing="ij"))[:, None]
    out = sampled(x, *places, wrap=wrap)
    assert out.shape == x.shape and out.is_contiguous(memory_format=torch.channels_last)
    for i in range(6):
        for k in range(3):
            expected = scipy.ndimage.map_coordinates(x[i, k].numpy(), places[:, i].numpy(), order=1, mode=mode)
            assert np.allclose(out[i, k].numpy(), expected, atol=1e-5)


def moved(x: torch.Tensor, *matrix: float) -> torch.Tensor:
    return affine(x, torch.tensor(matrix).view(1, 2, 3).expand(len(x), 2, 3))


def test_affine_maps_by_hand():
    x = torch.rand(2, 3, 7, 7, generator=drawn(1))
    assert torch.allclose(moved(x, 1, 0, 0, 0, 1, 0), x, atol=1e-6)
    right = moved(x, 1, 0, -2, 0, 1, 0)  # what is shown comes from two columns before
    assert torch.allclose(right[..., 2:], x[..., :-2], atol=1e-6) and right[..., :2].abs().max() == 0
    assert torch.allclose(moved(x, 0, -1, 0, 1, 0, 0), x.rot90(1, (2, 3)), atol=1e-5)
    assert torch.allclose(moved(x, -1, 0, 0, 0, -1, 0), x.flip(2, 3), atol=1e-6)


def test_the_middle_of_an_image_that_is_no_square_stays():
    x = torch.zeros(1, 3, 5, 9)
    x[..., 2, 4] = 1
    turned = moved(x, math.cos(0.4), math.sin(0.4), 0, -math.sin(0.4), math.cos(0.4), 0)
    assert turned[..., 2, 4].min() == pytest.approx(1) and turned.sum() < 3 * 2
