"""Directions in which images of different classes are told apart linearly, and images without them.

Sandoval-Segura et al., 2023 (arXiv 2305.19254), section 4.3, "orthogonal projection".
"""

import torch

from relearn.errors import NotFiniteError
from relearn.runtime.seeding import Seeds

BATCH = 1024  # images at a time, in fitting and in projecting


def linear_weights(images: torch.Tensor, labels: torch.Tensor, *, epochs: int, lr: float) -> torch.Tensor:
    """The weights (K, D) float32 of a logistic regression on pixels in [0, 1], without a bias, on the CPU.

    Images are (N, H, W, 3) uint8, D = H * W * 3. Stochastic gradient descent from 0 in one random order, at `lr`, a
    tenth of it after half and a hundredth after three quarters of the epochs; no momentum, no weight decay.
    Raises NotFiniteError for weights that are not finite.
    """
    values = images[0].numel()
    weights = torch.zeros(int(labels.max()) + 1, values, device=images.device)
    classes = torch.arange(len(weights), device=images.device)
    order = drawn_order(len(images)).to(images.device)
    for epoch in range(epochs):
        rate = lr * 0.1 ** ((epoch >= epochs // 2) + (epoch >= epochs * 3 // 4))
        for rows in order.split(BATCH):
            x = images.index_select(0, rows).reshape(len(rows), values).float().div_(255)
            # the gradient of the mean cross-entropy of a linear classifier
            error = torch.softmax(x @ weights.T, 1) - (labels[rows, None] == classes).float()
            weights -= rate / len(rows) * (error.T @ x)
    if not weights.isfinite().all():
        raise NotFiniteError(f"the linear classifier has diverged at a learning rate of {lr:g}; give a smaller one")
    return weights.cpu()


def drawn_order(count: int) -> torch.Tensor:
    """A random order (`count`,) int64, always the same of so many images.

    The authors take CIFAR in the order of its files, which is random; the files of a folder come class by class.
    """
    return torch.randperm(count, generator=Seeds("projection").generator("order"))


def directions(weights: torch.Tensor) -> torch.Tensor:
    """Orthonormal columns (D, K) float32 that span the rows of `weights` (K, D), by a QR decomposition in float64."""
    return torch.linalg.qr(weights.double().T)[0].float()


def mean_image(images: torch.Tensor) -> torch.Tensor:
    """The mean (H, W, 3) float32 in 1/255 of images (N, H, W, 3) uint8; sums of integers are exact."""
    return (images.sum(0, dtype=torch.int64).double() / len(images)).float()


def without(images: torch.Tensor, basis: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Images (B, H, W, 3) uint8 as float32 in 1/255, of whose distance from `mean` the part along `basis` is taken out.

    Not clipped. Along the columns of `basis` all images are then alike: they are as `mean`.
    """
    x = images.reshape(len(images), -1).float()
    return (x - ((x - mean.reshape(-1)) @ basis) @ basis.T).reshape(images.shape)
