"""Whether poisoned images made elsewhere are those of the training set, whole, upright and in its order.

Images are compared by what a poison hardly changes: the structure of their channels on a coarse grid.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from relearn.crafting.perturbation import CHUNK
from relearn.data import Split
from relearn.errors import UserError

GRID = 8  # cells of the coarse image in each direction
SAMPLE = 1000  # images whose channels and sides are turned
LIMIT = 2000  # images compared with all training images
ALIKE = 0.5  # similarity to its own training image from which an image is not suspected
NEARER = 0.75  # share of images that must resemble their own training image more than the one before it; half by chance
IMAGES = 0.85  # median similarity of a perturbation to training images from which it is none: ours reach 0.63 (cuda)
REMEDY = "put them in the order of the training set"

#: what else than the order may be wrong with images (N, H, W, 3), and how it is undone
TURNS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "the channels are blue, green, red": lambda images: images.flip(3),
    "rows and columns are exchanged": lambda images: images.transpose(1, 2),
    "they are mirrored": lambda images: images.flip(2),
    "they are upside down": lambda images: images.flip(1),
}


def check_images(name: str, train: Split, delta: torch.Tensor) -> None:
    """Raises UserError unless the training images plus `delta` (N, H, W, 3) float32 in 1/255 are those images poisoned.

    It finds images that a damaged file left empty, turned ones, and those of other training images. The message calls
    them images in `name`.
    """
    _check_empty(name, train, delta)
    _check_turned(name, train, delta)
    _check_order(name, train, delta)


def check_perturbation(name: str, train: Split, delta: torch.Tensor) -> None:
    """Raises UserError when a perturbation (M, H, W, 3) float32 looks like training images, as normalised ones do."""
    rows = _spread(torch.arange(len(delta)), SAMPLE // 2)
    alike = float(_nearest(_features(delta[rows]), features(train.images))[0].median())
    if alike > IMAGES:
        raise UserError(
            f"{name} looks like the training images (similarity {alike:.2f}), not like a "
            "perturbation of them; were the images normalised? store them in 0..1 or 0..255, and set `kind: images`"
        )


def _check_empty(name: str, train: Split, delta: torch.Tensor) -> None:
    empty = torch.cat([_flat(images + own) & ~_flat(images) for images, own in _pairs(train, delta)])
    if empty.any():
        counts = {int(k): int((train.labels == k).sum()) for k in train.labels[empty].unique()}
        whole = [k for k, count in counts.items() if int((train.labels[empty] == k).sum()) == count]
        classes = f", all of class {', '.join(map(str, whole[:5]))} among them" if whole else ""
        raise UserError(
            f"{int(empty.sum())} of {len(train)} images in {name} are of one colour{classes}, but their training "
            f"images are not, the first at {int(empty.nonzero()[0])}; is the file complete? make or fetch it again"
        )


def _check_turned(name: str, train: Split, delta: torch.Tensor) -> None:
    rows = _spread(torch.arange(len(train)), SAMPLE)
    clean, own = train.images[rows].float(), float(delta[rows].abs().mean())
    for words, turn in TURNS.items():
        turned = turn(clean + delta[rows])
        if turned.shape == clean.shape and float((turned - clean).abs().mean()) < own / 2:
            raise UserError(
                f"images in {name} fit the training images better if {words}; store them as the training set is stored"
            )


def _check_order(name: str, train: Split, delta: torch.Tensor) -> None:
    clean = features(train.images)
    shown = torch.cat([_features(images + own) for images, own in _pairs(train, delta)])
    own = (shown * clean).sum(1)
    structured = clean.norm(dim=1) > 0.5
    rows = _spread(torch.nonzero((own < ALIKE) & structured).flatten(), LIMIT)
    if not len(rows):
        return
    other, place = _nearest(shown[rows], clean)
    # of unit vectors, 1 - similarity is half the squared distance: less than half as far from another image
    wrong = (1 - other) < (1 - own[rows]) / 4
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise UserError(
            f"{int(wrong.sum())} of {len(train)} images in {name} resemble other training images than their own, the "
            f"first at {int(rows[first])}, which resembles {int(place[first])}; {REMEDY}"
        )
    nearer = (own > (shown * clean.roll(1, 0)).sum(1))[structured].float().mean()
    if nearer < NEARER:
        raise UserError(
            f"only {nearer:.0%} of the images in {name} resemble their own training images more than others; {REMEDY}, "
            "and compare it with the one they were made from"
        )


def _pairs(train: Split, delta: torch.Tensor):
    """Training images as float32 and their rows of `delta`, in parts that the caches hold."""
    for begin in range(0, len(train), CHUNK):
        yield train.images[begin : begin + CHUNK].float(), delta[begin : begin + CHUNK]


def _flat(images: torch.Tensor) -> torch.Tensor:
    """Which of the images (N, H, W, 3) in 1/255 show one colour (N,), once they are cut off at 0 and 255."""
    shown = images.clamp(0, 255).flatten(1, 2)
    return ((shown.amax(1) - shown.amin(1)) < 0.5).all(1)


def features(images: torch.Tensor) -> torch.Tensor:
    """Unit vectors (N, 3 * GRID**2) of images (N, H, W, 3) of any dtype, 0 for one without structure."""
    return torch.cat([_features(part.float()) for part in images.split(CHUNK)])


def _features(images: torch.Tensor) -> torch.Tensor:
    """Unit vectors (N, 3 * GRID**2) of images (N, H, W, 3), 0 for one without structure."""
    coarse = F.adaptive_avg_pool2d(images.permute(0, 3, 1, 2), GRID)
    centred = (coarse - coarse.mean((2, 3), keepdim=True)).flatten(1)
    return centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-6)


def _nearest(some: torch.Tensor, clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The similarity of each vector (M, D) to the most similar training image, and the row of that."""
    found = [(part @ clean.T).max(1) for part in some.split(100)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _spread(rows: torch.Tensor, count: int) -> torch.Tensor:
    """At most `count` of the rows, evenly spaced."""
    return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]
