"""Do fine details go by the class? Asked of a network that has learned nothing: random filters and a linear classifier.

Perturbations of unlearnable examples are nearly linearly separable (Yu et al., 2022, arXiv 2111.00898); photographs are
so to a small extent only.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from relearn.data import Split, to_float
from relearn.probing.hiding import hidden
from relearn.runtime.seeding import Seeds

MOST = 4000  # images; half of them set the classifier, the others are measured
FILTERS = 24  # random filters of SIDE x SIDE pixels
SIDE = 5
CELLS = 4  # positions a side at which responses are averaged
RIDGE = 0.03  # times the number of images, added to the variance of each feature: no fitting by heart
SHUFFLES = 3  # times that the labels are shuffled
BATCH = 500
BETTER = 1.05  # times as good, above chance, as coarse images: at most 1.02 on the clean sets tried, 1.09 on poisons


@dataclass(frozen=True)
class Untrained:
    """Accuracies in 0..1 on `measured` images: of `fine` detail, of it with `shuffled` labels, and of `coarse` images.

    `error` and `coarse_error` are standard errors, `chance` the share of the largest class.
    """

    fine: float
    error: float
    coarse: float
    coarse_error: float
    shuffled: float
    chance: float
    measured: int

    @property
    def by_class(self) -> bool:
        """Whether fine detail tells the classes surely and clearly better than coarse images do."""
        spread = math.hypot(self.error, self.coarse_error)
        return self.fine - self.coarse > 2 * spread and self.fine - self.chance > BETTER * (self.coarse - self.chance)


def untrained_probe(data: Split, seed: int) -> Untrained:
    """How well fine detail alone tells the classes of `data`, in a network that has learned nothing.

    Fine detail is what a 3x3 mean leaves of an image; coarse is the view that hides perturbations
    (relearn.probing.hiding). Half of at most `MOST` images set a ridge classifier on responses to random filters; the
    others are measured, and measured again with labels shuffled. All draws come from `seed`. The data lie on the CPU.
    """
    seeds = Seeds("check", seed, "untrained")
    rows = torch.randperm(len(data), generator=seeds.generator("images"))[:MOST]
    images, labels = data.images[rows], data.labels[rows]
    half = len(rows) // 2
    known, wanted = labels[:half], labels[half:]
    orders = [torch.randperm(half, generator=seeds.generator("shuffle", turn)) for turn in range(SHUFFLES)]
    fine = _features(images, detail, seeds.generator("filters"))
    right, *shuffles = _accuracies(fine, [known, *(known[order] for order in orders)], wanted)
    shuffled = sum(shuffles) / SHUFFLES
    [coarse] = _accuracies(_features(images, hidden, seeds.generator("filters")), [known], wanted)
    measured = len(wanted)
    chance = torch.bincount(wanted).max().item() / measured
    errors = (standard_error(right, measured), standard_error(coarse, measured))
    return Untrained(right, errors[0], coarse, errors[1], shuffled, chance, measured)


def standard_error(accuracy: float, images: int) -> float:
    """That of an accuracy in 0..1 on so many images; two hits and two misses more keep it above 0."""
    share = (accuracy * images + 2) / (images + 4)
    return math.sqrt(share * (1 - share) / (images + 4))


def detail(x: torch.Tensor) -> torch.Tensor:
    """What a 3x3 mean leaves of images (N, 3, H, W)."""
    return x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _features(images: torch.Tensor, view, generator: torch.Generator) -> torch.Tensor:
    """Responses (N, D) float32 to random filters of a view of images (N, H, W, 3) uint8, standardised."""
    filters = torch.randn(FILTERS, 3, SIDE, SIDE, generator=generator)
    filters -= filters.mean((2, 3), keepdim=True)
    parts = []
    for some in images.split(BATCH):
        x = view(to_float(some).contiguous())
        responses = F.conv2d(x, filters, padding=SIDE // 2)
        both = torch.cat([responses.relu(), (-responses).relu()], 1)
        size = (max(1, x.shape[2] // CELLS), max(1, x.shape[3] // CELLS))
        means = F.avg_pool2d(both, size).flatten(1)
        places = F.avg_pool2d(x, (max(1, size[0] // 2), max(1, size[1] // 2))).flatten(1)
        parts.append(torch.cat([means.sqrt(), places], 1))
    features = torch.cat(parts)
    return (features - features.mean(0)) / features.std(0).clamp_min(1e-6)


def _accuracies(features: torch.Tensor, labellings: list[torch.Tensor], wanted: torch.Tensor) -> list[float]:
    """The accuracies, on the later rows, of a ridge classifier that the first rows set with each of `labellings`."""
    half = len(features) - len(wanted)
    fitted, measured = features[:half], features[half:]
    classes = int(max(*(known.max() for known in labellings), wanted.max())) + 1
    targets = torch.stack([F.one_hot(known, classes).float() for known in labellings], 1)  # (half, L, K)
    means = targets.mean(0)
    gram = fitted.T @ fitted + RIDGE * half * torch.eye(features.shape[1])
    weights = torch.linalg.solve(gram, fitted.T @ (targets - means).flatten(1))
    scores = (measured @ weights).unflatten(1, means.shape) + means
    return (scores.argmax(2) == wanted[:, None]).double().mean(0).tolist()
