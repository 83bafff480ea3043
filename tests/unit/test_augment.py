"""Augmentation, against the same done slowly, image by image."""

import pytest
import torch

from helpers.images import drawn, noise
from relearn.data import to_float
from relearn.methods.erm import ERM
from relearn.training import augment


def crops(image: torch.Tensor, pad: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop of one image by the slow way: pad, cut, mirror."""
    height, width, _ = image.shape
    padded = torch.zeros(height + 2 * pad, width + 2 * pad, 3, dtype=torch.uint8)
    padded[pad : pad + height, pad : pad + width] = image
    found = {}
    for y in range(2 * pad + 1):
        for x in range(2 * pad + 1):
            cut = padded[y : y + height, x : x + width]
            found[cut.contiguous().numpy().tobytes()] = (y, x, False)
            found[cut.flip(1).contiguous().numpy().tobytes()] = (y, x, True)
    return found


@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_gives_each_image_a_crop_of_its_own(flip):
    images = noise(300, 6, 5)
    changed = augment.crop_and_flip(images, 1, flip, drawn())
    assert changed.dtype == torch.uint8 and changed.shape == images.shape
    # KeyError: no crop at all
    places = [
        crops(image, 1)[result.contiguous().numpy().tobytes()] for image, result in zip(images, changed, strict=True)
    ]
    # 300 images over 9 offsets and 2 sides: every one is drawn, about as often as any other
    expected = {(y, x, side) for y in range(3) for x in range(3) for side in ((False, True) if flip else (False,))}
    assert set(places) == expected
    assert max(places.count(place) for place in expected) < 3 * 300 / len(expected)
    assert torch.equal(changed, augment.crop_and_flip(images, 1, flip, drawn()))


def test_crop_and_flip_without_either_is_identity():
    images = noise(20, 6, 5)
    assert torch.equal(augment.crop_and_flip(images, 0, False, drawn()), images)


def test_to_float():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 4, 5, 3)
    x = to_float(images)
    assert x.shape == (2, 3, 4, 5) and x.dtype == torch.float32
    assert torch.equal(x[:, :, 0, 0], torch.tensor([[0.0, 0.2, 1.0]] * 2))


def test_gray_by_hand():
    x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.5]]).view(4, 3, 1, 1)
    assert torch.allclose(augment.gray(x)[:, :, 0, 0], torch.tensor([0.299, 0.587, 0.114, 0.5])[:, None].expand(4, 3))


def test_random_gray_takes_its_share():
    x = to_float(noise(400, 4, 4))
    assert torch.equal(augment.random_gray(x, 0.0, drawn()), x)
    assert torch.equal(augment.random_gray(x, 1.0, drawn()), augment.gray(x))
    changed = (augment.random_gray(x, 0.25, drawn()) != x).flatten(1).any(1)
    assert 70 < changed.sum() < 130  # 100 expected, standard deviation 8.7


def test_colour_jitter_of_nothing_is_identity():
    x = to_float(noise(50, 6, 5))
    assert torch.allclose(augment.colour_jitter(x, 0.0, 0.0, 1.0, drawn()), x, atol=1e-5)
    assert torch.equal(augment.colour_jitter(x, 0.4, 0.1, 0.0, drawn()), x)


def test_colour_jitter_draws_for_each_image():
    x = to_float(noise(1, 6, 5)).expand(100, 3, 6, 5).contiguous()
    jittered = augment.colour_jitter(x, 0.4, 0.1, 0.8, drawn())
    assert jittered.min() >= 0 and jittered.max() <= 1
    unchanged = (jittered == x).flatten(1).all(1).sum()
    assert 8 < unchanged < 34  # 20 expected, standard deviation 4
    assert len({image.numpy().tobytes() for image in jittered}) == 101 - unchanged


def test_colour_jitter_against_images_one_by_one():
    """Brightness, contrast and saturation as Pillow does them, image by image, with factors of the same generator."""
    x = 0.3 + 0.3 * to_float(noise(8, 6, 5))  # far enough from black and white that nothing is clipped
    generator = drawn()
    brightness, contrast, saturation = (1 + (torch.rand(8, 1, 1, generator=generator) * 2 - 1) * 0.2 for _ in range(3))
    slow = []
    for k, image in enumerate(x):
        image = image * brightness[k]
        luma = sum(weight * channel for weight, channel in zip((0.299, 0.587, 0.114), image, strict=True))
        image = saturation[k] * image + (1 - saturation[k]) * luma
        luma = sum(weight * channel for weight, channel in zip((0.299, 0.587, 0.114), image, strict=True))
        slow.append(contrast[k] * image + (1 - contrast[k]) * luma.mean())
    assert torch.allclose(augment.colour_jitter(x, 0.2, 0.0, 1.0, drawn()), torch.stack(slow), atol=1e-5)


def test_hue_keeps_luma_and_turns_the_rest():
    x = 0.4 + 0.2 * to_float(noise(20, 6, 5))
    turned = augment.colour_jitter(x, 0.0, 0.25, 1.0, drawn())
    assert torch.allclose(augment.gray(turned), augment.gray(x), atol=1e-3)  # the matrix to YIQ has three digits
    assert ((turned - x).flatten(1).abs().amax(1) > 0.005).sum() >= 18


def test_random_convolution_of_no_noise_is_identity():
    x = torch.rand(4, 3, 6, 5, generator=drawn())
    assert torch.allclose(augment.random_convolution(x, 0.0, drawn()), x, atol=1e-6)


def test_random_convolution_against_images_one_by_one():
    x = 0.4 + 0.2 * torch.rand(6, 3, 7, 5, generator=drawn())  # far from 0 and 1: nothing is clipped
    found, noise = augment.random_convolution(x, 0.5, drawn()), (torch.rand(6, 9, generator=drawn()) * 2 - 1) * 0.5
    for image, own, filtered in zip(x, noise, found, strict=True):
        kernel = (own - own.mean()).view(1, 1, 3, 3)
        kernel[0, 0, 1, 1] += 1
        assert float(kernel.sum()) == pytest.approx(1)
        padded = torch.nn.functional.pad(image[:, None], (1, 1, 1, 1), mode="reflect")
        assert torch.allclose(filtered, torch.nn.functional.conv2d(padded, kernel)[:, 0], atol=1e-5)
    flat = torch.full((3, 3, 8, 8), 0.3)
    assert torch.allclose(augment.random_convolution(flat, 1.0, drawn()), flat, atol=1e-5)  # brightness stays


def test_erm_convolves_as_often_as_told():
    x = torch.rand(4, 3, 6, 6, generator=drawn())
    generator, once = drawn(), drawn()
    expected = augment.random_convolution(augment.random_convolution(x, 0.3, once), 0.3, once)
    assert torch.equal(ERM(convolve=0.3, convolutions=2).augment(x, generator), expected)
    assert torch.equal(ERM(convolutions=1).augment(x, drawn()), x)


def test_downsampling_takes_the_mean_of_squares():
    x = torch.rand(2, 3, 5, 4, generator=drawn())
    found = augment.downsample(x, 2)
    assert found.shape == (2, 3, 2, 2) and torch.allclose(found[1, 2, 1, 0], x[1, 2, 2:4, 0:2].mean())
    assert augment.downsample(x, 1) is x


def test_erm_downsamples_training_and_test_images():
    x = torch.rand(4, 3, 6, 6, generator=drawn())
    method = ERM(gray=1.0, downsample=2)
    assert torch.equal(method.augment(x, drawn()), method.eval_transform(x))
    assert torch.equal(method.eval_transform(x), augment.downsample(augment.gray(x), 2))
    assert method.input_size((6, 7)) == (3, 3) and ERM().input_size((6, 7)) == (6, 7)
