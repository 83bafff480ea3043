"""The probe set, and the activation cluster measurement (ACM) on it.

ACM of a layer group is the held-out accuracy of the nearest-class-mean classifier on the group's activations, pooled
to 4x4 positions and standardised per dimension: how well the group alone already separates the labels. The paper
(Dang et al., arXiv 2306.02064) names an activation cluster measurement without publishing its formula; this
definition was chosen by experiment (docs/pst.md).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from relearn import metrics
from relearn.data import Split
from relearn.errors import Fault

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
        device = train.images.device
        rows, reference = (part.to(device) for part in balanced(train.labels.cpu(), size, generator))
        return cls(train.images[rows], train.labels[rows], reference)

    @classmethod
    def of(cls, dataset, size: int, generator: torch.Generator) -> "Probe":
        """The same from a `dataset` with a length whose items are (image, label): a float tensor (C, H, W) as the model takes it, an int.

        Classes are read from `dataset.targets`, which torchvision's data sets have; without it every item is read once.
        Raises Fault for items of another kind, of several sizes, or that change from one reading to the next.
        """
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise Fault(
                f"the probe set is drawn from a data set with a length and items by number, found a {type(dataset).__name__}"
            )
        targets = getattr(dataset, "targets", None)
        targets = [dataset[row][1] for row in range(len(dataset))] if targets is None else targets
        rows, reference = balanced(torch.as_tensor(targets), size, generator)
        items = [dataset[row] for row in rows.tolist()]
        images = [image for image, _ in items]
        kinds = {
            f"{image.dtype} {tuple(image.shape)}" if torch.is_tensor(image) else type(image).__name__
            for image in images
        }
        if len(kinds) > 1 or not torch.is_tensor(images[0]) or not images[0].is_floating_point():
            found = ", ".join(sorted(kinds)[:3])
            raise Fault(
                f"images of the probe set must be float tensors of one size, found {found}; give the data set the transform of test time"
            )
        if not all(torch.equal(dataset[row][0], image) for row, image in zip(rows[:8].tolist(), images)):
            raise Fault(
                "images of the probe set change from one reading to the next; give the data set the transform of test time"
            )
        return cls(torch.stack(images), torch.tensor([int(label) for _, label in items]), reference)

    def measure(self, model, view=lambda x: x, groups: dict | None = None) -> Reading:
        """ACM and accuracy from one forward pass over the probe set, as `activations` makes it."""
        features, scores = self.activations(model, view, groups)
        labels, reference = self.labels.to(scores.device), self.reference.to(scores.device)
        acm = {name: acm_score(activations, labels, reference) for name, activations in features.items()}
        return Reading(acm, metrics.accuracy(scores, labels) / 100)

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
        return [
            {"group": group, "label": label, "x": x, "y": y}
            for label, (x, y) in zip(labels[rows].tolist(), points.tolist())
        ]

    def activations(
        self, model, view=lambda x: x, groups: dict | None = None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Activations (N, D) float32 of each layer group, pooled, and the logits (N, K), of the whole probe set.

        One forward pass in evaluation mode, without augmentation; the model stays as it was. `groups` says whose output is
        the activation of each layer group, shallow to deep; left out, it is `model.layer_groups()`. Raises Fault when an
        output is no tensor with a row for each image.
        """
        kept: dict[str, list] = {}

        def keep(name: str, out) -> None:
            if not torch.is_tensor(out):
                raise Fault(
                    f"layer group '{name}': its output is a {type(out).__name__}, not a tensor; name modules whose output is one"
                )
            features = pooled(out.float())
            # a later operation in place must not reach what is kept here
            kept.setdefault(name, []).append(features.clone() if features.data_ptr() == out.data_ptr() else features)

        groups = model.layer_groups() if groups is None else groups
        hooks = [
            group.register_forward_hook(lambda _, __, out, name=name: keep(name, out)) for name, group in groups.items()
        ]
        try:
            scores = metrics.logits(model, self.images, view)
        finally:
            for hook in hooks:
                hook.remove()
        features = {name: torch.cat(kept.get(name, [scores[:0]])) for name in groups}
        for name, found in features.items():
            if len(found) != len(self.labels):
                raise Fault(
                    f"layer group '{name}' gave {len(found)} activations for {len(self.labels)} images; name modules called once, batch first"
                )
        return features, scores


def balanced(labels: torch.Tensor, size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (int64) of about `size` labels (N,), equally many of each class where there are so many, and which of them are reference (bool)."""
    classes = labels.unique().tolist()
    per_class = max(2, size // len(classes))
    rows, reference = [], []
    for label in classes:
        of_class = torch.nonzero(labels == label).flatten()
        chosen = of_class[torch.randperm(len(of_class), generator=generator)[:per_class]]
        rows.append(chosen)
        reference.append(torch.arange(len(chosen)) % 2 == 0)
    return torch.cat(rows), torch.cat(reference)


def pooled(activations: torch.Tensor) -> torch.Tensor:
    """Activations (N, C, H, W) pooled to `POSITIONS` squared and flattened; tokens (N, T, D) likewise; flat ones (N, D) as they are.

    Tokens are taken as a square grid, row by row, after as many others (class token, registers) as are left over: those
    keep positions of their own. Where more are left over than the grid has positions, neighbours are pooled along T.
    """
    if activations.ndim == 3:
        count, length, width = activations.shape
        side = math.isqrt(length)
        alone = length - side**2
        if alone > POSITIONS**2:
            return F.adaptive_avg_pool1d(activations.mT, POSITIONS**2).flatten(1)
        grid = activations[:, alone:].mT.reshape(count, width, side, side)
        return torch.cat([activations[:, :alone].flatten(1), pooled(grid)], 1)
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
