"""The probe set: ACM, what is drawn and measured, the middle group."""

import pytest
import torch

from helpers.compare import same
from helpers.images import drawn
from helpers.training import GROUPS, model_of, probe_result
from relearn.probing.acm import acm_score, pooled
from relearn.probing.probe_set import ProbeSet
from relearn.probing.verdict import middle_group
from relearn.training import models


def test_acm_of_separated_clusters_is_one():
    labels = torch.arange(8).repeat(10)
    corners = 10 * torch.eye(8)[labels]
    features = corners + 0.1 * torch.randn(80, 8, generator=drawn())
    assert acm_score(features, labels, torch.arange(80) // 8 % 2 == 0) == 1.0


def test_acm_of_labels_independent_of_the_features_is_chance():
    features = torch.randn(2000, 20, generator=drawn())
    labels = torch.randint(0, 10, (2000,), generator=drawn())
    # four standard deviations
    assert acm_score(features, labels, torch.arange(2000) % 2 == 0) == pytest.approx(0.1, abs=0.04)


def test_acm_by_hand():
    # means of the reference rows: 0 for class 3, 10 for class 7; of 1, 9, 6, 4 the first two lie nearer to their own
    features = torch.tensor([0.0, 0.0, 10.0, 10.0, 1.0, 9.0, 6.0, 4.0])[:, None]
    labels = torch.tensor([3, 3, 7, 7, 3, 7, 3, 7])
    reference = torch.tensor([True] * 4 + [False] * 4)
    assert acm_score(features, labels, reference) == 0.5
    assert acm_score(-1e4 * features + 7, labels, reference) == 0.5


def test_acm_does_not_depend_on_the_scale_of_a_dimension():
    labels = torch.arange(2).repeat(100)
    telling = labels[:, None] + 0.05 * torch.randn(200, 1, generator=drawn())
    # noise; a dead unit
    features = torch.cat([telling, 1e4 * torch.randn(200, 1, generator=drawn()), torch.full((200, 1), 3.0)], 1)
    assert acm_score(features, labels, torch.arange(200) // 2 % 2 == 0) > 0.9


def test_pooled():
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(pooled(x), torch.nn.functional.avg_pool2d(x, 2).flatten(1))
    assert pooled(torch.zeros(5, 7, 10, 8)).shape == (5, 7 * 16)
    assert pooled(torch.zeros(5, 7, 4, 4)).shape == (5, 7 * 16) and pooled(torch.zeros(5, 7, 2, 2)).shape == (5, 7 * 4)
    assert pooled(torch.zeros(5, 9)).shape == (5, 9)
    last = torch.rand(5, 8, 8, 6)  # channels last, as in Swin
    assert torch.equal(pooled(last), pooled(last.permute(0, 3, 1, 2).contiguous()))
    assert pooled(torch.zeros(5, 8, 8, 8)).shape == pooled(torch.zeros(5, 8, 10, 8)).shape == (5, 8 * 16)


@pytest.mark.parametrize("size, per_class", [(40, 4), (9, 2), (10_000, 8)])
def test_a_probe_set_has_as_many_of_each_class(size, per_class, tiny):
    found = ProbeSet.draw(tiny, size, drawn())
    assert found.labels.bincount().tolist() == [per_class] * 10
    assert all(2 * found.reference[found.labels == label].sum() == per_class for label in range(10))
    assert len({image.numpy().tobytes() for image in found.images}) == 10 * per_class


def test_an_image_that_training_repeats_is_in_the_probe_set_once(tiny):
    few = tiny.pick(torch.arange(40))
    found = ProbeSet.draw(few.pick(torch.arange(40).repeat(3)), 10_000, drawn())
    once = ProbeSet.draw(few, 10_000, drawn())
    assert len(once.labels) == 40 and same(found.images, once.images) and same(found.labels, once.labels)


def test_a_probe_set_takes_what_small_classes_have(odd):
    found = ProbeSet.draw(odd, 80, drawn())
    assert found.labels.bincount().tolist() == [3, 10, 5, 9, 4, 10, 7, 10]


def test_measuring_changes_nothing(tiny):
    model = model_of(tiny).train()
    before = {name: tensor.clone() for name, tensor in models.weights(model).items()}
    found = ProbeSet.draw(tiny, 40, drawn())
    groups = model.layer_groups()
    result = found.measure(model, lambda x: x, groups)
    assert model.training and same(before, models.weights(model))
    assert not any(group._forward_hooks for group in model.layer_groups().values())
    assert list(result.acm) == GROUPS and all(0 <= value <= 1 for value in (*result.acm.values(), result.accuracy))
    assert found.measure(model, lambda x: x, groups) == result
    # all alike: one class of ten
    assert found.measure(model, torch.zeros_like, groups).acm["block1"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "groups, expected",
    [
        (GROUPS, "block2"),
        (["stem", "layer1", "layer2", "layer3", "layer4", "head"], "layer2"),
        (["body", "head"], "body"),
    ],
)
def test_the_middle_group(groups, expected):
    assert middle_group(probe_result(0.5, groups=groups)) == expected
