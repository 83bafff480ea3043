"""RSK and COIN: against slow references, and by hand."""

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F

from helpers.images import drawn
from relearn.errors import UserError
from relearn.methods.coin import Coin
from relearn.methods.rsk import Rsk


def images(count: int = 6, height: int = 16, width: int = 12) -> torch.Tensor:
    x = torch.rand(count, 3, height, width, generator=drawn(1))
    return x.contiguous(memory_format=torch.channels_last)


# RSK


def test_sharpening_without_spread_is_the_fixed_kernel():
    x = images()
    n = 1.5 / 4
    kernel = torch.tensor([[0, -n, 0], [-n, 2.5, -n], [0, -n, 0]]).expand(3, 1, 3, 3)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=3).clamp(0, 1)
    assert torch.allclose(Rsk(spread=0.0, kept=1.0).augment(x.clone(), drawn()), expected, atol=1e-6)


def test_the_kernels_that_are_drawn():
    """One bright pixel shows the kernel of its image."""
    x = torch.zeros(4000, 3, 7, 7)
    x[:, :, 3, 3] = 0.1
    centre = 10 * Rsk(kept=1.0).augment(x, drawn(4))[:, 0, 3, 3]
    assert centre.mean() == pytest.approx(2.5, abs=0.01) and centre.std() == pytest.approx(0.1, abs=0.01)
    # the neighbours are negative; seen from a gray background
    x = torch.full((4000, 3, 7, 7), 0.5)
    x[:, :, 3, 3] -= 0.02  # so little that nothing is clipped
    out, flat = (Rsk(kept=1.0).augment(part, drawn(4)) for part in (x, torch.full_like(x, 0.5)))
    difference = 50 * (flat - out)
    assert torch.allclose(difference[:, 0, 3, 3], centre, atol=1e-3)
    for place in ((2, 3), (3, 2), (3, 4), (4, 3)):
        # a neighbour has the spread of its own and a quarter of that of the centre
        assert difference[:, 0, *place].mean() == pytest.approx(-0.375, abs=0.01)
        assert difference[:, 0, *place].std() == pytest.approx(0.1 * (1 + 1 / 16) ** 0.5, abs=0.005)
    assert difference[:, :, 2, 2].abs().max() < 1e-4 and torch.equal(difference[:, 0], difference[:, 2])
    assert (2 * flat[:, 0, 3, 3]).std() == pytest.approx(0.2, abs=0.02)  # four such neighbours: what a kernel sums to


def test_settings_that_change_nothing_are_refused():
    with pytest.raises(UserError, match="rsk: centre 1, spread 0 and kept 1 change no image"):
        Rsk(centre=1.0, spread=0.0, kept=1.0)


@pytest.mark.parametrize("kept", [0.3, 0.5, 1e-9])
def test_the_filter_keeps_the_lowest_frequencies(kept):
    x = images(4, 20, 10)
    rows, columns = (max(1, round(kept * side)) for side in (20, 10))
    sharp = Rsk(spread=0.0, kept=1.0).augment(x.clone(), drawn())
    found = scipy.fft.dctn(sharp.numpy(), axes=(2, 3), norm="ortho")
    found[:, :, rows:], found[:, :, :, columns:] = 0, 0
    expected = scipy.fft.idctn(found, axes=(2, 3), norm="ortho").clip(0, 1)
    assert np.allclose(Rsk(spread=0.0, kept=kept).augment(x.clone(), drawn()).numpy(), expected, atol=1e-5)


# COIN


def test_every_pixel_of_every_image_has_its_own_displacement():
    """On a ramp the displacement can be read off, where nothing wraps."""
    ramp = (torch.arange(40.0) / 40)[:, None].expand(300, 3, 40, 8)
    found = 40 * (Coin().augment(ramp, drawn(5)) - ramp)[:, :, 3:-3]
    assert found.abs().max() <= 2 + 1e-4 and torch.allclose(found[:, 0], found[:, 2], atol=1e-4)
    assert found.std() == pytest.approx(2 / 3**0.5, abs=0.01) and found.mean() == pytest.approx(0, abs=0.01)
    assert found[:, 0].flatten(1).std(1).min() > 1 and found[:, 0].std(0).min() > 0.9


@pytest.mark.parametrize("method", [Rsk(), Coin()])
def test_images_change_and_test_images_do_not(method):
    x = images()
    first, again, other = (method.augment(x.clone(), drawn(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again) and (first != other).any() and (first - x).abs().mean() > 0.05
    assert first.min() >= 0 and first.max() <= 1 and first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(method.eval_transform(x), x)
