"""PST as a library: what it measures, that measuring changes nothing, and what it refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.compare import same, stir
from helpers.pst_loop import (
    BATCHES,
    CLEAN,
    EAGER,
    GROUPS,
    NEVER,
    OPTIMIZERS,
    TRAPPED,
    UNSURE,
    Net,
    Training,
    batch,
    everything,
)
from helpers.training import NEVER_TRAPPED
from relearn.errors import UserError
from relearn.probing.acm import pooled
from relearn.probing.probe_set import ProbeSet
from relearn.pst import PST

# A probe changes nothing


@pytest.mark.parametrize("autocast", [False, True])
def test_probes_change_nothing(data, autocast):
    """A probe after every step against none, with dropout, batch norm, one part in evaluation mode, under autocast."""
    ends = []
    for settings in ({"probe_steps": 1, "dense_epochs": 9.0, **NEVER_TRAPPED}, NEVER):
        training = Training(data, **settings)
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for _ in training.pst.epochs(2):
                training.model.train()
                training.model.blocks[1].eval()
                for _ in range(BATCHES):
                    images, labels = batch(data, training.step)
                    training.optimizer.zero_grad()
                    scores = training.model(images)
                    assert scores.dtype == (torch.bfloat16 if autocast else torch.float32)
                    F.cross_entropy(scores.float(), labels).backward()
                    assert all(p.grad is not None for p in training.model.parameters())
                    training.optimizer.step()
                    if training.pst.step():
                        break
                assert training.model.training and not training.model.blocks[1][0].training
        ends.append((everything(training), torch.random.get_rng_state(), len(training.pst.probes)))
    assert ends[0][2] == 11 and ends[1][2] == 1
    assert same(ends[0][:2], ends[1][:2])


@pytest.mark.usefixtures("decided_by_limit")
def test_a_whole_run_under_autocast_and_compiled(data):
    """torch.compile around the model or a part of it: probes see the same activations, and frozen groups stay put."""
    stir(0)
    model = Net()
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager")
    model.blocks[1].compile(backend="aot_eager")
    optimizer = OPTIMIZERS["sgd"](compiled.parameters())
    pst = PST(compiled, optimizer, data, steps_per_epoch=2, probe_size=40, **EAGER | {"probe_steps": 2})
    compiled.eval()(data.tensors[0][:16])  # compiled before the first probe
    expected = PST(plain, OPTIMIZERS["sgd"](plain.parameters()), data, steps_per_epoch=2, probe_size=40).measure()
    assert list(expected.acm) == GROUPS and pst.measure() == expected
    for _ in pst.epochs(2):
        for _ in range(2):
            images, labels = batch(data, pst.training.step)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(compiled(images), labels)
            loss.backward()
            optimizer.step()
            if pst.step():
                break
        if pst.training.steps_taken == 2:
            frozen = model.blocks[0][0].weight.detach().clone(), model.head.weight.detach().clone()
    assert pst.stage == "stage 1" and pst.training.steps_taken == 6
    assert torch.equal(frozen[0], model.blocks[0][0].weight) and not torch.equal(frozen[1], model.head.weight)


def test_the_probe_set_is_drawn_evenly_and_by_the_seed(data):
    stir(3)
    one = Training(data).pst.training.probe_set
    assert one.labels.bincount().tolist() == [4] * 10 and one.reference.sum() == 20
    stir(4)
    assert same(vars(one), vars(Training(data).pst.training.probe_set)) and not same(
        vars(one), vars(Training(data, seed=1).pst.training.probe_set)
    )


def test_the_verdict(data):
    for kept, expected in (
        (TRAPPED, "trapped (keeps 0.10 ±"),
        (CLEAN, "not trapped (keeps 0.80 ±"),
        (UNSURE, "cannot tell"),
    ):
        assert str(Training(data, script={0: kept}).pst.verdict).startswith(expected)


# What is measured


def test_tokens_are_pooled_as_the_grid_they_are():
    grid = torch.arange(2 * 64 * 3.0).view(2, 64, 3)
    as_image = grid.mT.reshape(2, 3, 8, 8)
    alone = -torch.ones(2, 2, 3)
    assert torch.equal(pooled(grid), pooled(as_image))
    assert torch.equal(pooled(torch.cat([alone, grid], 1)), torch.cat([alone.flatten(1), pooled(as_image)], 1))
    assert pooled(torch.zeros(2, 99, 3)).shape == (2, 48)  # 9 x 9 and 18 more: no grid


def test_what_follows_in_place_does_not_reach_activations():
    labels = torch.arange(80) % 10
    images = labels.view(-1, 1, 1, 1) / 10 + 0.01 * torch.randn(
        80, 3, 32, 32, generator=torch.Generator().manual_seed(0)
    )
    stir(0)
    conv = nn.Conv2d(3, 4, 8, 8)  # 4 x 4 positions: nothing is pooled
    model = nn.Sequential(conv, nn.Threshold(1e9, 0.0, inplace=True), nn.Flatten(), nn.Linear(64, 10))
    result = ProbeSet(images, labels, torch.arange(80) < 40).measure(model, lambda x: x, {"conv": conv})
    assert result.acm["conv"] > 0.5  # of the zeros that follow it would be the share of one class, 0.1


def test_activations_that_cannot_be_measured(data):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.head = nn.LSTM(96, 8, batch_first=True), nn.Linear(8, 10)

        def forward(self, x):
            return self.head(self.head.weight.new_zeros(len(x), 8) + self.rows(x.transpose(1, 2).flatten(2))[0][:, -1])

    model = Recurrent()
    found = ProbeSet.from_dataset(data, 40, torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match="'rows': its output is a tuple"):
        found.measure(model, lambda x: x, {"rows": model.rows})
    assert not model.rows._forward_hooks
    with pytest.raises(UserError, match="'never' gave 0 activations for 40 images"):
        found.measure(model, lambda x: x, {"never": nn.Identity()})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: {"data": DataLoader(data)}, r"found a DataLoader"),
        (lambda data: {"data": [(image + torch.rand(1), label) for image, label in data]}, None),
        (lambda data: {"data": Moving(data)}, r"change from one reading to the next"),
        (
            lambda data: {"data": [(Image.new("RGB", (32, 32)), int(label)) for _, label in data]},
            r"float tensors of one size, found Image",
        ),
        (
            lambda data: {"data": [(image[:, : 30 + k % 2], label) for k, (image, label) in enumerate(data)]},
            r"one size, found torch.float32 \(3, 30, 32\)",
        ),
        (lambda data: {"full_rate_group": [2]}, r"no setting 'full_rate_group'.*did you mean 'full_rate_groups'"),
        (lambda data: {"full_rate_groups": [5]}, r"1 to 4 here, found \[5\]"),
        (lambda data: {"steps_per_epoch": 0}, r"steps_per_epoch: must be .*found 0"),
    ],
)
def test_what_pst_refuses(data, change, message):
    model = Net()
    given = {"data": data, "steps_per_epoch": 5, "probe_size": 40} | change(data)

    def begin():
        next(PST(model, OPTIMIZERS["sgd"](model.parameters()), **given).epochs(1))

    if message is None:
        return begin()
    with pytest.raises(UserError, match=message):
        begin()


class Moving(TensorDataset):
    """As an augmenting transform does."""

    def __init__(self, data):
        super().__init__(*data.tensors)
        self.targets = data.tensors[1]

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return image + torch.rand(1), label


def test_loops_that_do_not_follow(data):
    training = Training(data, script={})
    with pytest.raises(UserError, match="step.. outside an epoch"):
        training.pst.step()
    epochs = training.pst.epochs(2)
    next(epochs)
    for _ in range(3):
        training.pst.step()
    with pytest.raises(UserError, match="ended after 3 steps, steps_per_epoch is 5"):
        next(epochs)
