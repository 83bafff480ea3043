"""PST in a loop of one's own: layer groups of any network, the roll-back, the schedule, and the example of the docs."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import coloured, same, stir
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from relearn import augment, fit, metrics, models, params, probe
from relearn.errors import Fault
from relearn.groups import layer_groups
from relearn.methods.erm import ERM
from relearn.methods.pst import PST as Method
from relearn.probe import Probe, Reading
from relearn.pst import PST
from relearn.seeding import Seeds
from relearn.vision import torchvision

ROOT = Path(__file__).resolve().parents[1]
BATCHES = 5  # of 16 images in an epoch
NEVER = {"tick_steps": 10**6, "dense_epochs": 1e6}


class Net(nn.Module):
    """Four blocks and a head; with a token, a buffer outside its state_dict, and draws from the global generator."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        sizes = [3, width, width, 2 * width, 2 * width]
        pairs = zip(sizes, sizes[1:])
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)) for a, b in pairs
        )
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        x = x * self.scale
        for block in self.blocks:
            x = block(x)
        if self.training:
            self.calls += 1
        return self.head(self.drop(x).mean((2, 3)))


GROUPS = [*(f"blocks.{k}" for k in range(4)), "head"]
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01, weight_decay=0.1),
}


@pytest.fixture(scope="module")
def data() -> TensorDataset:
    train = coloured([8] * 10, (32, 32), seed=1)
    return TensorDataset(augment.to_float(train.images).contiguous(), train.labels)


def batch(data, count: int):
    rows = torch.randint(0, len(data), (16,), generator=torch.Generator().manual_seed(count))
    return data[rows]


class Training:
    """A loop whose batches and global draws depend on the step alone, so that what is restored repeats itself."""

    def __init__(self, data, optimizer: str = "sgd", schedule=None, script: dict | None = None, **settings):
        stir(0)
        self.data, self.model = data, Net()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler = schedule(self.optimizer) if schedule else None
        self.pst = PST(
            self.model, self.optimizer, data, steps_per_epoch=BATCHES, scheduler=self.scheduler, probe=40, **settings
        )
        if script is not None:
            self.pst.measure = lambda: Reading(dict.fromkeys(GROUPS, script.get(self.pst.iterations, 0.48)), 0.5)
        self.seen: list[tuple[int, float]] = []  # (count, learning rate) of every update

    def update(self) -> None:
        images, labels = batch(self.data, self.pst.count)
        torch.manual_seed(self.pst.count)  # dropout
        self.model.train()
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(images), labels).backward()
        self.optimizer.step()
        self.seen.append((self.pst.count, self.optimizer.param_groups[0]["lr"]))

    def run(self, epochs: int = 3, until: int = 10**6, per_epoch: bool = False) -> list[int]:
        """Train until so many iterations; the scheduler steps with every update or once an epoch."""
        ran = []
        for epoch in self.pst.epochs(epochs):
            ran.append(epoch)
            for _ in range(BATCHES):
                self.update()
                if self.scheduler and not per_epoch:
                    self.scheduler.step()
                left = self.pst.step()
                if self.pst.iterations == until:
                    return ran
                if left:
                    break
            if per_epoch:
                self.scheduler.step()
        return ran

    def state(self) -> dict:
        scheduler = self.scheduler.state_dict() if self.scheduler else {}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
            "pst": self.pst.state_dict(),
        }


def everything(training: Training) -> dict:
    tensors = {
        name: tensor.detach().clone()
        for name, tensor in (*training.model.named_parameters(), *training.model.named_buffers())
    }
    return {"tensors": tensors, "state": copy.deepcopy(training.optimizer.state_dict()["state"])}


CLEAN, HOT = 0.1, 0.9
SCRIPT = {0: CLEAN, 4: CLEAN, 8: HOT}  # by iterations: a snapshot at step 4, and back to it from step 8
SCRIPTED = {"script": SCRIPT, "tick_steps": 4, "dense_epochs": 9.0, "confirm": 1}


# The schedule


def test_epochs_by_hand(data):
    training = Training(data, **SCRIPTED)
    # 5 steps; 3 steps, back from 8 to 4 in the middle of epoch 0; its one step left; epochs 1 and 2 whole
    assert training.run() == [0, 1, 0, 1, 2]
    assert [count for count, _ in training.seen] == [*range(8), *range(4, 15)]
    assert (training.pst.count, training.pst.iterations, training.pst.stage) == (15, 19, "stage 1")
    found = [
        (row["iterations"], row["step"], row["stage"], row["next_step"], row["next_stage"])
        for row in training.pst.ticks
    ]
    assert found == [(0, 0, "early", 0, "early"), (4, 4, "early", 4, "early"), (8, 8, "early", 4, "stage 1")]


def test_without_a_trap_epochs_are_those_of_range(data):
    training = Training(data, script={}, tick_steps=4)
    assert training.run() == [0, 1, 2] and training.pst.iterations == 15 and training.pst.stage == "early"


RECIPE = {setting.name: setting.default for setting in params.schema(params.Recipe)}
RECIPE |= {"epochs": 3, "batch": 16, "warmup_steps": 2, "crop_pad": 2, "momentum": 0.0, "nesterov": False}
EAGER = {
    "confirm": 1,
    "acm_trapped": 0.0,
    "ratio_trapped": 1e-6,
    "acm_clean": 0.0,
    "dense_epochs": 9.0,
    "tick_steps": 4,
}


@pytest.mark.parametrize(
    "settings",
    [{"keep": [3, 2], **EAGER}, {"keep": [2], "rate": 0.5, **EAGER}, {"keep": [2], "confirm": 2, "tick_steps": 3}],
)
def test_the_library_does_what_the_method_of_the_workflow_does(settings, tiny):
    """The same looks and weights on the same batches; without momentum, which the method forgets on a roll-back."""

    def fresh():
        return models.build(
            "cnn",
            {"width": 8},
            images=tiny.images,
            classes=10,
            generator=torch.Generator().manual_seed(2),
            device="cpu",
        )

    def by_hand(model) -> PST:
        run = fit.Run(fresh(), ERM(), tiny, RECIPE, Seeds("test"), None, "float32")  # draws the batches
        optimizer = torch.optim.SGD(model.parameters(), RECIPE["lr"], weight_decay=RECIPE["weight_decay"])
        factors = []
        for run.step in range(16):
            factors.append(run._schedule())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factors[step])
        shown = TensorDataset(augment.to_float(tiny.images), tiny.labels)
        pst = PST(
            model,
            optimizer,
            shown,
            steps_per_epoch=5,
            scheduler=scheduler,
            groups=model.layer_groups(),
            probe=40,
            seed=3,
            **settings,
        )
        for _ in pst.epochs(3):
            model.train()
            for _ in range(5):
                run.step = pst.count
                images, labels, _ = run._batch()
                optimizer.zero_grad()
                F.cross_entropy(model(augment.to_float(images)), labels).backward()
                optimizer.step()
                scheduler.step()
                if pst.step():
                    break
        return pst

    theirs, ours = fresh(), fresh()
    found = Probe.draw(tiny, 40, torch.Generator().manual_seed(3))
    done = fit.fit(
        theirs, Method(**settings), tiny, tiny, RECIPE, Seeds("test"), probe=found, precision="float32", label="test"
    )
    pst = by_hand(ours)
    assert pst.ticks == done.ticks and pst.iterations == done.iterations == 15 + 4 * pst.staging.stage
    exact = 0.0 if settings.get("rate", 0.0) == 0 else 1e-6  # a rate in between is rounded in another place
    for name, tensor in ours.state_dict().items():
        assert torch.allclose(tensor, theirs.state_dict()[name], rtol=0, atol=exact), name


def cosine(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15)


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 16)


@pytest.mark.parametrize("schedule", [cosine, one_cycle])
@pytest.mark.parametrize("per_epoch", [False, True])
def test_the_schedule_goes_back_however_the_scheduler_steps(data, schedule, per_epoch):
    training = Training(data, schedule=schedule, **SCRIPTED)
    training.run(per_epoch=per_epoch)
    undisturbed = Training(data, schedule=schedule, script={})
    undisturbed.run(per_epoch=per_epoch)
    expected = dict(undisturbed.seen)
    assert len(set(expected.values())) >= 3 and len(training.seen) == 19
    assert training.seen == [(count, expected[count]) for count, _ in training.seen]


# Going back


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_roll_back_restores_every_byte(data, optimizer):
    training = Training(data, optimizer, cosine, **SCRIPTED)
    training.run(until=4)
    before = everything(training)
    assert before["tensors"]["calls"] == 4 and before["state"]
    again = Training(data, optimizer, cosine, **SCRIPTED)
    again.run(until=7)
    assert not same(everything(again)["tensors"], before["tensors"])
    again = Training(data, optimizer, cosine, **SCRIPTED)
    again.run(until=8)
    assert same(everything(again), before) and again.pst.count == 4
    assert [p.requires_grad for p in again.model.blocks[2].parameters()] == [
        False
    ] * 4 and again.model.head.weight.requires_grad


def test_a_snapshot_is_not_written_into(data):
    """Two roll-backs to one snapshot, training in between: the same bytes both times."""
    settings = SCRIPTED | {"script": SCRIPT | {12: HOT}, "keep": [3, 1]}
    first, second = Training(data, "adamw", **settings), Training(data, "adamw", **settings)
    first.run(until=8)
    second.run(until=12)
    assert second.pst.stage == "stage 2" and second.pst.count == 4
    assert same(everything(first), everything(second))


def test_only_the_newest_snapshots_are_kept(data):
    training = Training(data, script=dict.fromkeys(range(99), CLEAN), tick_steps=1, dense_epochs=9.0, snapshots=2)
    training.run(until=4)
    assert [snapshot["count"] for snapshot in training.pst.kept] == [3, 4]


# Rates


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_rate_scales_the_update(data, optimizer):
    steps = []
    for rate in (1.0, 0.25):
        training = Training(data, optimizer, rate=rate, keep=[2], script={})
        training.pst.staging.stage = 1
        training.pst._set_rates()
        old = {name: p.detach().clone() for name, p in training.model.named_parameters()}
        training.update()
        steps.append({name: p.detach() - old[name] for name, p in training.model.named_parameters()})
    assert all(step.abs().max() > 1e-5 for step in steps[0].values() if step.ndim > 1)
    for name in steps[0]:
        if name.startswith(("blocks.3", "head")):
            assert torch.equal(steps[0][name], steps[1][name]), name
        else:
            assert torch.allclose(0.25 * steps[0][name], steps[1][name], rtol=1e-5, atol=1e-7), name


def test_a_rate_is_a_learning_rate(data):
    """Several steps of SGD with momentum, decay and a schedule against parameter groups of two learning rates."""
    training = Training(data, schedule=cosine, rate=0.3, script={})
    training.pst.staging.stage = 1
    training.pst._set_rates()
    other = copy.deepcopy(training.model)
    deep = [*other.blocks[3].parameters(), *other.head.parameters()]
    shallow = [p for p in other.parameters() if all(p is not q for q in deep)]
    optimizer = OPTIMIZERS["sgd"]([{"params": deep}, {"params": shallow, "lr": 0.03}])
    scheduler = cosine(optimizer)
    training.run(epochs=1)
    for count in range(BATCHES):
        images, labels = batch(data, count)
        torch.manual_seed(count)
        optimizer.zero_grad()
        F.cross_entropy(other.train()(images), labels).backward()
        optimizer.step()
        scheduler.step()
    for (name, ours), theirs in zip(training.model.named_parameters(), other.parameters()):
        assert torch.allclose(ours, theirs, atol=1e-5), name


def test_frozen_groups_keep_their_weights_and_thaw_again(data):
    training = Training(data, keep=[1, 4], **SCRIPTED | {"script": SCRIPT | {12: HOT}})
    training.run(until=8)
    kept = everything(training)["tensors"]
    training.update()
    after = everything(training)["tensors"]
    for name, p in training.model.named_parameters():
        assert torch.equal(kept[name], after[name]) != name.startswith("head"), name
        assert (p.grad is None) != name.startswith("head"), name
    assert not torch.equal(kept["blocks.0.1.running_mean"], after["blocks.0.1.running_mean"])
    training.pst.staging.stage = 2
    training.pst._set_rates()
    assert training.model.blocks[1][0].weight.requires_grad and not training.model.blocks[0][0].weight.requires_grad


def test_what_the_user_froze_stays_frozen(data):
    model = Net()
    model.blocks[2].requires_grad_(False)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    pst = PST(model, optimizer, data, steps_per_epoch=5, probe=40, keep=[1, 4])
    for pst.staging.stage in (1, 2):
        pst._set_rates()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert (
        not any(name.startswith(("blocks.0", "blocks.2", "scale")) for name in learning)
        and "blocks.1.0.weight" in learning
    )


# Resuming


@pytest.mark.parametrize("after", [2, 4, 5, 7, 8, 9, 13])
def test_a_resumed_run_goes_on_as_if_nothing_had_been(data, after, tmp_path):
    """Interrupted before, at and after the snapshot and the roll-back, within epochs and between them."""
    settings = SCRIPTED | {"schedule": cosine, "rate": 0.5}
    undisturbed = Training(data, **settings)
    undisturbed.run()
    first = Training(data, **settings)
    first.run(until=after)
    torch.save(first.state(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    resumed = Training(data, **settings)
    stir(9)
    for name in ("pst", "model", "optimizer", "scheduler"):
        getattr(resumed, name).load_state_dict(state[name])
    resumed.model.calls.fill_(first.model.calls.item())  # outside the state_dict by its maker's wish
    resumed.run()
    assert same(everything(resumed), everything(undisturbed)) and resumed.pst.ticks == undisturbed.pst.ticks
    assert first.seen + resumed.seen == undisturbed.seen and resumed.pst.iterations == 19


def test_a_state_of_another_network_is_refused(data):
    training, other = Training(data), Training(data, groups=[["blocks.0", "blocks.1"], "blocks.2", "blocks.3", "head"])
    with pytest.raises(Fault, match=r"the state is of layer groups \['blocks.0', 'blocks.2'"):
        training.pst.load_state_dict(other.pst.state_dict())


# Looking changes nothing


@pytest.mark.parametrize("autocast", [False, True])
def test_looks_change_nothing(data, autocast):
    """A look after every step against none, with dropout, batch norm, one part in evaluation mode, all under one autocast."""
    ends = []
    for settings in ({"tick_steps": 1, "acm_trapped": 1.0, "dense_epochs": 9.0}, NEVER):
        training = Training(data, **settings)
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for _ in training.pst.epochs(2):
                training.model.train()
                training.model.blocks[1].eval()
                for _ in range(BATCHES):
                    images, labels = batch(data, training.pst.count)
                    training.optimizer.zero_grad()
                    scores = training.model(images)
                    assert scores.dtype == (torch.bfloat16 if autocast else torch.float32)
                    F.cross_entropy(scores.float(), labels).backward()
                    assert all(p.grad is not None for p in training.model.parameters())
                    training.optimizer.step()
                    if training.pst.step():
                        break
                assert training.model.training and not training.model.blocks[1][0].training
        ends.append((everything(training), torch.random.get_rng_state(), len(training.pst.ticks)))
    assert ends[0][2] == 11 and ends[1][2] == 1
    assert same(ends[0][:2], ends[1][:2])


def test_a_whole_run_under_autocast_and_compiled(data):
    """torch.compile around the model or a part of it: looks see the same activations, and frozen groups stay where they are."""
    stir(0)
    model = Net()
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager")
    model.blocks[1].compile(backend="aot_eager")
    optimizer = OPTIMIZERS["sgd"](compiled.parameters())
    pst = PST(compiled, optimizer, data, steps_per_epoch=2, probe=40, **EAGER | {"tick_steps": 2})
    compiled.eval()(data.tensors[0][:16])  # compiled before the first look
    expected = PST(plain, OPTIMIZERS["sgd"](plain.parameters()), data, steps_per_epoch=2, probe=40).measure()
    assert list(expected.acm) == GROUPS and pst.measure() == expected
    for epoch in pst.epochs(2):
        for _ in range(2):
            images, labels = batch(data, pst.count)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(compiled(images), labels)
            loss.backward()
            optimizer.step()
            if pst.step():
                break
        if pst.iterations == 2:
            frozen = model.blocks[0][0].weight.detach().clone(), model.head.weight.detach().clone()
    assert pst.stage == "stage 1" and pst.iterations == 6
    assert torch.equal(frozen[0], model.blocks[0][0].weight) and not torch.equal(frozen[1], model.head.weight)


def test_the_probe_set_is_drawn_evenly_and_by_the_seed(data):
    stir(3)
    one = Training(data).pst.probe
    assert one.labels.bincount().tolist() == [4] * 10 and one.reference.sum() == 20
    stir(4)
    assert same(vars(one), vars(Training(data).pst.probe)) and not same(
        vars(one), vars(Training(data, seed=1).pst.probe)
    )


def test_the_verdict(data):
    for acm, expected in ((HOT, True), (0.4, False)):
        assert Training(data, script={0: acm}).pst.trapped is expected


# Layer groups

FAMILIES = {
    "resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"],
    "vgg11_bn": [*(f"features.{k}" for k in (0, 4, 8, 15, 22)), "classifier"],
    "densenet121": ["features.conv0", *(f"features.denseblock{k}" for k in (1, 2, 3, 4)), "classifier"],
    "mobilenet_v3_small": [*(f"features.{k}" for k in (0, 1, 2, 4, 9)), "classifier"],
    "efficientnet_b0": [*(f"features.{k}" for k in (1, 2, 3, 4, 6)), "classifier"],
    "convnext_tiny": [*(f"features.{k}" for k in (1, 3, 5, 7)), "classifier"],
    "vit_b_16": [*(f"encoder.layers.encoder_layer_{k}" for k in (0, 3, 5, 7, 9)), "heads"],
}


def assert_partition(model, groups) -> None:
    owned = [id(p) for group in groups.values() for p in group.parameters]
    assert sorted(owned) == sorted(map(id, model.parameters())) and len(set(owned)) == len(owned)
    assert all(group.parameters for group in groups.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_torchvision(family):
    """A partition, in the order in which gradients and outputs come, with the first weight in front and the last at the end."""
    with torch.device("meta"):
        model = torchvision().models.get_model(
            family, num_classes=4, **{"image_size": 32} if family.startswith("vit") else {}
        )
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(0.01)
    groups = layer_groups(model, torch.zeros(2, 3, 32, 32))
    assert list(groups) == FAMILIES[family]
    assert_partition(model, groups)
    if family == "vit_b_16":
        assert all(
            any(p is token for p in groups["encoder.layers.encoder_layer_0"].parameters)
            for token in (model.class_token, model.encoder.pos_embedding)
        )
    else:
        parameters = [id(p) for group in groups.values() for p in group.parameters]
        assert parameters == [id(p) for p in model.parameters()]  # torchvision registers these in depth order
    returned = []
    for name, group in groups.items():
        group.output.register_forward_hook(lambda *_, name=name: returned.append(name))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    assert returned == list(groups)


def test_groups_follow_the_forward_pass_and_not_the_registration():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.second, self.first = nn.Linear(8, 2), nn.Conv2d(4, 8, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.last(self.second(self.first(x)).mean((2, 3)))

    groups = layer_groups(Backwards(), torch.zeros(2, 3, 8, 8))
    assert list(groups) == ["first", "second", "last"]


def test_wrappers_and_single_layers():
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    ]
    model = nn.Sequential(nn.Identity(), nn.Sequential(*layers))
    groups = layer_groups(model, torch.zeros(2, 3, 16, 16))
    assert list(groups) == ["1.0", "1.1", "1.3", "1.7"]
    assert [group.output for group in groups.values()] == [
        layers[0],
        layers[2],
        layers[4],
        layers[7],
    ]  # with the activation functions
    assert_partition(model, groups)


def test_groups_as_the_user_lists_them():
    model = Net()
    x = torch.zeros(2, 3, 32, 32)
    groups = layer_groups(
        model, x, {"low": [model.blocks[0], "blocks.1"], "high": ["blocks.2", "blocks.3"], "top": "head"}
    )
    assert [groups[name].output for name in ("low", "high", "top")] == [model.blocks[1], model.blocks[3], model.head]
    assert_partition(model, groups)
    assert any(p is model.scale for p in groups["low"].parameters)
    assert list(layer_groups(model, x, [["blocks.0", "blocks.1"], "blocks.2", model.blocks[3], "head"])) == [
        "blocks.0",
        "blocks.2",
        "blocks.3",
        "head",
    ]


@pytest.mark.parametrize(
    "groups, message",
    [
        (["blocks.0", "blocks.1", "blocks.2", "blocks.9", "head"], r"no module 'blocks.9'.*did you mean"),
        (["blocks.0", "blocks.1", "blocks.2", "head"], r"'blocks.3.0.weight' is in no layer group"),
        (
            ["blocks.1", "blocks.0", "blocks.2", "blocks.3", "head"],
            r"'blocks.0' returns before 'blocks.1'.*shallow to deep",
        ),
        (["blocks", "blocks.0", "head"], r"'blocks.0' is in 'blocks' and again in 'blocks.0'"),
        (["blocks", "head"], r"layer group 'blocks'.*'blocks' is called 0 times"),
        ([nn.Linear(1, 1), "head"], r"a Linear that is no part of the model"),
    ],
)
def test_groups_that_will_not_do(groups, message):
    with pytest.raises(Fault, match=message):
        layer_groups(Net(), torch.zeros(2, 3, 32, 32), groups)


def test_modules_that_are_shared_or_unused():
    class Odd(Net):
        def __init__(self, twice: bool):
            super().__init__()
            self.twice, self.aside = twice, None if twice else nn.Linear(2, 2)
            self.again = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return super().forward(self.again(self.again(x) if self.twice else x))

    x = torch.zeros(2, 3, 32, 32)
    with pytest.raises(Fault, match=r"'aside.weight' is in no layer group"):
        layer_groups(Odd(twice=False), x)
    assert (
        list(
            layer_groups(
                Odd(twice=False), x, ["again", "blocks.0", "blocks.1", "blocks.2", "blocks.3", ["aside", "head"]]
            )
        )[-1]
        == "aside"
    )
    with pytest.raises(Fault, match=r"'again' is called 2 times"):
        layer_groups(Odd(twice=True), x)
    with pytest.raises(Fault, match=r"no layer groups found in this Linear"):
        layer_groups(nn.Linear(3, 3), torch.zeros(2, 3))


# What is measured


def test_tokens_are_pooled_as_the_grid_they_are():
    grid = torch.arange(2 * 64 * 3.0).view(2, 64, 3)
    as_image = grid.mT.reshape(2, 3, 8, 8)
    alone = -torch.ones(2, 2, 3)
    assert torch.equal(probe.pooled(grid), probe.pooled(as_image))
    assert torch.equal(
        probe.pooled(torch.cat([alone, grid], 1)), torch.cat([alone.flatten(1), probe.pooled(as_image)], 1)
    )
    assert probe.pooled(torch.zeros(2, 99, 3)).shape == (2, 48)  # 9 x 9 and 18 more: no grid


def test_what_follows_in_place_does_not_reach_activations():
    labels = torch.arange(80) % 10
    images = labels.view(-1, 1, 1, 1) / 10 + 0.01 * torch.randn(
        80, 3, 32, 32, generator=torch.Generator().manual_seed(0)
    )
    stir(0)
    conv = nn.Conv2d(3, 4, 8, 8)  # 4 x 4 positions: nothing is pooled
    model = nn.Sequential(conv, nn.Threshold(1e9, 0.0, inplace=True), nn.Flatten(), nn.Linear(64, 10))
    reading = Probe(images, labels, torch.arange(80) < 40).measure(model, groups={"conv": conv})
    assert reading.acm["conv"] > 0.5  # of the zeros that follow it would be the share of one class, 0.1


def test_activations_that_cannot_be_measured(data):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows, self.head = nn.LSTM(96, 8, batch_first=True), nn.Linear(8, 10)

        def forward(self, x):
            return self.head(self.head.weight.new_zeros(len(x), 8) + self.rows(x.transpose(1, 2).flatten(2))[0][:, -1])

    model = Recurrent()
    found = Probe.of(data, 40, torch.Generator().manual_seed(0))
    with pytest.raises(Fault, match="'rows': its output is a tuple"):
        found.measure(model, groups={"rows": model.rows})
    assert not model.rows._forward_hooks
    with pytest.raises(Fault, match="'never' gave 0 activations for 40 images"):
        found.measure(model, groups={"never": nn.Identity()})


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
        (lambda data: {"keeps": [2]}, r"no setting 'keeps'.*did you mean 'keep'"),
        (lambda data: {"keep": [5]}, r"1 to 4 here, found \[5\]"),
        (lambda data: {"steps_per_epoch": 0}, r"must be 1 or more, found 0"),
        (lambda data: {"watch": "block2"}, r"'block2' is not a layer group.*blocks.0"),
    ],
)
def test_what_pst_refuses(data, change, message):
    model = Net()
    given = {"data": data, "steps_per_epoch": 5, "probe": 40} | change(data)

    def begin():
        next(PST(model, OPTIMIZERS["sgd"](model.parameters()), **given).epochs(1))

    if message is None:
        return begin()
    with pytest.raises(Fault, match=message):
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
    with pytest.raises(Fault, match="step.. outside an epoch"):
        training.pst.step()
    epochs = training.pst.epochs(2)
    next(epochs)
    for _ in range(3):
        training.pst.step()
    with pytest.raises(Fault, match="ended after 3 steps, steps_per_epoch is 5"):
        next(epochs)


# The docs

EXAMPLE = ROOT / "docs" / "examples" / "image_folder.py"


def added(page: str) -> list[str]:
    """The lines marked + in the page's example of PST."""
    block = next(block for block in (ROOT / page).read_text().split("```diff\n")[1:] if "relearn.pst" in block)
    return [line[1:].strip() for line in block.split("```")[0].splitlines() if line.startswith("+")]


def test_six_lines_of_the_example_are_those_of_the_pages():
    assert added("README.md") == added("docs/pst.md") and len(added("README.md")) <= 6
    code = EXAMPLE.read_text().split('"""')[2]
    lines = [line.strip() for line in code.splitlines()]
    first = lines.index(added("README.md")[0])
    position = first
    for line in added("README.md"):
        position = lines.index(line, position)
    own = [line for line in lines if "pst" in line.lower() and not line.startswith("print(f")]
    assert own == [line for line in added("README.md") if line != "break"]


def test_the_example_runs(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for label, colour in (("cat", 60), ("dog", 180)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for k in range(12):
            pixels = (colour + torch.randint(-40, 41, (20, 24, 3), generator=generator)).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "images" / label / f"{k}.png")
    # the example imports torchvision as its users do; where that fails beside a CPU build of torch, relearn.vision has mended it first
    script = "import runpy, sys; from relearn.vision import torchvision; torchvision(); runpy.run_path(sys.argv.pop(0) and sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", script, str(EXAMPLE), "images", "--size", "32", "--epochs", "2", "--batch", "8"]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["epoch 0", "epoch 1"] and lines[-1] in (
        "trapped",
        "not trapped",
    )
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert weights["fc.weight"].shape == (2, 512) and all(tensor.isfinite().all() for tensor in weights.values())
