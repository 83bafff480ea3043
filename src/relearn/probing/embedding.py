"""A few probe images in a plane, in which clusters show where ACM finds them."""

from collections.abc import Mapping

import torch
from torch import nn

from relearn.probing.acm import standardised
from relearn.probing.probe_set import ProbeSet, Transform

CLASSES, IMAGES = 10, 30  # so many classes, and images of each, an embedding shows


def embed(
    probe_set: ProbeSet, model: nn.Module, eval_transform: Transform, groups: Mapping[str, nn.Module], group: str
) -> list[dict]:
    """Some of the scored images, the same each time, in the plane in which the class means of the others lie widest.

    `x` and `y` are along the two principal components of the class means by which ACM of `group` is measured. An image
    drawn is in none of these means, so classes form clusters only where ACM finds them.
    """
    features = standardised(probe_set.activations(model, eval_transform, groups)[0][group]).double().cpu()
    labels, reference = probe_set.labels.cpu(), probe_set.reference.cpu()
    shown = labels.unique()[:CLASSES]
    means = torch.stack([features[reference & (labels == label)].mean(0) for label in shown])
    rows = torch.cat([torch.nonzero(~reference & (labels == label)).flatten()[:IMAGES] for label in shown])
    points = (features[rows] - means.mean(0)) @ principal_axes(means)
    return [
        {"group": group, "label": label, "x": x, "y": y}
        for label, (x, y) in zip(labels[rows].tolist(), points.tolist(), strict=True)
    ]


def principal_axes(points: torch.Tensor) -> torch.Tensor:
    """Unit vectors (D, 2) along the two principal components of points (M, D) float64; zeros where there is no extent.

    The point farthest out along an axis lies on its positive side, since a component has no sign of its own.
    """
    centred = points - points.mean(0)
    sides, extents, axes = torch.linalg.svd(centred, full_matrices=False)
    found = torch.zeros(points.shape[1], 2, dtype=points.dtype)
    for k in torch.nonzero(extents[:2] > 1e-9 * extents[0]).flatten().tolist():
        found[:, k] = axes[k] * sides[sides[:, k].abs().argmax(), k].sign()
    return found
