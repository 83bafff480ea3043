"""NTGA: neural tangent generalisation attacks.

Yuan and Wu, 2021, Neural Tangent Generalization Attacks (ICML), sections 3 and 4.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split, levels
from relearn.errors import UserError
from relearn.registry import Levels, LinfBudget, Positive, PositiveInt, Seed, register
from relearn.runtime import memory

WEIGHT_VARIANCE, BIAS_VARIANCE = 1.76, 0.18  # of the infinitely wide network
DIAGONAL = 1e-4  # added to the kernel's diagonal, as a share of its mean
LAYERS = 5  # of the fully connected network
LARGEST_SIDE = 64  # the convolutional kernel holds a covariance per pair of images and pixel
CHUNK = 1 << 22  # so many covariances at once

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@register
def ntga(
    train: Split,
    craft: CraftContext,
    *,
    network: Literal["cnn", "fnn"] = "cnn",
    time: Positive = 64.0,
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 8.0,
    steps: PositiveInt = 1,
    block: PositiveInt = 512,
    validation: PositiveInt = 10_000,
    seed: Seed = 0,
) -> Perturbation:
    """Noise, L-inf `epsilon` (1/255), against an infinitely wide network.

    It is trained for `time` on blocks of `block` images. The network is its neural tangent kernel: two 2x2 convolutions
    and a linear layer (cnn), or five linear layers (fnn), with erf between them. Signed steps raise its squared error
    on `validation` training images that are not in the block (all there are, if fewer). One step of size
    `epsilon` is what the authors' ten amount to. Draws which images form a block, and the validation images. Raises
    UserError for a cnn and images above 64 pixels a side, a single image, or steps that cannot reach `epsilon`.
    """
    height, width = train.images.shape[1:3]
    if network == "cnn" and max(height, width) > LARGEST_SIDE:
        raise UserError(
            f"ntga: the kernel of the cnn takes images up to {LARGEST_SIDE}x{LARGEST_SIDE}, found {height}x{width}; "
            "set network: fnn"
        )
    if steps * step_size < epsilon * (1 - 1e-6):
        raise UserError(
            f"ntga: steps: {steps} with step_size: {step_size:g} never reach an epsilon of {epsilon:g}; "
            f"give step_size: {epsilon / steps:g} or more"
        )
    if len(train) < 2:
        raise UserError("ntga: a block needs validation images beside it, so at least 2 images; there is 1")
    block = min(block, math.ceil(len(train) / 2))
    order = torch.randperm(len(train), generator=craft.generator("blocks", seed))
    images, one_hot = train.images[order], F.one_hot(train.labels[order], craft.classes).double()
    kernel = KERNELS[network]
    held = min(validation, len(train) - 1)
    needed = 8 * (3 * block**2 + 2 * held * block)  # both kernels with their gradients, and a power of the first
    memory.check(needed, f"ntga on blocks of {block} images", "choose a smaller block", craft.device)

    def attack(x: torch.Tensor, _, rows: torch.Tensor) -> torch.Tensor:
        others = torch.cat([torch.arange(int(rows[0])), torch.arange(int(rows[-1]) + 1, len(train))])
        drawn = torch.randperm(len(others), generator=craft.generator("validation", seed, int(rows[0])))[:validation]
        held_out_rows = others[drawn]
        labels, held_out_labels = one_hot[rows].to(craft.device), one_hot[held_out_rows].to(craft.device)
        held_out = levels(images[held_out_rows].to(craft.device)).double() / 255
        delta = torch.zeros_like(x)
        for step in range(1, steps + 1):
            poisoned = ((x + delta).clamp(0, 255) / 255).double()
            gradient = generalisation_gradient(poisoned, labels, held_out, held_out_labels, kernel, time)
            place = f"step {step} of {steps}, time {time:g}"
            craft.guard.note(gradient, "gradient of the noise", place)
            delta = (delta + step_size * gradient.sign().float()).clamp(-epsilon, epsilon)
        return delta

    delta = craft.map_batches(train.pick(order), block, attack)
    return Perturbation(delta[order.argsort()], Budget("linf", epsilon))


def generalisation_gradient(
    images: torch.Tensor,
    labels: torch.Tensor,
    held_out: torch.Tensor,
    held_out_labels: torch.Tensor,
    kernel: Kernel,
    time: float,
) -> torch.Tensor:
    """The gradient of the squared error on held-out images with respect to the training images of a block.

    `images` (B, 3, H, W) and `held_out` (V, 3, H, W) are float64 in [0, 1], `labels` (B, K) and `held_out_labels`
    (V, K) float64. The kernel is made twice, in parts: once for its value, once for its gradient, so that memory stays
    bounded.
    """
    own, across = _gram(kernel, images, images), _gram(kernel, held_out, images)
    own.requires_grad_(True)
    across.requires_grad_(True)
    loss = 0.5 * (predictions(own, across, labels, time) - held_out_labels).square().sum()
    weights = torch.autograd.grad(loss, (own, across))
    images = images.detach().requires_grad_(True)
    gradient = torch.zeros_like(images)
    for left, weight in zip((images, held_out), weights, strict=True):
        for part in _parts(kernel, len(left), images):
            gradient += torch.autograd.grad((kernel(left[part], images) * weight[part]).sum(), images)[0]
    return gradient


def predictions(own: torch.Tensor, across: torch.Tensor, labels: torch.Tensor, time: float) -> torch.Tensor:
    """Outputs (V, K) of a network trained for `time` by gradient flow on the mean squared error, from its kernels.

    `own` (B, B) is the kernel of the training images, `across` (V, B) that of other images with them, `labels` (B, K).
    The network starts at 0. The exponential of a block matrix gives own^-1 (1 - exp(-own s)) labels without dividing by
    small eigenvalues.
    """
    count, classes = labels.shape
    scale = time / labels.numel()
    own = own + DIAGONAL * own.diagonal().mean() * torch.eye(count, dtype=own.dtype, device=own.device)
    zero_rows = own.new_zeros(classes, count + classes)
    exponential = torch.linalg.matrix_exp(torch.cat([torch.cat([-scale * own, scale * labels], 1), zero_rows]))
    return across @ exponential[:count, count:]


def fnn(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The tangent kernel (A, B) of the fully connected network, of images (A, 3, H, W) and (B, 3, H, W) float64."""
    left, right = left.flatten(1), right.flatten(1)
    covariance = _affine(left @ right.T / left.shape[1])
    first, second = (_affine(x.square().mean(1)) for x in (left, right))
    tangent = covariance
    for _ in range(LAYERS - 1):
        activated, slope = _erf(covariance, first[:, None], second[None])
        first, second = (_affine(_erf(x, x, x)[0]) for x in (first, second))
        covariance = _affine(activated)
        tangent = covariance + WEIGHT_VARIANCE * slope * tangent
    return tangent


def cnn(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The tangent kernel (A, B) of two 2x2 convolutions and a linear layer over all positions, images as for `fnn`.

    A linear layer over positions never mixes them, so only the covariance of equal positions is needed.
    """
    covariance = torch.einsum("achw,bchw->abhw", left, right) / 3
    first, second = (x.square().mean(1) for x in (left, right))
    tangent = torch.zeros_like(covariance)
    for average in (_windows, _windows, _positions):
        if tangent.shape[-1] < left.shape[-1]:  # after the first convolution there is an erf before each layer
            activated, slope = _erf(covariance, first[:, None], second[None])
            first, second = (_erf(x, x, x)[0] for x in (first, second))
            covariance, tangent = activated, slope * tangent
        covariance, first, second = (_affine(average(x)) for x in (covariance, first, second))
        tangent = covariance + WEIGHT_VARIANCE * average(tangent)
    return tangent


KERNELS: dict[str, Kernel] = {"cnn": cnn, "fnn": fnn}
PER_PIXEL = (cnn,)  # kernels that hold a covariance per pixel of a pair of images, not one


def _windows(x: torch.Tensor) -> torch.Tensor:
    """The mean over every 2x2 window of the last two dimensions."""
    x = x[..., 1:, :] + x[..., :-1, :]
    return (x[..., 1:] + x[..., :-1]) / 4


def _positions(x: torch.Tensor) -> torch.Tensor:
    """The mean over the last two dimensions."""
    return x.mean((-2, -1))


def _affine(covariance: torch.Tensor) -> torch.Tensor:
    return WEIGHT_VARIANCE * covariance + BIAS_VARIANCE


def _erf(covariance: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The covariance after erf, and that of its derivative.

    Williams, 1997, Computing with infinite networks, equation 11.
    """
    scale = (1 + 2 * first) * (1 + 2 * second)
    activated = 2 / math.pi * torch.asin(2 * covariance / scale.sqrt())
    return activated, 4 / math.pi / (scale - 4 * covariance.square()).sqrt()


@torch.no_grad()
def _gram(kernel: Kernel, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.cat([kernel(left[part], right) for part in _parts(kernel, len(left), right)])


def _parts(kernel: Kernel, count: int, right: torch.Tensor) -> list[torch.Tensor]:
    """Rows in parts so small that their covariances with `right` fit."""
    per_row = len(right) * (right[0, 0].numel() if kernel in PER_PIXEL else 1)
    return list(torch.arange(count).split(max(1, CHUNK // per_row)))
