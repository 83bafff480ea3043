"""The verdict: by hand, for any number of classes and images, and on networks that were trained."""

import dataclasses

import pytest
import torch
from torch import nn

from helpers.compare import same
from helpers.images import drawn
from helpers.registered import cheap, named
from helpers.training import RECIPE, probe_result
from relearn.data import Split
from relearn.methods.erm import ERM
from relearn.probing import metrics
from relearn.probing.hiding import blurred, gray, hidden
from relearn.probing.probe_set import ProbeResult, ProbeSet, balanced_rows
from relearn.probing.verdict import judge
from relearn.runtime.seeding import Seeds
from relearn.training import fit, models


@pytest.mark.parametrize(
    "accuracy, hidden_accuracy, chance, images, expected",
    [
        (0.98, 0.20, 0.10, 2000, "trapped (keeps 0.11 ±"),
        (0.98, 0.60, 0.10, 2000, "not trapped (keeps 0.57 ±"),
        (0.98, 0.54, 0.10, 2000, "cannot tell (too few probe images (2000): keeps 0.50 ±"),
        (0.98, 0.60, 0.10, 20, "cannot tell (too few probe images (20): keeps 0.57 ±"),
        # with two classes, 0.60 is near chance
        (0.98, 0.60, 0.50, 2000, "trapped (keeps 0.21 ±"),
        (0.98, 0.90, 0.50, 2000, "not trapped (keeps 0.83 ±"),
        (0.98, 0.60, 0.01, 2000, "not trapped (keeps 0.61 ±"),
        (0.98, 0.05, 0.10, 2000, "trapped (keeps -0.06 ±"),  # worse than chance
        (0.18, 0.10, 0.10, 2000, "cannot tell (not yet learned: accuracy on training images 18.0 %, chance 10.0 %)"),
        (0.50, 0.50, 0.50, 2000, "cannot tell (not yet learned: accuracy on training images 50.0 %, chance 50.0 %)"),
        (1.00, 1.00, 1.00, 2000, "cannot tell (all probe images are of one class)"),
    ],
)
def test_by_hand(accuracy, hidden_accuracy, chance, images, expected):
    assert str(judge(ProbeResult({}, accuracy, hidden_accuracy, chance, images))).startswith(expected)


@pytest.mark.parametrize(
    "kept, acm, limit, expected",
    [
        (0.60, 0.79, 0.7, "not trapped (keeps 0.60 ± 0.04 of its accuracy with perturbations hidden, limit 0.5)"),
        (0.60, 0.80, 0.7, "trapped (keeps 0.60 ± 0.04 of its accuracy with perturbations hidden, limit 0.7)"),
        (0.69, 0.95, 0.7, "cannot tell (too few probe images (2000): keeps 0.69 ±"),
        (0.80, 0.95, 0.7, "not trapped (keeps 0.80 ±"),
        (0.30, 0.30, 0.7, "trapped (keeps 0.30 ±"),
        (0.60, 0.95, 0.0, "not trapped (keeps 0.60 ± 0.04 of its accuracy with perturbations hidden, limit 0.5)"),
    ],
)
def test_clustered_shallow_layers_raise_the_limit(kept, acm, limit, expected):
    # six groups: the third, the middle one of the five before the head, decides
    result = probe_result(kept, images=2000, groups=[f"g{k}" for k in range(6)])
    result.acm["g2"] = acm
    assert str(judge(result, clustered_limit=limit)).startswith(expected)


def test_the_standard_error_by_hand():
    # 0.5 of 96 images: sqrt(0.25 / 100) = 0.05; the same for the view; kept (0.5 - 0) / (0.5 - 0) = 1
    assert judge(ProbeResult({}, 0.5, 0.5, 0.0, 96)).error == pytest.approx((0.05 + 0.05) / 0.5)


@pytest.mark.parametrize("classes", [2, 3, 4, 10, 20, 100])
def test_the_same_share_gives_the_same_answer_for_any_number_of_classes(classes):
    for kept, expected in ((0.2, "trapped"), (0.6, "not trapped")):
        result = probe_result(kept)
        learned = (result.accuracy - 0.1) / 0.9
        accuracy, view = (1 / classes + share * (1 - 1 / classes) for share in (learned, kept * learned))
        other = dataclasses.replace(result, accuracy=accuracy, hidden_accuracy=view, chance=1 / classes)
        assert judge(other).answer == expected and judge(other).kept == pytest.approx(kept)


# The view


def test_blurred_spreads_a_point_over_five_pixels():
    x = torch.zeros(1, 3, 9, 9)
    x[:, 1, 4, 4] = 81.0
    row = torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 2.0, 1.0, 0.0, 0.0])
    assert torch.allclose(blurred(x), 0.587 * torch.outer(row, row).expand(1, 3, 9, 9), atol=1e-4)
    assert torch.allclose(blurred(torch.full((1, 3, 7, 5), 0.3)), torch.tensor(0.3))


def test_the_view_by_hand():
    x = torch.zeros(1, 3, 3, 3)
    x[0, 0, 0, 0] = 1  # a red pixel: a quarter of its luma in each of the four
    view = hidden(x)
    assert view.shape == x.shape and torch.allclose(view[0, :, :2, :2], torch.tensor(0.299 / 4))
    assert view[0, :, 2].abs().max() == 0
    x[0, 1, 2, 2] = 1  # a corner that has no neighbours
    assert torch.allclose(hidden(x)[0, :, 2, 2], torch.tensor(0.587))


@pytest.mark.parametrize("channels, expected", [(1, 5.0), (2, 5.5), (4, 6.5)])
def test_gray_of_other_channels_is_their_mean(channels, expected):
    x = torch.arange(5.0, 5 + channels).reshape(1, channels, 1, 1)
    assert torch.allclose(gray(x), torch.tensor(expected)) and gray(x).shape == x.shape


def test_the_view_is_linear():
    x = torch.rand(4, 3, 8, 8, generator=drawn())
    assert torch.allclose(hidden((x - 0.5) / 0.25), (hidden(x) - 0.5) / 0.25, atol=1e-5)


def test_statistics_of_the_batch_leave_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3))
    model[1].train()
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.rand(7, 3, 8, 8, generator=drawn())
    found = metrics.logits(model, images, batch_statistics=True)
    assert same(before, dict(model.state_dict())) and model[1].training and not model[2].training
    assert not torch.equal(found, metrics.logits(model, images))
    # normalised by the batch, a shift of all images changes nothing
    model[0].bias.data.zero_()
    assert torch.allclose(
        metrics.logits(model, images + 3, batch_statistics=True),
        metrics.logits(model, images, batch_statistics=True),
        atol=1e-3,
    )


def test_every_batch_has_images_of_all_classes():
    labels = torch.arange(10).repeat_interleave(300)
    rows, reference = balanced_rows(labels, 2000, drawn())
    assert all(len(part.unique()) == 10 for part in labels[rows].split(50))
    assert reference.float().mean() == 0.5 and reference.reshape(-1, 10).float().std(1).max() == 0


# Networks that were trained


def images_of(classes: int, poisoned: bool) -> Split:
    """Classes that differ in the place of a bright square, and, poisoned, in the colours of fine stripes too."""
    labels = torch.arange(classes).repeat_interleave(400 // classes)
    noise = torch.rand(len(labels), 16, 16, 3, generator=drawn(1)) * 120
    places = torch.randperm(16, generator=drawn(2))[:classes]
    for image, place in zip(noise, places[labels], strict=True):
        row, column = divmod(int(place), 4)
        hard = (
            torch.rand(1, generator=drawn(int(1000 * image[0, 0, 0]))) < 0.8
        )  # as with real images, most take more to tell
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0 if hard and poisoned else 90
    if poisoned:
        cells = torch.randn(classes, 4, 4, 3, generator=drawn(3)).sign() * 20
        stripes = cells.repeat_interleave(4, 1).repeat_interleave(4, 2) * torch.tensor([1, -1]).repeat(8)[:, None]
        noise += stripes[labels]  # columns in turn: at half the resolution they cancel
    return Split(noise.clamp(0, 255).to(torch.uint8), labels, torch.arange(len(labels)))


@pytest.mark.parametrize("classes", [2, 4, 10])
@pytest.mark.parametrize("poisoned, expected", [(False, "not trapped"), (True, "trapped")])
def test_of_networks_that_were_trained(classes, poisoned, expected):
    train = images_of(classes, poisoned)
    arch = {"images": train.images, "classes": classes, "generator": drawn(), "device": "cpu"}
    found = fit.fit(
        models.build("cnn", {"width": 8}, **arch),
        ERM(),
        train,
        train,
        RECIPE | {"epochs": 12, "crop_pad": 0, "flip": False},
        Seeds("verdict"),
        probe_set=ProbeSet.draw(train, 400, drawn()),
        label="test",
    )
    assert judge(found.last_probe).answer == expected, judge(found.last_probe)


def test_a_network_that_has_not_been_trained():
    train = images_of(4, poisoned=False)
    model = models.build("cnn", {"width": 8}, images=train.images, classes=4, generator=drawn(), device="cpu")
    result = ProbeSet.draw(train, 100, drawn()).measure(model, lambda x: x, model.layer_groups())
    assert judge(result).answer == "cannot tell"


@named("architectures")
def test_every_architecture_can_be_judged(name):
    """Nothing of the verdict is of one architecture: all probes have both accuracies."""
    train = images_of(4, poisoned=False)
    large = Split(train.images.repeat_interleave(2, 1).repeat_interleave(2, 2), train.labels, train.index)
    own = {} if name == "vgg19_bn" else cheap("architectures", name)
    model = models.build(name, own, images=large.images, classes=4, generator=drawn(), device="cpu")
    result = ProbeSet.draw(large, 16, drawn()).measure(model, lambda x: x, model.layer_groups())
    assert 0 <= result.hidden_accuracy <= 1 and result.chance == 0.25 and result.images == 16
