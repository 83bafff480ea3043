"""NTGA: its kernels and gradient against finite networks and differences."""

import math

import pytest
import torch
import torch.nn.functional as F

from helpers.images import coloured
from relearn.crafting.perturbation import apply
from relearn.errors import UserError
from relearn.poisons import ntga as tangent
from relearn.poisons.ntga import ntga


def small(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 5, 6, generator=generator, dtype=torch.float64)
    return images, F.one_hot(torch.arange(count) % 3, 3).double()


@pytest.mark.parametrize("network", ["cnn", "fnn"])
def test_ntga_gradient_against_finite_differences(network, monkeypatch):
    monkeypatch.setattr(tangent, "CHUNK", {"cnn": 400, "fnn": 12}[network])  # several parts
    kernel = tangent.KERNELS[network]
    (images, known), (held_out, goal) = small(6, 0), small(4, 1)
    gradient = tangent.generalisation_gradient(images, known, held_out, goal, kernel, 50.0)

    def error(x: torch.Tensor) -> float:
        return float(0.5 * (tangent.predictions(kernel(x, x), kernel(held_out, x), known, 50.0) - goal).square().sum())

    for place in ((0, 0, 0, 0), (2, 1, 3, 5), (5, 2, 4, 1)):
        step = torch.zeros_like(images)
        step[place] = 1e-5
        assert float(gradient[place]) == pytest.approx((error(images + step) - error(images - step)) / 2e-5, rel=1e-4)


def test_predictions_in_closed_form_and_in_the_limit():
    (images, known), (held_out, _) = small(6, 0), small(4, 1)
    own, across = tangent.fnn(images, images), tangent.fnn(held_out, images)
    ridge = own + tangent.DIAGONAL * own.diagonal().mean() * torch.eye(6)
    values, vectors = torch.linalg.eigh(ridge)
    learned = vectors @ torch.diag((1 - torch.exp(-values * 50 / known.numel())) / values) @ vectors.T @ known
    assert torch.allclose(tangent.predictions(own, across, known, 50.0), across @ learned)
    assert torch.allclose(
        tangent.predictions(own, across, known, 1e6), across @ torch.linalg.solve(ridge, known), atol=1e-6
    )
    assert tangent.predictions(own, across, known, 1e-9).abs().max() < 1e-6


def finite(network: str, width: int, seed: int, x: torch.Tensor) -> torch.Tensor:
    """The tangent kernel (N, N) of a network of finite width, in the same parametrisation: gradients, multiplied."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "fnn": [(width, 90)] + [(width, width)] * 3 + [(1, width)],
        "cnn": [(width, 3, 2, 2), (width, width, 2, 2), (1, width * 12)],
    }[network]
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(True) for shape in shapes]
    biases = [torch.randn(shape[0], generator=generator, dtype=torch.float64).requires_grad_(True) for shape in shapes]
    rows = []
    for image in x:
        signal = image.flatten() if network == "fnn" else image[None]
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            signal = torch.erf(signal) if number else signal
            scale, shift = math.sqrt(1.76 / weight[0].numel()), math.sqrt(0.18)
            if weight.ndim == 4:
                signal = F.conv2d(signal, scale * weight, shift * bias)
            else:
                signal = scale * weight @ signal.flatten() + shift * bias
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(signal.sum(), weights + biases)]))
    gradients = torch.stack(rows)
    return gradients @ gradients.T


@pytest.mark.parametrize("network, width", [("fnn", 512), ("cnn", 256)])
def test_kernels_are_the_limit_of_wide_networks(network, width):
    images, _ = small(4, 2)
    found = sum(finite(network, width, seed, images) for seed in range(20)) / 20
    assert torch.allclose(tangent.KERNELS[network](images, images), found, rtol=0.05)


def test_ntga_raises_the_error_on_images_outside_the_block(craft):
    train = coloured([10, 10, 10], (8, 8), seed=6)
    made = craft("ntga", train)
    changed, _ = apply(train.images, ntga(train, made, network="fnn", block=20, time=1000.0))
    order = torch.randperm(30, generator=made.generator("blocks", 0))
    block, held_out = order[:15], order[15:]  # never more than half of the images

    def error(images: torch.Tensor) -> float:
        x, z = (part.permute(0, 3, 1, 2).double() / 255 for part in (images[block], train.images[held_out]))
        y = F.one_hot(train.labels).double()
        return float(
            (tangent.predictions(tangent.fnn(x, x), tangent.fnn(z, x), y[block], 1000.0) - y[held_out]).square().sum()
        )

    assert error(changed) > error(train.images)


@pytest.mark.parametrize(
    "size, count, settings, words",
    [
        ((8, 65), 2, {}, "up to 64x64, found 8x65; set network: fnn"),
        ((8, 8), 1, {}, "there is 1"),
        ((8, 8), 2, {"epsilon": 16.0}, "never reach an epsilon of 16; give step_size: 16 or more"),
        ((8, 8), 2, {"steps": 4, "step_size": 1.0}, "never reach an epsilon of 8; give step_size: 2 or more"),
    ],
)
def test_ntga_refuses_before_any_work(size, count, settings, words, craft):
    train = coloured([count], size, seed=0)
    with pytest.raises(UserError, match=words):
        ntga(train, craft("ntga", train), **settings)
