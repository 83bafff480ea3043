"""Which row of a file each training image gets, against slow and obvious references."""

import pytest
import torch

from relearn.crafting.exchange import order
from relearn.data import Split
from relearn.errors import UserError


def train(labels: list[int], index: list[int] | None = None) -> Split:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (len(labels), 8, 8, 3), generator=generator).to(torch.uint8)
    return Split(images, torch.tensor(labels), torch.tensor(index or list(range(len(labels)))))


def greedy(likeness: torch.Tensor, place: torch.Tensor) -> list[int]:
    """The most similar pair first, again and again."""
    pairs = [(-float(likeness[r, c]), r, int(place[r, c])) for r in range(len(place)) for c in range(place.shape[1])]
    taken, used = [-1] * len(place), set()
    for _, row, goal in sorted(pairs):
        if taken[row] < 0 and goal not in used:
            taken[row] = goal
            used.add(goal)
    return taken


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_those_of_the_greedy_search(seed):
    generator = torch.Generator().manual_seed(seed)
    likeness = torch.rand((12, 4), generator=generator).sort(1, descending=True).values
    place = torch.stack([torch.randperm(14, generator=generator)[:4] for _ in range(12)])
    taken, similar = order._assigned(likeness, place, 14)
    assert taken.tolist() == greedy(likeness, place)
    for row in range(12):
        if taken[row] >= 0:
            assert similar[row] == likeness[row, place[row].tolist().index(int(taken[row]))]


def test_by_index():
    assert order.by_index(torch.tensor([7, 2, 5]), train([0, 1, 0, 1], [2, 3, 5, 9])).tolist() == [1, -1, 2, -1]


def test_by_class_pairs_the_kth_of_each():
    own = train([1, 0, 1, 0, 0])
    assert order.by_class("x", torch.tensor([0, 0, 1, 0, 1]), 5, own).tolist() == [2, 0, 4, 1, 3]
    assert order.by_class("x", None, 5, own).tolist() == [3, 0, 4, 1, 2]
    with pytest.raises(UserError, match="of some class another number"):
        order.by_class("x", torch.tensor([0, 0, 1, 1, 1]), 5, own)


@pytest.mark.parametrize("labelled", [True, False])
def test_images_are_found_again_whichever_side_has_more(labelled):
    own = train([k % 3 for k in range(30)])
    mixed = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    for some in (mixed, mixed[:21]):
        labels = own.labels[some] if labelled else None
        rows = order.matched("x", own.images[some], labels, own)
        expected = torch.full((30,), -1)
        expected[some] = torch.arange(len(some))
        assert rows.equal(expected)
        back = order.matched("x", own.images, own.labels if labelled else None, own.pick(some))
        assert back.equal(some)


def test_labels_of_another_code_do_not_mislead():
    own = train([k % 3 for k in range(30)])
    assert order.matched("x", own.images, 2 - own.labels, own).equal(torch.arange(30))


def test_equal_images_are_taken_once_each():
    own = train([0] * 6)
    own.images[3:] = own.images[:3].clone()
    assert sorted(order.matched("x", own.images, None, own).tolist()) == list(range(6))


def test_who_finds_its_candidates_taken_gets_what_is_left(monkeypatch):
    monkeypatch.setattr(order, "WEAK", 0.2)
    own = train([0] * 12)
    found = own.images.clone()
    found[11] = own.images[0]  # one image twice, and one that none resembles
    monkeypatch.setattr(order, "CANDIDATES", 1)
    assert sorted(order.matched("x", found, None, own).tolist()) == list(range(12))
