"""Filters of training images against slow references, and the methods that use them."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from helpers.images import noise
from helpers.training import run_of
from relearn import registry
from relearn.data import to_float
from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.training import filters

IMAGES = noise(5, 9, 12)
#: method -> settings, a filter of stored images
METHODS = {
    "jpeg": ({"quality": 30}, lambda images: filters.jpeg(images, 30)),
    "bdr": ({"bits": 3}, lambda images: filters.reduce_bits(images, 3)),
    "median": ({}, filters.median),
    "gaussian_blur": ({"sigma": 1.5}, lambda images: filters.gaussian(images, 1.5)),
}


def test_jpeg_is_pillows_round_trip(monkeypatch):
    for quality in (10, 75):
        found = filters.jpeg(IMAGES, quality)
        for image, result in zip(IMAGES, found, strict=True):
            stored = io.BytesIO()
            Image.fromarray(image.numpy()).save(stored, format="JPEG", quality=quality)
            assert np.array_equal(np.array(Image.open(stored)), result.numpy())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(filters.jpeg(IMAGES, 75), found)  # in any number of threads


def test_bits():
    values = torch.tensor([0, 63, 64, 127, 128, 255], dtype=torch.uint8)
    assert filters.reduce_bits(values, 2).tolist() == [0, 0, 64, 64, 128, 192]
    assert filters.reduce_bits(values, 8).tolist() == values.tolist()
    assert filters.reduce_bits(values, 1).tolist() == [0, 0, 0, 0, 128, 128]


def padded(images: torch.Tensor, radius: int) -> np.ndarray:
    return np.pad(images.numpy(), [(0, 0), (radius, radius), (radius, radius), (0, 0)], mode="edge").astype(float)


def test_median_is_that_of_nine(monkeypatch):
    monkeypatch.setattr(filters, "CHUNK", 2 * IMAGES[0].numel())  # three parts
    windows = np.lib.stride_tricks.sliding_window_view(padded(IMAGES, 1), (3, 3), (1, 2))
    found = filters.median(IMAGES)
    assert np.array_equal(np.median(windows, (-2, -1)), found.numpy())
    inner = Image.fromarray(IMAGES[0].numpy()).filter(ImageFilter.MedianFilter(3))
    assert np.array_equal(np.array(inner)[1:-1, 1:-1], found[0, 1:-1, 1:-1].numpy())


@pytest.mark.parametrize("sigma", [0.3, 0.8, 2.0])
def test_gaussian_is_a_weighted_mean(sigma, monkeypatch):
    monkeypatch.setattr(filters, "CHUNK", 2 * IMAGES[0].numel())
    radius = math.ceil(3 * sigma)
    places = np.arange(-radius, radius + 1)
    window = np.exp(-(places[:, None] ** 2 + places[None] ** 2) / (2 * sigma**2))
    windows = np.lib.stride_tricks.sliding_window_view(padded(IMAGES, radius), window.shape, (1, 2))
    expected = (windows * window / window.sum()).sum((-2, -1))
    assert np.abs(filters.gaussian(IMAGES, sigma).numpy() - expected).max() < 0.501
    flat = torch.full((2, 8, 8, 3), 255, dtype=torch.uint8)
    assert torch.equal(filters.gaussian(flat, sigma), flat)


@pytest.mark.parametrize("name", METHODS)
def test_methods_filter_training_images_and_test_images_as_set(name):
    settings, change = METHODS[name]
    method = registry.load("methods", name)(**settings)
    expected = change(IMAGES)
    assert torch.equal(method.prepare(IMAGES, torch.arange(5)), expected)
    assert (expected != IMAGES).float().mean() > 0.3  # it does change them
    assert torch.equal(method.eval_transform(to_float(IMAGES)), to_float(IMAGES))
    both = registry.load("methods", name)(**settings, test=True, gray=1.0)
    gray = both.eval_transform(to_float(IMAGES))
    weights = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    assert torch.allclose(gray, (to_float(expected) * weights).sum(1, keepdim=True).expand_as(gray), atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_the_probe_set_is_filtered_once(name, tiny):
    """It is drawn from filtered images; test images are not filtered yet."""
    method = registry.load("methods", name)(**METHODS[name][0], test=True, gray=1.0)
    train = tiny.with_images(method.prepare(tiny.images, tiny.labels))
    run = run_of(train, method)
    expected = to_float(train.images)[:5]
    assert torch.equal(run.training.eval_transform(expected), ERM(gray=1.0).eval_transform(expected))


@pytest.mark.parametrize("name, settings", [("gaussian_blur", {"sigma": 0.1}), ("bdr", {"bits": 8})])
def test_a_filter_that_changes_nothing_is_refused(name, settings):
    """A blur of 0.1 pixels was once published as a defence."""
    with pytest.raises(UserError, match="changes no training image with these settings; give stronger ones"):
        registry.load("methods", name)(**settings).prepare(IMAGES, torch.arange(5))


def test_a_filter_of_floats_rounds_first():
    x = to_float(IMAGES) + 0.4 / 255
    assert torch.equal(filters.filtered_floats(x, lambda images: images), to_float(IMAGES))
    assert torch.equal(filters.filtered_floats(-x, lambda images: images), torch.zeros_like(x))
