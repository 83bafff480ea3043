"""Views of images: what is drawn, in which range, for each image anew, and from the given generator alone."""

import pytest
import torch

from helpers.compare import stir
from helpers.images import drawn
from relearn.errors import UserError
from relearn.probing.hiding import gray
from relearn.training import views

MIXED = lambda x, generator: views.random_channel_mixing(x, 0.6, 0.5, generator, gray=0.2)  # noqa: E731
VIEWS = {
    "crop": lambda x, generator: views.random_resized_crop(x, 0.5, False, generator),
    "crop and flip": lambda x, generator: views.random_resized_crop(x, 0.5, True, generator),
    "mixing": MIXED,
    "brightness": lambda x, generator: views.brightness_contrast(x, 0.4, generator),
    "all": views.View().of,
}
every_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


def batch(count: int = 64, size: tuple[int, int] = (24, 32), seed: int = 5) -> torch.Tensor:
    x = torch.rand(count, 3, *size, generator=drawn(seed))
    return x.contiguous(memory_format=torch.channels_last)


@every_view
@pytest.mark.parametrize("size", [(24, 32), (32, 32), (7, 5)])
def test_a_view_has_the_shape_range_and_memory_of_its_batch(view, size):
    x = batch(16, size)
    before = x.clone()
    found = view(x, drawn(1))
    assert found.shape == x.shape and found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.min() >= 0 and found.max() <= 1
    assert torch.equal(x, before)


@every_view
def test_a_view_is_that_of_its_generator_alone(view):
    x = batch()
    stir(1)
    found = view(x, drawn(1))
    stir(2)
    before = torch.random.get_rng_state()
    assert torch.equal(found, view(x, drawn(1))) and torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(found, view(x, drawn(2)))


@every_view
def test_every_image_gets_its_own_draws(view):
    found = view(batch(1).expand(64, -1, -1, -1).contiguous(memory_format=torch.channels_last), drawn(1))
    distances = torch.cdist(found.flatten(1), found.flatten(1)) + 9 * torch.eye(64)
    different = (distances > 1e-3).all(1)
    assert different.float().mean() > 0.5  # mixing leaves a fifth as it is, and another fifth gray


def ramp(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Images whose red is their column and whose green is their row, from 0 to 1 between the outermost pixels."""
    rows, columns = (torch.linspace(0, 1, side) for side in size)
    x = torch.zeros(count, 3, *size)
    x[:, 0], x[:, 1] = columns, rows[:, None]
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("smallest", [0.3, 0.8, 1.0])
def test_crops_have_sides_from_the_smallest_to_all(smallest):
    x = ramp(2000, (32, 48))
    found = views.random_resized_crop(x, smallest, False, drawn(3))
    inner = found[:, :, 2:-2, 2:-2]  # where nothing is reflected
    shares = [
        (inner[:, 0, 0, -1] - inner[:, 0, 0, 0]) * 47 / 43,  # red over columns, green over rows
        (inner[:, 1, -1, 0] - inner[:, 1, 0, 0]) * 31 / 27,
    ]
    assert torch.allclose(*shares, atol=1e-4)  # of both sides the same
    assert shares[0].min() > smallest - 1e-3 and shares[0].max() < 1 + 1e-3
    assert shares[0].mean().item() == pytest.approx((1 + smallest) / 2, abs=0.01)
    if smallest == 1:
        assert torch.allclose(found, x, atol=1e-5)
        return
    assert shares[0].min() < smallest + 0.01 and shares[0].max() > 0.99
    middle = inner.mean((2, 3))
    for channel in (0, 1):  # and lie anywhere in the image
        at = (middle[:, channel] - 0.5) / (1 - shares[0]).clamp_min(0.02)
        assert at.abs().max() < 0.52 and at.mean().item() == pytest.approx(0, abs=0.02)


def test_half_of_the_images_are_flipped():
    x = ramp(2000, (16, 16))
    found = views.random_resized_crop(x, 0.9, True, drawn(4))
    flipped = found[:, 0, 8, 3] > found[:, 0, 8, 12]
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.03)
    plain = views.random_resized_crop(x, 0.9, False, drawn(4))
    assert torch.allclose(found[~flipped], plain[~flipped]) and (plain[:, 0, 8, 3] < plain[:, 0, 8, 12]).all()
    assert torch.equal(found[:, 1] > 0.5, plain[:, 1] > 0.5)  # never upside down


def test_rows_of_the_matrices_sum_to_one():
    matrices = views.mixing_matrices(4000, 0.5, drawn(1), torch.device("cpu"))
    assert torch.allclose(matrices.sum(2), torch.ones(4000, 3), atol=1e-5)
    assert matrices.mean((0, 1)).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    # taking the mean of the three away takes a third of the variance
    assert matrices.std().item() == pytest.approx(0.5 * (2 / 3) ** 0.5, abs=0.01)


def test_mixing_keeps_grays_and_turns_the_share_asked_for():
    grays = gray(batch(500))
    assert torch.allclose(MIXED(grays, drawn(1)), grays, atol=1e-5)
    x = 0.3 + 0.4 * batch(4000, (2, 2))
    found = views.random_channel_mixing(x, 0.6, 0.05, drawn(2), gray=0.2)
    is_gray = (found - gray(x)).abs().amax((1, 2, 3)) < 1e-5
    is_same = (found - x).abs().amax((1, 2, 3)) < 1e-5
    assert is_gray.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert is_same.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert not (is_gray & is_same).any()
    assert torch.equal(views.random_channel_mixing(x, 0.0, 0.5, drawn(2)), x)


def test_brightness_and_contrast():
    x = 0.4 + 0.2 * batch(4000, (4, 4))  # nothing is clipped
    found = views.brightness_contrast(x, 0.3, drawn(1))
    brightness = found.mean((1, 2, 3)) / x.mean((1, 2, 3))  # contrast keeps the mean
    contrast = found.std((1, 2, 3)) / x.std((1, 2, 3)) / brightness
    for factors in (brightness, contrast):
        assert factors.min() > 0.7 - 1e-3 and factors.max() < 1.3 + 1e-3
        assert factors.mean().item() == pytest.approx(1, abs=0.01)
        assert factors.std().item() == pytest.approx(0.6 / 12**0.5, abs=0.01)
    assert torch.corrcoef(torch.stack([brightness, contrast]))[0, 1].abs() < 0.05
    assert torch.allclose(views.brightness_contrast(x, 0.0, drawn(1)), x, atol=1e-6)


def test_shares_of_more_than_all_images_are_refused():
    with pytest.raises(UserError, match="mix 0.9 and gray 0.2 are shares of the same images; give at most 1 for both"):
        views.View(mix=0.9, gray=0.2)
    views.View(mix=0.8, gray=0.2)
