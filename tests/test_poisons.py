"""Poisons against brute force and closed forms."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import coloured

from relearn import augment, quantise
from relearn.data import split
from relearn.errors import Fault
from relearn.poisons.cuda import convolve, cuda
from relearn.poisons.em import _Surrogate, em, em_classwise
from relearn.poisons.ops import COLOURS, ops, scores


def test_convolve_is_the_convolution_of_each_image_with_its_own_kernel():
    generator = torch.Generator().manual_seed(0)
    images, kernels = torch.rand(5, 3, 7, 6, generator=generator), torch.rand(5, 3, 3, generator=generator)
    for image, kernel, found in zip(images, kernels, convolve(images, kernels)):
        for channel in range(3):
            assert torch.allclose(found[channel], F.conv2d(image[None, channel : channel + 1], kernel[None, None], padding=1)[0, 0], atol=1e-6)


def test_cuda_by_hand(tiny, craft):
    """Each image is its class's filtered image: one kernel per class explains all of them, and the brightest value is 255."""
    made = craft("cuda", tiny)
    generator = made.generator("kernels", 4)
    kernels = 0.3 * torch.rand(10, 9, generator=generator)
    places = torch.randint(9, (10,), generator=generator)
    poisoned, _ = quantise.apply(tiny.images, cuda(tiny, made, seed=4))
    assert (poisoned.flatten(1).amax(1) >= 254).all()
    for row in range(0, len(tiny), 9):
        label = int(tiny.labels[row])
        kernel = kernels[label].clone()
        kernel[places[label]] = 1
        image = tiny.images[row].permute(2, 0, 1).double()
        filtered = F.conv2d(image[:, None], kernel.view(1, 1, 3, 3).double(), padding=1)[:, 0]
        expected = (filtered * 255 / filtered.max()).permute(1, 2, 0)
        assert ((poisoned[row].double() - expected).abs() <= 1.001).all()  # truncated


def test_cuda_leaves_black_images_black(craft):
    black = split(torch.zeros(4, 16, 16, 3, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    assert cuda(black, craft("cuda", black)).delta.abs().max() == 0


def test_ops_scores_against_exhaustive_search():
    images = torch.randint(0, 256, (9, 12, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    found = scores(images)
    for place, (number, colour) in itertools.product(range(12), enumerate(COLOURS)):
        change = (colour - images[:, place].double() / 255).abs()
        assert found[place, number] == pytest.approx(float(change.mean() / change.std(correction=0)))


@pytest.mark.parametrize("pixels", [1, 3])
def test_ops_sets_the_best_pixels_of_each_class(pixels, odd, craft):
    poisoned, measured = quantise.apply(odd.images, ops(odd, craft("ops", odd), pixels=pixels))
    assert 1 <= measured["l0_max"] <= pixels
    taken = set()
    for label in range(8):
        rows = odd.labels == label
        changed = torch.nonzero((poisoned[rows] != odd.images[rows]).any(3).any(0)).tolist()
        assert 1 <= len(changed) <= pixels
        for y, x in changed:
            values = poisoned[rows][:, y, x].unique(dim=0)
            assert len(values) == 1 and set(values[0].tolist()) <= {0, 255}  # one corner of the colour cube for the whole class
            key = (y, x, *values[0].tolist())
            assert key not in taken
            taken.add(key)
        if pixels == 1 and label == 0:
            best = scores(odd.images[rows].reshape(int(rows.sum()), -1, 3)).max(1).values.argmax()
            assert changed == [[int(best) // 32, int(best) % 32]]


def test_ops_refuses_more_pixels_than_there_are(craft):
    train = coloured([2, 2], (4, 4), seed=0)
    with pytest.raises(Fault, match="pixels is 17, an image has 16"):
        ops(train, craft("ops", train), pixels=17)


def test_shift_and_flip_shows_windows_of_the_padded_batch():
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(3, 3, 6, 5, generator=generator)
    padded = F.pad(x, (2, 2, 2, 2))
    windows = [padded[:, :, y : y + 6, z : z + 5] for y in range(5) for z in range(5)]
    windows += [window.flip(3) for window in windows]
    hits = set()
    for _ in range(400):
        shown = augment.shift_and_flip(x, 2, True, generator)
        hits.add(next(number for number, window in enumerate(windows) if torch.equal(shown, window)))
    assert len(hits) == 50  # every window, flipped or not
    assert torch.equal(augment.shift_and_flip(x, 0, False, generator), x)


@pytest.mark.parametrize("poison", [em, em_classwise])
def test_em_crafted_through_crops_differs_and_stays_within_its_budget(poison, tiny, craft):
    how = {"arch": "cnn", "rounds": 2, "batches": 3, "batch": 16, "steps": 2, "stop_error": None}
    plain, seen = (poison(tiny, craft("em", tiny), **how, **more).delta for more in ({}, {"crop_pad": 4, "flip": True}))
    assert not torch.equal(plain, seen) and seen.abs().max() <= 8.0
    assert torch.equal(seen, poison(tiny, craft("em", tiny), **how, crop_pad=4, flip=True).delta)


def test_em_trains_its_surrogate_on_mixed_batches_of_a_folder_in_class_order(craft, monkeypatch):
    train = coloured([8] * 10, (32, 32), seed=1)
    train = train.pick(train.labels.argsort(stable=True))  # as an image folder comes
    seen, learn = [], _Surrogate.learn
    monkeypatch.setattr(_Surrogate, "learn", lambda self, images, labels: seen.append(labels) or learn(self, images, labels))
    em(train, craft("em", train), arch="cnn", rounds=2, batches=5, batch=8, steps=1, stop_error=None)
    assert len(seen) == 10 and all(len(labels.unique()) > 2 for labels in seen)
    assert torch.equal(torch.cat(seen).sort().values, train.labels)  # two rounds go through the set once
