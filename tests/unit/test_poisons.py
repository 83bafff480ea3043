"""Poisons against brute force and closed forms."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from helpers.images import coloured
from relearn.crafting.perturbation import apply
from relearn.data import draw_share, split
from relearn.errors import UserError
from relearn.poisons import ar as autoregressive
from relearn.poisons.ar import NEIGHBOURS, ar, fields, processes, response
from relearn.poisons.cuda import convolve, cuda, huda, vuda
from relearn.poisons.em import _Surrogate, em, em_classwise
from relearn.poisons.lsp import lsp
from relearn.poisons.noise import classwise_random, random
from relearn.poisons.ops import COLOURS, ops, scores
from relearn.poisons.pil import _surrogate, objective, pil
from relearn.runtime.seeding import Seeds
from relearn.training import augment


def test_convolve_is_the_convolution_of_each_image_with_its_own_kernel():
    generator = torch.Generator().manual_seed(0)
    images, kernels = torch.rand(5, 3, 7, 6, generator=generator), torch.rand(5, 3, 3, generator=generator)
    for image, kernel, found in zip(images, kernels, convolve(images, kernels), strict=True):
        for channel in range(3):
            assert torch.allclose(
                found[channel],
                F.conv2d(image[None, channel : channel + 1], kernel[None, None], padding=1)[0, 0],
                atol=1e-6,
            )


def test_cuda_by_hand(tiny, craft):
    """Each image is its class's filtered image: one kernel per class explains all, the brightest value is 255."""
    made = craft("cuda", tiny)
    generator = made.generator("kernels", 4)
    kernels = 0.3 * torch.rand(10, 9, generator=generator)
    places = torch.randint(9, (10,), generator=generator)
    poisoned, _ = apply(tiny.images, cuda(tiny, made, seed=4))
    assert (poisoned.flatten(1).amax(1) >= 254).all()
    for row in range(0, len(tiny), 9):
        label = int(tiny.labels[row])
        kernel = kernels[label].clone()
        kernel[places[label]] = 1
        image = tiny.images[row].permute(2, 0, 1).double()
        filtered = F.conv2d(image[:, None], kernel.view(1, 1, 3, 3).double(), padding=1)[:, 0]
        expected = (filtered * 255 / filtered.max()).permute(1, 2, 0)
        assert ((poisoned[row].double() - expected).abs() <= 1.001).all()  # truncated


@pytest.mark.parametrize("poison, shape", [(cuda, (3, 3)), (vuda, (3, 1)), (huda, (1, 3))])
def test_kernels_mix_only_the_pixels_of_their_shape(poison, shape, craft):
    """A single bright pixel becomes the kernel of its class, turned around, whose largest entry is 1."""
    dots = torch.zeros(10, 9, 9, 3, dtype=torch.uint8)
    dots[:, 4, 4] = 200
    train = split(dots, torch.arange(10))
    poisoned, _ = apply(train.images, poison(train, craft("cuda", train), blur=0.9))
    spread = [(shape[0] - 1) // 2, (shape[1] - 1) // 2]
    inside = poisoned[:, 4 - spread[0] : 5 + spread[0], 4 - spread[1] : 5 + spread[1]]
    assert (poisoned.sum((1, 2, 3)) == inside.sum((1, 2, 3))).all() and (inside > 0).float().mean() > 0.9
    assert (poisoned.flatten(1).amax(1) >= 254).all() and len(inside[..., 0].flatten(1).unique(dim=0)) == 10


@pytest.mark.parametrize("poison", [cuda, vuda, huda])
def test_a_kernel_larger_than_an_image_is_refused(poison, craft):
    images = split(torch.zeros(2, 16, 16, 3, dtype=torch.uint8), torch.tensor([0, 1]))
    with pytest.raises(UserError, match=f"{poison.__name__}: a kernel of 17 does not fit images of 16x16"):
        poison(images, craft("cuda", images), kernel=17)


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
    poisoned, measured = apply(odd.images, ops(odd, craft("ops", odd), pixels=pixels))
    assert 1 <= measured["l0_max"] <= pixels
    taken = set()
    for label in range(8):
        rows = odd.labels == label
        changed = torch.nonzero((poisoned[rows] != odd.images[rows]).any(3).any(0)).tolist()
        assert 1 <= len(changed) <= pixels
        for y, x in changed:
            values = poisoned[rows][:, y, x].unique(dim=0)
            # one corner of the colour cube for the whole class
            assert len(values) == 1 and set(values[0].tolist()) <= {0, 255}
            key = (y, x, *values[0].tolist())
            assert key not in taken
            taken.add(key)
        if pixels == 1 and label == 0:
            best = scores(odd.images[rows].reshape(int(rows.sum()), -1, 3)).max(1).values.argmax()
            assert changed == [[int(best) // 32, int(best) % 32]]


def test_ops_refuses_more_pixels_than_there_are(craft):
    train = coloured([2, 2], (4, 4), seed=0)
    with pytest.raises(UserError, match="pixels is 17, an image has 16"):
        ops(train, craft("ops", train), pixels=17)


def test_ops_refuses_classes_for_which_no_pixel_is_left(craft):
    """16 positions of 8 colours are enough for 8 classes of 16 pixels; the next two would get the same black ones."""
    train = coloured([2] * 10, (4, 4), seed=0)
    with pytest.raises(UserError, match="left for class 8, with 16 pixels for each"):
        ops(train, craft("ops", train), pixels=16)


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
    monkeypatch.setattr(
        _Surrogate, "learn", lambda self, images, labels: seen.append(labels) or learn(self, images, labels)
    )
    em(train, craft("em", train), arch="cnn", rounds=2, batches=5, batch=8, steps=1, stop_error=None)
    assert len(seen) == 10 and all(len(labels.unique()) > 2 for labels in seen)
    assert torch.equal(torch.cat(seen).sort().values, train.labels)  # two rounds go through the set once


# Autoregressive processes


def test_fields_follow_the_recursion_position_by_position():
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(2, 3, 8, generator=generator) / 4
    found = fields(weights, 5, 7, torch.Generator().manual_seed(4))
    drawn = torch.randn(9, 11, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64).float()
    start = drawn.view(9, 11, 2, 3).permute(2, 3, 0, 1).clone()
    for image, channel, row, column in itertools.product(range(2), range(3), range(7), range(9)):
        before = [start[image, channel, row + down, column + right] for down, right in NEIGHBOURS]
        start[image, channel, row + 2, column + 2] = sum(
            weight * value for weight, value in zip(weights[image, channel], before, strict=True)
        )
    assert torch.allclose(found, start[:, :, 4:, 4:].permute(0, 2, 3, 1), atol=1e-5)


def test_processes_are_stable_follow_themselves_and_not_each_other():
    weights = processes(10, 10.0, torch.Generator().manual_seed(0))
    assert weights.shape == (10, 3, 8) and torch.allclose(weights.sum(2), torch.ones(10, 3), atol=1e-3)
    drawn = fields(weights, 32, 32, torch.Generator().manual_seed(1))
    found = response(drawn, weights)
    own = found.diagonal()
    assert (own < 1e-3).all()
    assert (found + 1e9 * torch.eye(10)).min() > 5.0  # 10 on the fields they were judged by


def test_processes_for_larger_images_do_not_explode_on_the_way():
    """Of those that are stable on 32x32 pixels one in ten grows without bound on 64x64."""
    seeds = Seeds("poison", "imagenet_mini", "ar")
    weights = processes(10, 1.0, seeds.generator("processes", 0), (64, 64), seeds.generator("larger", 0))
    drawn = fields(weights, 64, 64, torch.Generator().manual_seed(1))
    assert drawn.flatten(1, 2).norm(dim=1).max() < 100.0  # 50 for 32x32, in proportion to the side


@pytest.mark.parametrize("dataset", ["cifar10", "cifar10_folder", "digits"])
def test_ar_finds_its_processes_for_the_data_sets_of_the_presets(dataset):
    """With `cifar10_folder` the first process drawn is one that no other is far from."""
    assert len(processes(10, 10.0, Seeds("poison", dataset, "ar").generator("processes", 0))) == 10


@pytest.mark.parametrize("data, size", [("tiny", (32, 32)), ("odd", (40, 32))])
def test_ar_has_one_norm_and_a_field_for_every_image(data, size, request, craft):
    train = request.getfixturevalue(data)
    perturbation = ar(train, craft("ar", train), batch=30)
    norm = 255.0 * math.sqrt(size[0] * size[1] / 1024)  # 1 on a scale of 0..1 for 32x32
    assert torch.allclose(perturbation.delta.flatten(1).norm(dim=1), torch.full((len(train),), norm), rtol=1e-4)
    assert perturbation.budget.norm == "l2" and perturbation.budget.value == pytest.approx(norm)
    assert len(perturbation.delta.flatten(1).unique(dim=0)) == len(train)


def test_ar_refuses_what_no_process_fulfils(tiny, craft, monkeypatch):
    monkeypatch.setattr(autoregressive, "ATTEMPTS", 2)
    message = "ar: found 1 processes for 10 classes that are 1e\\+09 apart; give a smaller gap"
    with pytest.raises(UserError, match=message):
        ar(tiny, craft("ar", tiny), gap=1e9)


# Linear separability


def separable(delta: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy on the second half of a least-squares probe on the first."""
    features, half = torch.cat([delta.flatten(1), torch.ones(len(delta), 1)], 1).double(), len(delta) // 2
    answer = torch.linalg.lstsq(features[:half], F.one_hot(labels).double()[:half], driver="gelsd").solution
    return float(((features[half:] @ answer).argmax(1) == labels[half:]).double().mean())


def test_a_linear_probe_tells_lsp_noise_apart_and_no_other(craft):
    train = coloured([60] * 10, (32, 32), seed=5)
    assert separable(lsp(train, craft("lsp", train)).delta, train.labels) == 1.0
    by_class = classwise_random(train, craft("classwise_random", train))
    assert separable(by_class.delta[by_class.rows], train.labels) == 1.0
    assert separable(random(train, craft("random", train)).delta, train.labels) < 0.3


# PIL


def test_pil_publishes_minus_its_noise_and_lowers_its_objective(odd, craft):
    made = craft("pil", odd)
    delta = pil(odd, made, epochs=3, batch=16, seed=1).delta.permute(0, 3, 1, 2)
    first, second = _surrogate(odd, made, 3, 0.003, 16, 1)
    images = odd.images.permute(0, 3, 1, 2).float()
    found, zero, mirrored = (
        float(objective(noise, images, odd.labels, first, second, 0.9))
        for noise in (-delta, torch.zeros_like(delta), delta)
    )
    assert found < zero < mirrored and delta.abs().max() == 8.0
    told = ((-delta / 255).flatten(1) @ first @ second).argmax(1)
    # its noise alone says the class, the published change says the opposite
    assert (told == odd.labels).double().mean() > 0.9


# Published as the authors' loaders do


def test_em_as_its_authors_load_it_has_no_negative_noise(tiny, craft):
    how = {"arch": "cnn", "rounds": 1, "batches": 2, "batch": 40, "steps": 2}
    signed, legacy = (em(tiny, craft("em", tiny), **how, rounding=rounding) for rounding in ("half_up", "em_legacy"))
    assert torch.equal(signed.delta, legacy.delta) and signed.delta.min() < -1
    images = tiny.images.double()
    exact = images + signed.delta.double()
    assert torch.equal(apply(tiny.images, signed)[0].double(), (exact + 0.5).floor().clamp(0, 255))
    dropped = (images + signed.delta.double().clamp_min(0)).floor().clamp(0, 255)
    found = apply(tiny.images, legacy)[0]
    assert torch.equal(found.double(), dropped) and (found >= tiny.images).all()


# A share of the images


def test_a_share_is_stratified_and_lies_in_a_larger_one():
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([10, 1, 100]))
    masks = [draw_share(labels, ratio, torch.Generator().manual_seed(0)) for ratio in (0.01, 0.2, 0.8, 1.0)]
    assert [[int(mask[labels == label].sum()) for label in range(3)] for mask in masks] == [
        [1, 1, 1],
        [2, 1, 20],
        [8, 1, 80],
        [10, 1, 100],
    ]
    assert all((larger | ~smaller).all() for smaller, larger in itertools.pairwise(masks))
