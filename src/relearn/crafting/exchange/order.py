"""Which row of a file each training image gets."""

import torch

from relearn.crafting.resemblance import ALIKE, features
from relearn.data import Split
from relearn.errors import UserError

CANDIDATES = 5  # of the other side that an image is compared with when its nearest one is taken
WEAK = 0.05  # share of images that may resemble theirs less than ALIKE
IN_ORDER = 0.95  # share of images that must resemble their own more than the one before it, for a file in order
CHUNK = 256


def by_index(index: torch.Tensor, train: Split) -> torch.Tensor:
    """The rows (N,) of a file for the training images, of which `index` (M,) says the places; -1 where it has none."""
    order = index.argsort()
    place = torch.searchsorted(index[order], train.index).clamp_max(len(index) - 1)
    rows = order[place]
    return torch.where(index[rows] == train.index, rows, -1)


def by_class(name: str, labels: torch.Tensor | None, count: int, train: Split) -> torch.Tensor:
    """The rows of a file whose k-th row of a class is that of the k-th training image of the class.

    Without labels the rows stand class by class, in the order of the labels. Raises UserError where a class has another
    number of rows.
    """
    labels = train.labels.sort().values if labels is None else labels
    if len(labels) != count or not labels.sort().values.equal(train.labels.sort().values):
        raise UserError(
            f"{name} has {count} rows, and of some class another number than the {len(train)} training images; "
            "choose the dataset that it was made for"
        )
    rows = torch.empty(len(train), dtype=torch.int64)
    rows[train.labels.argsort(stable=True)] = labels.argsort(stable=True)
    return rows


def is_in_order(found: torch.Tensor, train: Split) -> bool:
    """Whether images (N, H, W, 3) uint8 resemble their own training images, and these more than those before them."""
    shown, clean = features(found), features(train.images)
    own = (shown * clean).sum(1)
    structured = clean.norm(dim=1) > 0.5
    if not structured.any():
        return True
    nearer = (own > (shown * clean.roll(1, 0)).sum(1))[structured].float().mean()
    alike = (own > ALIKE)[structured].float().mean()
    return bool(nearer >= IN_ORDER and alike >= 1 - WEAK)


def matched(name: str, found: torch.Tensor, labels: torch.Tensor | None, train: Split) -> torch.Tensor:
    """The rows of images (M, H, W, 3) uint8 that most resemble the training images, each taken once; -1 for none.

    All images of the smaller side find one of the other. They are compared by the structure of their channels on a
    coarse grid, which a poison hardly changes; with `labels` (M,) within each class first, and if that fails, with all.
    Raises UserError when some find none, or many resemble theirs little.
    """
    shown, clean = features(found), features(train.images)
    groups = _groups(labels, train.labels) if labels is not None else []
    for pairs in filter(None, (groups, [(torch.arange(len(shown)), torch.arange(len(clean)))])):
        rows, lost, weak = _rows(shown, clean, pairs)
        if not lost and weak <= WEAK * min(len(shown), len(clean)):
            return rows
    raise UserError(
        f"{lost or weak} of {min(len(shown), len(clean))} images of {name} and the training set "
        f"{'resemble no image of the other that is left' if lost else 'resemble each other only faintly'}; "
        "is it the same dataset? else give --order (dataset: its order; class: k-th of each class)"
    )


def _groups(labels: torch.Tensor, own: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The rows of each class on both sides; none unless the same side is the smaller one in every class."""
    most = int(max(labels.max(), own.max())) + 1
    if most > len(own):
        return []
    counts = labels.bincount(minlength=most) - own.bincount(minlength=most)
    if (counts > 0).any() and (counts < 0).any():
        return []
    return [(torch.nonzero(labels == k).flatten(), torch.nonzero(own == k).flatten()) for k in labels.unique().tolist()]


def _rows(
    shown: torch.Tensor, clean: torch.Tensor, pairs: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, int, int]:
    """The row of each training image, -1 for none, how many found none that is left, and how many hardly one.

    `pairs` are rows of both sides of which those of the first may go to those of the second.
    """
    rows, lost, weak = torch.full((len(clean),), -1), 0, 0
    for here, there in pairs:
        if not len(there):
            return rows, len(here), 0
        turned = len(here) > len(there)
        few, many = (clean[there], shown[here]) if turned else (shown[here], clean[there])
        taken, similar = _assigned(*_candidates(few, many, CANDIDATES), len(many))
        left = torch.nonzero(taken < 0).flatten()
        if 0 < len(left) <= WEAK * len(few):  # their candidates went to others: the nearest of those that are left
            free = torch.ones(len(many), dtype=torch.bool)
            free[taken[taken >= 0]] = False
            open_ = torch.nonzero(free).flatten()
            again, similar[left] = _assigned(*_candidates(few[left], many[open_], len(open_)), len(open_))
            taken[left] = open_[again]
        good = taken >= 0
        if turned:
            rows[there[good]] = here[taken[good]]
        else:
            rows[there[taken[good]]] = here[good]
        lost, weak = lost + int((~good).sum()), weak + int((similar < ALIKE).sum())
    return rows, lost, weak


def _candidates(few: torch.Tensor, many: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of the first, the similarity to its `most` most similar of the others, best first, and their rows."""
    parts = [(part @ many.T).topk(min(most, len(many)), dim=1) for part in few.split(CHUNK)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _assigned(likeness: torch.Tensor, place: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One of the candidates for each (N,), none taken twice, the most similar pairs first; -1 where all are taken.

    Each asks for its candidates one after another; who is asked keeps the most similar so far (Gale and Shapley, 1962).
    """
    holder, strength = torch.full((count,), -1), torch.full((count,), -2.0)
    tried = torch.zeros(len(place), dtype=torch.int64)
    asking = torch.arange(len(place))
    while len(asking):
        wanted, value = place[asking, tried[asking]], likeness[asking, tried[asking]]
        order = value.argsort(descending=True, stable=True)
        best = order[_first(wanted[order], count)]
        best = best[value[best] > strength[wanted[best]]]
        lost = holder[wanted[best]]
        holder[wanted[best]], strength[wanted[best]] = asking[best], value[best]
        refused = torch.ones(len(asking), dtype=torch.bool)
        refused[best] = False
        asking = torch.cat([asking[refused], lost[lost >= 0]])
        tried[asking] += 1
        asking = asking[tried[asking] < place.shape[1]]
    taken, similar = torch.full((len(place),), -1), torch.zeros(len(place))
    held = torch.nonzero(holder >= 0).flatten()
    taken[holder[held]], similar[holder[held]] = held, strength[held]
    return taken, similar


def _first(values: torch.Tensor, count: int) -> torch.Tensor:
    """The places at which each of the values (N,) below `count` comes first."""
    places = torch.arange(len(values))
    first = torch.full((count,), len(values)).scatter_reduce(0, values, places, "amin")
    return places[first[values] == places]
