"""The probe set: fixed training images on which activations are measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from relearn.data import Split
from relearn.errors import NotFiniteError, UserError
from relearn.probing import metrics
from relearn.probing.acm import acm_score, pooled
from relearn.probing.hiding import hidden
from relearn.probing.items import class_numbers, image_and_label, listed_classes

Transform = Callable[[torch.Tensor], torch.Tensor]
REMEDY = "give the dataset the transform of test time"


@dataclass(frozen=True)
class ProbeResult:
    """ACM per layer group, shallow to deep, and accuracies of the whole network on the probe set, all in 0..1.

    `hidden_accuracy` is that on the same `images` in the view of `relearn.probing.hiding`, `chance` the share of the
    largest class.
    """

    acm: dict[str, float]
    accuracy: float
    hidden_accuracy: float
    chance: float
    images: int


class ProbeSet:
    """Images in two halves: the rows of `reference` set class means, the others are scored by them."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, reference: torch.Tensor):
        self.images, self.labels, self.reference = images, labels, reference

    @classmethod
    def draw(cls, train: Split, size: int, generator: torch.Generator) -> "ProbeSet":
        """About `size` images of `train`, the same number (at least 2) per class where there are so many.

        An image that training repeats is in it once: a copy would tell nothing new, and make errors look smaller.
        """
        device = train.labels.device
        distinct = first_rows(train.index)
        drawn, reference = balanced_rows(train.labels.cpu()[distinct], size, generator)
        rows = distinct[drawn]
        images = train.images[rows.to(train.images.device)].to(device)
        return cls(images, train.labels[rows.to(device)], reference.to(device))

    @classmethod
    def from_dataset(cls, dataset, size: int, generator: torch.Generator) -> "ProbeSet":
        """The same from a dataset with a length whose items are (image, label): float tensor (C, H, W), class number.

        An item may have more members, or be a mapping (relearn.probing.items); labels may be one_hot. Classes are read
        from `dataset.targets` where it agrees with the items; otherwise every item is read once. Raises UserError for
        items of another kind, of several sizes, or that change from one reading to the next.
        """
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise UserError(
                "the probe set is drawn from a dataset with a length and items by number, "
                f"found a {type(dataset).__name__}"
            )
        labels = listed_classes(dataset)
        drawn = None if labels is None else _drawn(dataset, labels, size, generator)
        if drawn is None:  # no class for each item, or others than the items have
            labels = class_numbers([image_and_label(dataset[row])[1] for row in range(len(dataset))])
            drawn = _drawn(dataset, labels, size, generator)
        if drawn is None:
            raise UserError(f"labels of the probe set change from one reading to the next; {REMEDY}")
        return cls(*drawn)

    def measure(self, model: nn.Module, eval_transform: Transform, groups: Mapping[str, nn.Module]) -> ProbeResult:
        """ACM and accuracies from two forward passes over the probe set: as it is, and with perturbations hidden."""
        features, logits = self.activations(model, eval_transform, groups)
        labels, reference = self.labels.to(logits.device), self.reference.to(logits.device)
        if labels.max() >= logits.shape[1]:
            raise UserError(f"the model gives {logits.shape[1]} logits, but there is a label {labels.max().item()}")
        acm = {name: acm_score(activations, labels, reference) for name, activations in features.items()}
        return ProbeResult(
            acm,
            accuracy=metrics.accuracy(logits, labels) / 100,
            hidden_accuracy=self.hidden_accuracy(model, eval_transform),
            chance=labels.unique(return_counts=True)[1].max().item() / len(labels),
            images=len(labels),
        )

    def hidden_accuracy(self, model: nn.Module, eval_transform: Transform) -> float:
        """Accuracy in 0..1 where the images are seen in the view that hides perturbations.

        Batch norm takes the statistics of the view: those of training belong to the images as they are.
        """
        view = metrics.logits(model, self.images, lambda x: eval_transform(hidden(x)), batch_statistics=True)
        return metrics.accuracy(view, self.labels.to(view.device)) / 100

    def activations(
        self, model: nn.Module, eval_transform: Transform, groups: Mapping[str, nn.Module]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Activations (N, D) float32 of each layer group, pooled, and the logits (N, K), of the whole probe set.

        One forward pass in evaluation mode, without augmentation; the model stays as it was. `groups` names the module
        whose output is the activation of each layer group, shallow to deep. Raises UserError when an output is no
        tensor with a row for each image, or is not finite, or so large that its variance is not.
        """
        stored: dict[str, list[torch.Tensor]] = {name: [] for name in groups}

        def store(name: str, out: object) -> None:
            if not torch.is_tensor(out):
                raise UserError(
                    f"layer group '{name}': its output is a {type(out).__name__}, not a tensor; "
                    "name modules whose output is one"
                )
            features = pooled(out.float())
            # a later operation in place must not reach what is stored here
            stored[name].append(features.clone() if features.data_ptr() == out.data_ptr() else features)

        hooks = [
            module.register_forward_hook(lambda _, __, out, name=name: store(name, out))
            for name, module in groups.items()
        ]
        try:
            logits = metrics.logits(model, self.images, eval_transform)
        finally:
            for hook in hooks:
                hook.remove()
        features = {name: torch.cat(parts or [logits[:0]]) for name, parts in stored.items()}
        for name, found in features.items():
            if len(found) != len(self.labels):
                raise UserError(
                    f"layer group '{name}' gave {len(found)} activations for {len(self.labels)} images; "
                    "name modules that are called once, with the batch first"
                )
            if not torch.linalg.vector_norm(found).isfinite():
                raise NotFiniteError(f"the activations of layer group '{name}' are not finite: training has diverged")
        return features, logits


def first_rows(index: torch.Tensor) -> torch.Tensor:
    """The rows (int64), ascending, at which each value of `index` (N,) stands for the first time."""
    values, which = index.unique(return_inverse=True)
    rows = torch.arange(len(index))
    return torch.full((len(values),), len(index)).scatter_reduce(0, which, rows, "amin").sort().values


def balanced_rows(labels: torch.Tensor, size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (int64) of about `size` labels (N,), equally many of each class, and which of them are reference (bool).

    Classes take turns, so that every batch has images of all of them. Raises UserError when there are not two classes,
    or no class has two images.
    """
    classes, counts = labels.unique(return_counts=True)
    if len(classes) < 2 or counts.max() < 2:
        raise UserError(
            "the probe set needs images of two classes, and two of one of them; "
            f"found {len(labels)} images of {len(classes)} classes"
        )
    per_class = max(2, size // len(classes))
    rows, turns = [], []
    for label in classes.tolist():
        of_class = torch.nonzero(labels == label).flatten()
        drawn = of_class[torch.randperm(len(of_class), generator=generator)[:per_class]]
        rows.append(drawn)
        turns.append(torch.arange(len(drawn)))
    turn = torch.cat(turns)
    order = turn.argsort(stable=True)
    return torch.cat(rows)[order], turn[order] % 2 == 0


def _drawn(dataset, labels: torch.Tensor, size: int, generator: torch.Generator) -> tuple | None:
    """Images, labels and reference of a probe set; None when the items have other labels than `labels` (N,)."""
    rows, reference = balanced_rows(labels, size, generator)
    items = [image_and_label(dataset[row]) for row in rows.tolist()]
    images = [image for image, _ in items]
    _check_images(images, [image_and_label(dataset[row])[0] for row in rows[:8].tolist()])
    of_items = class_numbers([label for _, label in items])
    return (torch.stack(images), of_items, reference) if torch.equal(of_items, labels[rows]) else None


def _check_images(images: list, again: list) -> None:
    """Raises UserError unless images are finite float tensors of one size, and the first are equal read `again`."""
    kinds = {
        f"{image.dtype} {tuple(image.shape)}" if torch.is_tensor(image) else type(image).__name__ for image in images
    }
    if len(kinds) > 1 or not torch.is_tensor(images[0]) or not images[0].is_floating_point():
        found = ", ".join(sorted(kinds)[:3])
        raise UserError(f"images of the probe set must be float tensors of one size, found {found}; {REMEDY}")
    if not all(image.isfinite().all() for image in images):
        raise UserError("images of the probe set have values that are not finite; correct the dataset or its transform")
    if not all(torch.equal(second, first) for second, first in zip(again, images, strict=False)):
        raise UserError(f"images of the probe set change from one reading to the next; {REMEDY}")
