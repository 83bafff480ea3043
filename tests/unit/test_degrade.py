"""Degradation of training images: each way by hand, shares, and draws."""

import io

import pytest
import torch
from PIL import Image

from helpers.images import drawn
from relearn.training import degrade


def pictures(count: int = 12, side: int = 32) -> torch.Tensor:
    """Smooth random images (N, 3, side, side) in [0, 1]."""
    coarse = torch.rand(count, 3, 6, 6, generator=drawn(5))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    return smooth.clamp(0, 1).contiguous(memory_format=torch.channels_last)


def changed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return (before != after).flatten(1).any(1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_is_degraded_and_the_rest_is_as_it_was(share):
    x = torch.rand(40, 3, 16, 16, generator=drawn(1))
    assert changed(x, degrade.degrade(x, share, drawn(2))).sum() == 40 * share


def test_which_images_and_how_is_drawn():
    x = torch.rand(40, 3, 16, 16, generator=drawn(1))
    first, again, other = (degrade.degrade(x, 0.5, drawn(seed)) for seed in (2, 2, 3))
    assert torch.equal(first, again) and not torch.equal(changed(x, first), changed(x, other))


def test_neither_way_is_left_out_of_small_batches():
    """Such as those of a small `micro_batch`: of two images a half is degraded in the long run, in both ways alike."""
    x, generator = torch.rand(2, 3, 16, 16, generator=drawn(1)), drawn(2)
    parts = [degrade.degrade(x, 0.5, generator) for _ in range(200)]
    some = torch.cat([changed(x, part) for part in parts])
    halved = torch.cat([~changed(degrade.halve(x, generator), part) for part in parts])
    assert 160 < some.sum() < 240 and 70 < halved.sum() < 130 and not (halved & ~some).any()


@pytest.mark.parametrize("way", degrade.WAYS)
@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (4, 3, 18, 21)])
def test_shape_range_and_layout(way, shape):
    x = torch.rand(shape, generator=drawn(1)).contiguous(memory_format=torch.channels_last)
    out = way(x, drawn(2))
    assert out.shape == x.shape and out.min() >= 0 and out.max() <= 1
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_halving_by_hand():
    x = torch.tensor([[0.0, 1.0, 0.5, 0.5], [1.0, 0.0, 0.5, 0.5]]).expand(1, 3, 2, 4)
    assert torch.allclose(degrade.halve(x, drawn(1)), torch.full_like(x, 0.5))


def test_the_cosine_transform_is_orthonormal():
    for side in (8, 13):
        matrix = degrade.cosines(side, torch.device("cpu"))
        assert torch.allclose(matrix @ matrix.T, torch.eye(side), atol=1e-6)


def test_quantisation_is_that_of_a_gray_jpeg(monkeypatch):
    """PIL quantises a gray image by the same table, at quality 25 twice it."""
    monkeypatch.setattr(degrade, "FINEST", 2.0)
    monkeypatch.setattr(degrade, "COARSEST", 2.0)
    gray = (255 * pictures(1)[0, 0]).round().to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(gray.numpy()).save(file, "JPEG", quality=25)
    stored = torch.tensor(list(Image.open(file).tobytes())).view(32, 32)
    own = (255 * degrade.quantise((gray / 255).expand(1, 3, 32, 32), drawn(1))[0, 0]).round()
    assert (own - stored).abs().max() <= 2  # PIL works in whole numbers
    assert (own - gray).abs().max() > 4


def test_images_differ_in_how_coarse_they_get():
    x = pictures(1).expand(20, 3, 32, 32)
    distances = (degrade.quantise(x, drawn(4)) - x).abs().mean((1, 2, 3))
    assert len(distances.unique()) > 10
