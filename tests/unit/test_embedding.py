"""Embeddings: principal axes, and probe images in a plane."""

import torch

from helpers.compare import same
from helpers.images import coloured, drawn
from relearn.data import split
from relearn.probing.embedding import embed, principal_axes
from relearn.probing.probe_set import ProbeSet
from relearn.training import models


def test_principal_axes_of_known_points():
    """A long line along the fifth dimension, a short one along the eighth."""
    points = torch.full((4, 10), 7.0, dtype=torch.float64)
    points[0, 4] += 10
    points[1, 4] -= 10.5
    points[2, 7] += 3
    points[3, 7] -= 2
    axes = principal_axes(points)
    assert torch.allclose(axes.T @ axes, torch.eye(2, dtype=torch.float64))
    # the farthest points are the second and the third: they lie on the positive side
    assert axes[4, 0] < -0.99 and axes[7, 1] > 0.99
    assert torch.allclose(principal_axes(-points), -axes)


def test_principal_axes_of_points_on_a_line():
    axes = principal_axes(torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]], dtype=torch.float64))
    assert (
        torch.allclose(axes[:, 0].abs(), torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)) and (axes[:, 1] == 0).all()
    )


class Colours(torch.nn.Module):
    """A model whose only group gives back the image."""

    def __init__(self):
        super().__init__()
        self.pixels = torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pixels(x).mean((2, 3))

    def layer_groups(self) -> dict:
        return {"pixels": self.pixels}


def embedded(probe_set: ProbeSet, model: torch.nn.Module, group: str) -> list[dict]:
    """The points of the probe set, without a transform, at a layer group."""
    return embed(probe_set, model, lambda x: x, model.layer_groups(), group)


def test_embedding_of_known_clusters():
    """Three classes at the corners of a triangle of colours: in the plane they are as far apart as in all three."""
    generator, labels = drawn(), torch.arange(3).repeat(80)
    corners = torch.tensor([[60, 60, 60], [200, 60, 60], [60, 200, 200]])
    images = (corners[labels].view(-1, 1, 1, 3) + torch.randint(-5, 6, (240, 8, 8, 3), generator=generator)).to(
        torch.uint8
    )
    points = embedded(ProbeSet.draw(split(images, labels), 240, generator), Colours(), "pixels")
    assert [point["label"] for point in points] == [label for label in range(3) for _ in range(30)] and {
        point["group"] for point in points
    } == {"pixels"}
    plane = torch.tensor([[point["x"], point["y"]] for point in points]).view(3, 30, 2)
    means, within = plane.mean(1), plane.std(1).max()
    apart = torch.cdist(means, means)
    assert apart[0, 1] > 20 * within and apart[0, 2] > 20 * within and apart[1, 2] > apart[0, 1]
    shuffled = labels[torch.randperm(240, generator=generator)]
    mixed = embedded(ProbeSet.draw(split(images, shuffled), 240, generator), Colours(), "pixels")
    plane = torch.tensor([[point["x"], point["y"]] for point in mixed]).view(3, 30, 2)
    assert torch.pdist(plane.mean(1)).max() < plane.std(1).max()  # labels that say nothing make no clusters


def test_embedding_shows_the_same_scored_images_of_ten_classes():
    train = coloured([80] * 12, (32, 32), seed=3)
    model, found = (
        models.build("cnn", {"width": 8}, images=train.images, classes=12, generator=drawn(), device="cpu"),
        ProbeSet.draw(train, 960, drawn()),
    )
    before = models.weights(model)
    points = embedded(found, model, "block2")
    assert [point["label"] for point in points] == [label for label in range(10) for _ in range(30)]
    assert points == embedded(found, model, "block2") and same(before, models.weights(model))
    # what is drawn is in none of the means: other drawn images leave the plane as it is
    scored = torch.nonzero(~found.reference).flatten()
    others = ProbeSet(found.images.clone(), found.labels, found.reference)
    others.images[scored] = found.images[scored.flip(0)]
    moved = embedded(others, model, "block2")
    spots = {(round(point["x"], 3), round(point["y"], 3)) for point in points}
    assert points != moved and len(spots & {(round(point["x"], 3), round(point["y"], 3)) for point in moved}) > 100
