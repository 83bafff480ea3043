"""Orthogonal projection: the linear classifier, its directions, and images without them."""

import pytest
import torch
from torch import nn

from helpers.images import coloured, noise
from relearn.data import to_float
from relearn.errors import NotFiniteError
from relearn.methods.oproj import Oproj
from relearn.training import projection

TRAIN = coloured([30, 30, 30], (4, 5), 1)


def test_the_classifier_is_trained_as_torch_would(monkeypatch):
    monkeypatch.setattr(projection, "BATCH", 40)
    found = projection.linear_weights(TRAIN.images, TRAIN.labels, epochs=8, lr=0.1)
    linear = nn.Linear(60, 3, bias=False)
    nn.init.zeros_(linear.weight)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 6])
    for _ in range(8):
        for rows in projection.drawn_order(len(TRAIN)).split(40):
            optimizer.zero_grad()
            images, labels = TRAIN.images[rows], TRAIN.labels[rows]
            nn.functional.cross_entropy(linear(images.flatten(1) / 255), labels).backward()
            optimizer.step()
        schedule.step()
    assert torch.allclose(found, linear.weight, atol=1e-6) and found.abs().max() > 0.01


def patterned(count: int, labels: torch.Tensor) -> torch.Tensor:
    """Images (`count`, 8, 8, 3) of noise with a pattern of ±16 per class, of four."""
    patterns = torch.randint(0, 2, (4, 8, 8, 3), generator=torch.Generator().manual_seed(3)) * 32 - 16
    return (noise(count, 8, 8).int() // 2 + 64 + patterns[labels]).clamp(0, 255).byte()


def test_the_classifier_learns_from_images_that_come_class_by_class(monkeypatch):
    """As the files of a folder do: in that order the last class would be most of what it knows."""
    monkeypatch.setattr(projection, "BATCH", 100)
    labels = torch.arange(2000) // 500
    images = patterned(2000, labels)
    weights = projection.linear_weights(images, labels, epochs=20, lr=0.1)
    assert ((images.flatten(1).float() / 255 @ weights.T).argmax(1) == labels).float().mean() > 0.99


def test_nothing_is_left_along_the_directions():
    weights = projection.linear_weights(TRAIN.images, TRAIN.labels, epochs=5, lr=0.1)
    basis = projection.directions(weights)
    # the gradients of all classes sum to 0, and so do the weights: two directions of three are of rank
    assert basis.shape == (60, 3) and torch.allclose(basis.T @ basis, torch.eye(3), atol=1e-5)
    mean = projection.mean_image(TRAIN.images)
    assert torch.allclose(mean, TRAIN.images.double().mean(0).float())
    left = projection.without(TRAIN.images, basis, mean).flatten(1)
    apart = left - mean.flatten()
    assert (apart @ basis).abs().max() < 0.01 and (apart @ weights.T).abs().max() < 0.01  # of values to 255
    none = projection.without(TRAIN.images, basis, torch.zeros(4, 5, 3)).flatten(1)
    assert (none @ basis).abs().max() < 0.01  # as in the paper
    moved = TRAIN.images.flatten(1).float() - left
    assert torch.allclose(moved, moved @ basis @ basis.T, atol=0.01)  # nothing else is taken out


def test_the_method_rounds_what_is_left():
    method = Oproj(linear_epochs=5)
    found = method.prepare(TRAIN.images, TRAIN.labels)
    weights, mean = (
        projection.linear_weights(TRAIN.images, TRAIN.labels, epochs=5, lr=0.1),
        TRAIN.images.float().mean(0),
    )
    left = projection.without(TRAIN.images, projection.directions(weights), mean).clamp(0, 255)
    assert found.dtype == torch.uint8 and (found.float() - left).abs().max() <= 0.5
    assert torch.equal(method.eval_transform(to_float(TRAIN.images)), to_float(TRAIN.images))


def test_it_removes_a_pattern_per_class():
    """Images of noise with a pattern of ±16 per class: a classifier reads the class before, not after."""
    labels = torch.arange(2000) % 4
    images = patterned(2000, labels)
    purified = Oproj().prepare(images, labels)

    def means_apart(x: torch.Tensor) -> float:
        means = torch.stack([x[labels == k].float().mean(0) for k in range(4)])
        return (means - means.mean(0)).abs().mean().item()

    assert means_apart(images) > 10 and means_apart(purified) < means_apart(images) / 3


def test_a_classifier_that_diverges():
    with pytest.raises(NotFiniteError, match=r"has diverged at a learning rate of 1e\+38; give a smaller one"):
        projection.linear_weights(TRAIN.images, TRAIN.labels, epochs=5, lr=1e38)
