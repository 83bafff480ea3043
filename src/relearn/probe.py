"""The probe set, and the activation cluster measurement (ACM) on it.

ACM of a layer group is the held-out accuracy of the nearest-class-mean classifier on the group's activations, pooled
to 4x4 positions and standardised per dimension: how well the group alone already separates the labels. The paper
(Dang et al., arXiv 2306.02064) names an activation cluster measurement without publishing its formula; this
definition was chosen by experiment (docs/pst.md).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from relearn import metrics
from relearn.data import Split

EMBEDDED = (10, 30)  # so many classes, and images of each, an embedding shows
POSITIONS = 4  # activations are pooled to this many rows and columns: the spatial layout is what betrays some poisons


@dataclass(frozen=True)
class Reading:
    """ACM per layer group, shallow to deep, and the accuracy of the whole network on the probe set, all in 0..1."""

    acm: dict[str, float]
    accuracy: float


class Probe:
    """Fixed training images on which activations are measured, in two halves: one sets class means, one is scored."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, reference: torch.Tensor):
        self.images, self.labels, self.reference = images, labels, reference

    @classmethod
    def draw(cls, train: Split, size: int, generator: torch.Generator) -> "Probe":
        """About `size` images of `train`, the same number (at least 2) per class where there are so many."""
        classes = train.labels.unique().tolist()
        per_class = max(2, size // len(classes))
        rows, reference = [], []
        for label in classes:
            of_class = torch.nonzero(train.labels.cpu() == label).flatten()
            chosen = of_class[torch.randperm(len(of_class), generator=generator)[:per_class]]
            rows.append(chosen)
            reference.append(torch.arange(len(chosen)) % 2 == 0)
        device = train.images.device
        rows, reference = torch.cat(rows).to(device), torch.cat(reference).to(device)
        return cls(train.images[rows], train.labels[rows], reference)

    def measure(self, model, view=lambda x: x) -> Reading:
        """ACM and accuracy from one forward pass over the probe set."""
        features, scores = self.activations(model, view)
        acm = {name: acm_score(activations, self.labels, self.reference) for name, activations in features.items()}
        return Reading(acm, metrics.accuracy(scores, self.labels) / 100)

    def embedding(self, model, view, group: str) -> list[dict]:
        """A few of the scored images, the same each time, in the plane in which the class means of the others lie widest.

        `x` and `y` are along the two principal components of the class means that ACM of `group` is measured by. An image
        drawn is in none of these means, so classes form clusters only where ACM finds them.
        """
        classes, images = EMBEDDED
        features = standardised(self.activations(model, view)[0][group]).double().cpu()
        labels, reference = self.labels.cpu(), self.reference.cpu()
        shown = labels.unique()[:classes]
        means = torch.stack([features[reference & (labels == label)].mean(0) for label in shown])
        rows = torch.cat([torch.nonzero(~reference & (labels == label)).flatten()[:images] for label in shown])
        points = (features[rows] - means.mean(0)) @ principal_axes(means)
        return [{"group": group, "label": label, "x": x, "y": y} for label, (x, y) in zip(labels[rows].tolist(), points.tolist())]

    def activations(self, model, view) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Activations (N, D) float32 of each layer group, pooled, and the logits (N, K), of the whole probe set.

        One forward pass in evaluation mode, without augmentation; the model stays as it was.
        """
        kept: dict[str, list] = {}
        hooks = [
            group.register_forward_hook(lambda _, __, out, name=name: kept.setdefault(name, []).append(pooled(out.float())))
            for name, group in model.layer_groups().items()
        ]
        try:
            scores = metrics.logits(model, self.images, view)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: torch.cat(parts) for name, parts in kept.items()}, scores


def pooled(activations: torch.Tensor) -> torch.Tensor:
    """Activations (N, C, H, W) pooled to `POSITIONS` squared and flattened; flat ones (N, D) as they are."""
    if activations.ndim == 4 and min(activations.shape[2:]) > POSITIONS:
        activations = F.adaptive_avg_pool2d(activations, POSITIONS)
    return activations.flatten(1)


def standardised(features: torch.Tensor) -> torch.Tensor:
    """Features (N, D) with mean 0 and standard deviation 1 per dimension; a constant dimension becomes 0."""
    spread, mean = torch.std_mean(features, 0)
    return (features - mean) / spread.clamp_min(1e-6)


def principal_axes(points: torch.Tensor) -> torch.Tensor:
    """Unit vectors (D, 2) along the two principal components of points (M, D) float64; zeros where there is no such extent.

    The point farthest out along an axis lies on its positive side, since a component has no sign of its own.
    """
    centred = points - points.mean(0)
    sides, extents, axes = torch.linalg.svd(centred, full_matrices=False)
    found = torch.zeros(points.shape[1], 2, dtype=points.dtype)
    for k in torch.nonzero(extents[:2] > 1e-9 * extents[0]).flatten().tolist():
        found[:, k] = axes[k] * sides[sides[:, k].abs().argmax(), k].sign()
    return found


def acm_score(features: torch.Tensor, labels: torch.Tensor, reference: torch.Tensor) -> float:
    """ACM in 0..1 of features (N, D) float32: class means from the rows where `reference` (N,) bool, the other rows scored."""
    features = standardised(features)
    classes, label = labels.unique(return_inverse=True)
    one_hot = F.one_hot(label[reference], len(classes)).to(features.dtype)
    means = one_hot.T @ features[reference] / one_hot.sum(0)[:, None].clamp_min(1)
    # the squared distance up to a term that is the same for every class
    distance = means.square().sum(1) - 2 * features[~reference] @ means.T
    return (distance.argmin(1) == label[~reference]).double().mean().item()


def middle(reading: Reading) -> str:
    """The layer group at which the trap is looked for unless said otherwise: the middle one of those before the head, the shallower of two."""
    groups = list(reading.acm)
    return groups[(len(groups) - 2) // 2]


def trapped(reading: Reading, watch: str, acm: float = 0.5, ratio: float = 0.85) -> bool:
    """Whether the group `watch` separates the labels by more than `acm`, and more than `ratio` times as well as the network."""
    return reading.acm[watch] > max(acm, ratio * reading.accuracy)
