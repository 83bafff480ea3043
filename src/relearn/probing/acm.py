"""The activation cluster measurement (ACM): how well a layer group alone already separates the labels.

It is the held-out accuracy of the nearest-class-mean classifier on the group's activations, pooled to 4x4 positions and
standardised per dimension. The paper (Dang et al., arXiv 2306.02064) names an activation cluster measurement; its
formula was not available to us, and this definition was chosen by experiment (docs/pst.md).
"""

import math

import torch
import torch.nn.functional as F

POSITIONS = 4  # activations are pooled to this many rows and columns: the spatial layout betrays some poisons


def pooled(activations: torch.Tensor) -> torch.Tensor:
    """Activations (N, C, H, W) or tokens (N, T, D) pooled to `POSITIONS` squared and flattened; flat ones as they are.

    Of four dimensions the second and third are taken for rows and columns, as (N, H, W, C), if they alone are equal.
    Tokens are taken as a square grid, row by row, after as many others (class token, registers) as are left over: those
    have positions of their own. Where more are left over than the grid has positions, neighbours are pooled along T.
    """
    if activations.ndim == 3:
        count, length, width = activations.shape
        side = math.isqrt(length)
        alone = length - side**2
        if alone > POSITIONS**2:
            return F.adaptive_avg_pool1d(activations.mT, POSITIONS**2).flatten(1)
        grid = activations[:, alone:].mT.reshape(count, width, side, side)
        return torch.cat([activations[:, :alone].flatten(1), pooled(grid)], 1)
    if activations.ndim == 4 and activations.shape[1] == activations.shape[2] != activations.shape[3]:
        activations = activations.movedim(3, 1)  # as in Swin
    if activations.ndim == 4 and min(activations.shape[2:]) > POSITIONS:
        activations = F.adaptive_avg_pool2d(activations, POSITIONS)
    return activations.flatten(1)


def standardised(features: torch.Tensor) -> torch.Tensor:
    """Features (N, D) with mean 0 and standard deviation 1 per dimension; a constant dimension becomes 0."""
    std, mean = torch.std_mean(features, 0)
    return (features - mean) / std.clamp_min(1e-6)


def acm_score(features: torch.Tensor, labels: torch.Tensor, reference: torch.Tensor) -> float:
    """ACM in 0..1 of features (N, D) float32; the rows of `reference` (N,) bool set class means, others are scored."""
    features = standardised(features)
    classes, label = labels.unique(return_inverse=True)
    one_hot = F.one_hot(label[reference], len(classes)).to(features.dtype)
    means = one_hot.T @ features[reference] / one_hot.sum(0)[:, None].clamp_min(1)
    # the squared distance up to a term that is the same for every class
    distance = means.square().sum(1) - 2 * features[~reference] @ means.T
    return (distance.argmin(1) == label[~reference]).double().mean().item()
