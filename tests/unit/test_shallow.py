"""What shallow layers respond to: shares and patterns that can be worked out, and the figure of real networks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.images import coloured
from relearn import registry
from relearn.data import save_split, save_tensors
from relearn.errors import UserError
from relearn.grid import Cell
from relearn.methods.erm import ERM
from relearn.probing.shallow import WINDOW, filters, responses
from relearn.reporting.rendering import save_figure
from relearn.runtime.seeding import Seeds
from relearn.training import models


def some(seed: int, count: int = 6, side: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_shares_of_responses_that_are_the_pixels():
    clean = some(1)
    poisoned = clean + 0.1 * (some(2) - 0.5)
    found = responses(lambda x: x, clean, poisoned, examples=2)
    spread = (poisoned - poisoned.mean(0)).pow(2).mean((0, 2, 3))
    changed = (poisoned - clean).pow(2).mean((0, 2, 3))
    assert found.share == pytest.approx(found.input_share) == pytest.approx(float(changed.mean() / spread.mean()))
    torch.testing.assert_close(found.shares, changed / spread)
    torch.testing.assert_close(found.strength, spread.sqrt())
    assert found.image.shape == found.change.shape == (2, 8, 8)
    wanted = ((poisoned - clean)[:2].pow(2).mean(1) / spread.mean()).sqrt()
    torch.testing.assert_close(found.change, wanted)


def test_a_layer_that_sees_the_perturbation_alone_and_one_that_does_not():
    """The perturbation is in blue, the images differ in red alone."""
    clean = some(3)
    clean[:, 1:] = 0.5
    poisoned = clean.clone()
    poisoned[:, 2] += 0.1 * (some(4)[:, 2] - 0.5)
    only = {"red": 0, "blue": 2}
    found = {name: responses(lambda x, k=k: x[:, k : k + 1], clean, poisoned, 1).share for name, k in only.items()}
    assert found["red"] == 0.0 and found["blue"] > 0.8
    assert responses(lambda x: x, clean, clean, 1).share == 0.0


def test_the_patterns_of_a_convolution_are_its_weights():
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(5))
    found = filters(lambda x: F.conv2d(x, weight, padding=1), some(6), torch.tensor([4, 0]))
    torch.testing.assert_close(found, weight[[4, 0]].permute(0, 2, 3, 1))


def test_the_window_of_a_pattern_is_what_it_depends_on():
    respond = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1))
    channels = torch.arange(2)
    found = filters(respond, some(7, count=50, side=16), channels)
    assert found.shape == (2, 8, 8, 3)  # three maxima of two pixels, and one more on each side
    wide = nn.Conv2d(3, 2, 31, padding=15)
    assert filters(wide, some(8, side=40), channels).shape == (2, WINDOW, WINDOW, 3)
    assert not filters(lambda x: 0 * x, some(9), channels).any()


def test_responses_that_are_no_maps():
    with pytest.raises(UserError, match=r"shape \(6, 192\), not that of maps"):
        responses(lambda x: x.flatten(1), some(1), some(2), 1)


CELLS = ["toy/tap/cnn/erm/0", "toy/tap/cnn/same/0"]


@pytest.fixture
def networks(tmp_path):
    """Two networks: `erm` has been changed since it was built, `same` not."""
    split = coloured([6] * 3, (16, 16), seed=1)
    facts = {"classes": ["a", "b", "c"], "settings": {}}
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(-8, 9, split.images.shape, generator=generator)
    poisoned = split.with_images((split.images + noise).clamp(0, 255).to(torch.uint8))
    files = {"clean": tmp_path / "clean.safetensors", "poisoned": tmp_path / "poisoned.safetensors"}
    save_split(files["clean"], split, facts)
    save_split(files["poisoned"], poisoned, facts)
    found = {}
    for name in CELLS:
        cell = Cell.parse(name)
        seeds = Seeds("train", cell.dataset, cell.arch, cell.seed)
        how = {"classes": 3, "generator": seeds.generator("init"), "device": "cpu"}
        model = models.build("cnn", {"width": 4}, images=poisoned.images, **how)
        if cell.method == "erm":
            nn.init.constant_(model.layer_groups()["block1"][0].weight, 0.1)
        file = tmp_path / f"{cell.method}.safetensors"
        save_tensors(file, models.weights(model), {"settings": {}})
        own = {"cell": cell, "arch": ("cnn", {"width": 4}), "method": ERM(), "classes": 3, "threads": 1, "model": file}
        found[name] = own | files
    return found


def draw(networks, **settings):
    return registry.load("figures", "shallow_filters")(networks, cells=CELLS, **settings)


def test_the_figure_has_the_network_before_training_and_after(networks, tmp_path):
    figure = draw(networks, groups=1, channels=4)
    (part,) = figure.subfigs
    assert part.get_suptitle() == "tap, toy, cnn, seed 0"
    rows = [axis for axis in figure.axes if axis.get_ylabel()]
    heads, shares = zip(*(axis.get_ylabel().split("\n", 1) for axis in rows), strict=True)
    assert heads == ("before training", "erm", "same")
    assert shares[0] == shares[2] != shares[1] and all("block1 " in share for share in shares)
    tiles = [[image.get_array() for image in axis.images] for axis in rows]
    assert [len(row) for row in tiles] == [4, 4, 4] and tiles[0][0].shape == (3, 3, 3)
    for before, after in zip(tiles[0], tiles[2], strict=True):  # no training, no change
        assert (before == after).all()
    paths = [tmp_path / f"{turn}.png" for turn in range(2)]
    for path in paths:
        save_figure(draw(networks, groups=1, channels=4), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_more_groups_than_there_are(networks):
    with pytest.raises(UserError, match="groups must be less than 5, the number of layer groups of cnn .* found 5"):
        draw(networks, groups=5)
