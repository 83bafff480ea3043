"""PST as a library: datasets, models, optimizers and settings as people have them, and training that diverges."""

from types import SimpleNamespace

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.compare import same
from helpers.pst_loop import BATCHES, NEVER, OPTIMIZERS, SCRIPTED, Net, Training, batch, begin, drawn, refused

# Items and outputs


@pytest.mark.parametrize(
    "item",
    [
        lambda image, label, row: (image, label, row),
        lambda image, label, row: [image, label],
        lambda image, label, row: {"image": image, "label": label},
        lambda image, label, row: {"id": row, "pixel_values": image, "labels": torch.tensor(label)},
    ],
)
def test_items_of_common_kinds(data, item):
    other = [item(image, int(label), row) for row, (image, label) in enumerate(zip(*data.tensors, strict=True))]
    assert same(vars(drawn(other)), vars(drawn(data)))


@pytest.mark.parametrize(
    "item, found",
    [
        (lambda image: {"img": image, "y": 1}, "a dict of img, y"),
        (lambda image: image, "a Tensor"),
        (lambda image: (image,), "a tuple"),
        (lambda image: None, "a NoneType"),
    ],
)
def test_items_that_cannot_be_read(data, item, found):
    with refused(f"or have the keys image or pixel_values and label or labels, found {found}"):
        drawn([item(image) for image, _ in data])


class Wrapped(Net):
    """Returns what a library of its own kind returns."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        return self.form(super().forward(x))


@pytest.mark.parametrize("form", [lambda out: SimpleNamespace(logits=out, loss=None), lambda out: {"logits": out}])
def test_outputs_with_logits(data, form):
    model, plain = Wrapped(form), Net()
    plain.load_state_dict(model.state_dict())
    assert begin(data, model).measure() == begin(data, plain).measure()


def test_outputs_that_are_no_logits(data):
    with refused(r"the model returns a tuple, not logits"):
        begin(data, Wrapped(lambda out: (out, out)))
    with refused(r"the model returns a dict, not logits"):
        begin(data, Wrapped(lambda out: {"scores": out}))


# Models, optimizers, schedulers


class Prepared(torch.optim.Optimizer):
    """As accelerate wraps an optimizer: one of torch by its class, without the state of one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def zero_grad(self):
        self.optimizer.zero_grad()

    def step(self):
        self.optimizer.step()


def test_a_wrapped_optimizer_is_the_one_inside(data):
    ends = []
    for wrapped in (False, True):
        torch.manual_seed(0)
        model = Net()
        bare = OPTIMIZERS["sgd"](model.parameters())
        optimizer = Prepared(bare) if wrapped else bare
        scheduler = torch.optim.lr_scheduler.OneCycleLR(bare, 0.1, 15)
        pst = begin(data, model, optimizer, scheduler=scheduler, rate=0.5, early_rate=0.5)
        for _ in pst.epochs(1):
            for step in range(BATCHES):
                images, labels = batch(data, step)
                torch.manual_seed(step)
                optimizer.zero_grad()
                F.cross_entropy(model(images), labels).backward()
                optimizer.step()
                pst.step()
        ends.append(model.state_dict())
    assert same(*ends)


def test_a_data_parallel_model_is_the_one_inside(data):
    model = Net()
    assert list(begin(data, nn.DataParallel(model)).groups) == list(begin(data, model).groups)


def test_what_does_not_belong_together(data):
    model, other = Net(), Net()
    bare = OPTIMIZERS["sgd"](model.parameters())
    with refused(r"19 of the optimizer's 19 parameters are not of the model"):
        begin(data, model, OPTIMIZERS["sgd"](other.parameters()))
    with refused(r"1 of the optimizer's 20 parameters are not of the model"):
        begin(data, model, OPTIMIZERS["sgd"]([*model.parameters(), nn.Parameter(torch.zeros(1))]))
    with refused(r"the scheduler is of another optimizer"):
        scheduler = torch.optim.lr_scheduler.StepLR(OPTIMIZERS["sgd"](model.parameters()), 1)
        begin(data, model, bare, scheduler=scheduler)
    with refused(r"the scheduler needs state_dict and load_state_dict, found a function"):
        begin(data, model, bare, scheduler=lambda step: 0.1)
    with refused(r"the optimizer must be one of torch, found the class SGD"):
        begin(data, model, torch.optim.SGD)
    with refused(r"the model must be a torch module, found the class Net"):
        begin(data, Net, bare)
    with refused(r"this Flatten has no parameters"):
        begin(data, nn.Flatten(), bare)


# Settings


@pytest.mark.parametrize(
    "given, message",
    [
        ({"rate": -1}, r"rate: must be a number .*found -1"),
        ({"rate": float("nan")}, r"rate: must be a number .*found nan"),
        ({"rate": "0.5"}, r"rate: must be a number .*found '0.5'"),
        ({"rate": torch.rand(40, 40)}, r"rate: must be a number .*found tensor"),
        ({"early_rate": 0}, r"early_rate: must be a number above 0.*found 0"),
        ({"probe_size": -5}, r"probe_size: must be .*found -5"),
        ({"probe_size": 40.0}, r"probe_size: must be a whole number"),
        ({"steps_per_epoch": float("nan")}, r"steps_per_epoch: must be .*found nan"),
        ({"steps_per_epoch": True}, r"steps_per_epoch: .* found True"),
        ({"seed": -1}, r"seed: must be .*found -1"),
        ({"seed": 2**64}, r"seed: must be .*found 18446744073709551616"),
        ({"probe_steps": 0}, r"probe_steps: must be .*found 0"),
        ({"probes_per_epoch": 0}, r"probes_per_epoch: must be .*found 0"),
        ({"confirm": 0}, r"confirm: must be .*found 0"),
        ({"dense_epochs": float("inf")}, r"dense_epochs: must be .*found inf"),
        ({"max_snapshots": 0}, r"max_snapshots must be 1 or more, found 0"),
        ({"max_snapshots": 1.5}, r"max_snapshots: must be a whole number"),
        ({"full_rate_groups": 2}, r"full_rate_groups: must be a list, found 2"),
        ({"full_rate_groups": []}, r"full_rate_groups.*found \[\]"),
        ({"full_rate_groups": [0]}, r"full_rate_groups: must be .*found 0"),
        ({"kept_trapped": "x"}, r"kept_trapped: must be .*found 'x'"),
        ({"grey": 1.0}, r"no setting 'grey'; known: .*did you mean 'gray'"),
        ({"gray": 2.0}, r"gray: must be a number from 0 to 1, found 2.0"),
        ({"downsample": 2}, r"downsample is 2, which would change the size"),
        ({"staged_epochs": 3}, r"staged_epochs is 3, but in your own loop"),
        ({"groups": [["blocks.0", "head"]]}, r"groups: give two or more"),
    ],
)
def test_settings_are_checked(data, given, message):
    with refused(message):
        begin(data, **given)


def test_settings_as_numpy_and_tuples_give_them(data):
    pst = begin(data, steps_per_epoch=numpy.int64(7), rate=numpy.float32(0.5), full_rate_groups=(3, numpy.int64(2)))
    assert pst.steps_per_epoch == 7 and pst.staging.rate == 0.5 and pst.staging.full_rate_groups == (3, 2)


@pytest.mark.parametrize("epochs", [-1, 2.5, "3", None])
def test_a_number_of_epochs_that_is_none(data, epochs):
    with refused(r"epochs: must be .*found"):
        begin(data).epochs(epochs)


# Training that diverges


@pytest.mark.parametrize("at, settings", [(4, {"probe_steps": 4}), (BATCHES, NEVER)])
def test_the_first_probe_or_end_of_an_epoch_that_is_not_finite_stops_the_loop(data, at, settings):
    """Later than the step at which the weights broke, but before anything is made of them."""
    training = Training(data, schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 99), **settings)
    with refused(rf"diverged: after step {at} '.*' is not finite, at learning rate 0.1; choose a lower one"):
        for _ in training.pst.epochs(3):
            for _ in range(BATCHES):
                training.update()
                if training.step == 2:
                    training.model.head.weight.data[3, 1] = float("nan")
                if training.pst.step():
                    break
    assert training.step == at and [row["step"] for row in training.pst.probes] == [0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_verdict_on_weights_that_are_not_finite(data, value):
    pst = Training(data).pst
    assert pst.verdict is not None  # and cached
    pst.training.model.blocks[0][0].weight.data.fill_(value)
    for read in (pst.measure, lambda: pst.verdict, lambda: next(pst.epochs(1))):
        with refused(r"diverged: after step 0 'blocks.0.0.weight' is not finite"):
            read()


def test_no_verdict_on_outputs_that_are_not_finite(data):
    pst = Training(data).pst
    pst.training.model.blocks[2][1].running_mean.fill_(float("nan"))
    with refused(r"training has diverged"):
        pst.measure()


def test_a_diverged_epoch_after_the_last_stage(data):
    """There are no more probes then."""
    training = Training(data, **SCRIPTED)
    with refused(r"diverged: after step 10"):
        for _ in training.pst.epochs(3):
            for _ in range(BATCHES):
                training.update()
                if training.steps_taken == 12:
                    training.model.head.weight.data.fill_(float("inf"))
                if training.pst.step():
                    break
