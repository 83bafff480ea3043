"""The method `pst` of the workflow and the library are one PST: the same probes, roll-backs and weights."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from helpers.compare import same
from helpers.images import drawn
from helpers.pst_loop import CLEAN, EAGER, TRAPPED, UNSURE
from helpers.training import GROUPS, RECIPE, model_of, probe_result, run_of
from relearn.data import to_float
from relearn.methods import pst as workflow
from relearn.probing.probe_set import ProbeResult, ProbeSet
from relearn.pst import PST, Contrastive
from relearn.runtime.seeding import Seeds
from relearn.training import fit, schedule
from relearn.training.state import TrainingState

STEPS, EPOCH = 15, 5  # of the recipe
SEEDS = Seeds("test")
MOMENTUM = [{"momentum": 0.0, "nesterov": False}, {"momentum": 0.9, "nesterov": True}]
# by steps_taken: a snapshot at step 4, then back to it from step 8, and once more from step 12
SCRIPT = {0: CLEAN, 4: CLEAN, 8: TRAPPED, 16: TRAPPED}


def by_the_workflow(
    train, settings: dict, momentum: dict, pretrained: dict | None = None, seeds=SEEDS
) -> tuple[fit.Fitted, dict]:
    """A run of the method, and the weights it ends with."""
    model, method = model_of(train), workflow.PST(**settings)
    method.initialise(model, {}, pretrained or {})
    done = fit.fit(
        model,
        method,
        train,
        train,
        RECIPE | momentum,
        seeds,
        probe_set=ProbeSet.draw(train, 40, drawn(3)),
        label="test",
    )
    return done, model.state_dict()


def by_the_library(train, settings: dict, momentum: dict, seeds=SEEDS) -> tuple[PST, dict]:
    """The library in a loop over the same batches, with torch's SGD and a scheduler, and the weights it ends with."""
    model, batches = model_of(train), run_of(train)
    batches.seeds = seeds
    optimizer = torch.optim.SGD(model.parameters(), RECIPE["lr"], weight_decay=RECIPE["weight_decay"], **momentum)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule.factor(step, STEPS, RECIPE["warmup_steps"])
    )
    pst = PST(
        model,
        optimizer,
        TensorDataset(to_float(train.images), train.labels),
        steps_per_epoch=EPOCH,
        scheduler=scheduler,
        groups=model.layer_groups(),
        probe_size=40,
        seed=3,
        **settings,
    )
    for _ in pst.epochs(STEPS // EPOCH):
        model.train()
        for _ in range(EPOCH):
            batches.training.step = pst.training.step
            images, labels, _ = batches._batch()
            optimizer.zero_grad()
            F.cross_entropy(model(pst.view(to_float(images))), labels).backward()
            optimizer.step()
            scheduler.step()
            if pst.step():
                break
    return pst, model.state_dict()


@pytest.mark.parametrize("momentum", MOMENTUM, ids=["plain", "momentum"])
@pytest.mark.parametrize(
    "settings",
    [
        {"full_rate_groups": [3, 2], **EAGER},
        {"full_rate_groups": [2], "rate": 0.5, **EAGER},
        {"full_rate_groups": [2], "early_rate": 0.5, **EAGER},
        {"full_rate_groups": [2], "confirm": 2, "probe_steps": 3},
    ],
)
@pytest.mark.usefixtures("decided_by_limit")
def test_measured_probes(settings, momentum, tiny):
    (done, theirs), (pst, ours) = by_the_workflow(tiny, settings, momentum), by_the_library(tiny, settings, momentum)
    assert pst.probes == done.probes
    assert pst.training.steps_taken == done.steps_taken == STEPS + 4 * pst.staging.stage
    assert same(ours, theirs)


@pytest.mark.parametrize("momentum", MOMENTUM, ids=["plain", "momentum"])
@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_scripted_probes(rate, momentum, tiny, monkeypatch):
    """Two roll-backs to one snapshot that was taken after the first steps, so momentum is part of it."""

    def measure(training: TrainingState) -> ProbeResult:
        return probe_result(SCRIPT.get(training.steps_taken, UNSURE))

    monkeypatch.setattr(TrainingState, "measure", measure)
    settings = {"full_rate_groups": [3, 1], "rate": rate, "probe_steps": 4, "dense_epochs": 9.0, "confirm": 1}
    (done, theirs), (pst, ours) = by_the_workflow(tiny, settings, momentum), by_the_library(tiny, settings, momentum)
    assert [(row["steps_taken"], row["step"], row["next_step"], row["next_stage"]) for row in pst.probes] == [
        (0, 0, 0, "early"),
        (4, 4, 4, "early"),
        (8, 8, 4, "stage 1"),
        (12, 8, 8, "stage 1"),
        (16, 12, 4, "stage 2"),
    ]
    assert pst.probes == done.probes and pst.training.steps_taken == done.steps_taken == STEPS + 4 + 8
    assert pst.training.rates == dict.fromkeys(GROUPS, rate) | {"head": 1.0}
    assert same(ours, theirs)


@pytest.mark.parametrize("plain_first", [False, True])
def test_augmented_images_and_pretrained_groups(plain_first, tiny, monkeypatch):
    """A stage of its own for each, and back to step 0 for both; images that are not normalised keep every bit."""

    def measure(training: TrainingState) -> ProbeResult:
        return probe_result({0: CLEAN, 4: TRAPPED, 8: TRAPPED}.get(training.steps_taken, UNSURE))

    monkeypatch.setattr(TrainingState, "measure", measure)
    monkeypatch.setattr(fit, "crop_and_flip", lambda images, *_: images)  # it is the user's, with draws of their own
    settings = {"full_rate_groups": [3], "augmented_first": True, "plain_first": plain_first, "confirm": 1}
    settings |= {"probe_steps": 4, "dense_epochs": 9.0, "gray": 1.0, "jitter": 0.3, "mix": 0.3, "convolve": 0.5}
    settings |= {"degrade": 0.5, "contrast": 0.2}
    how = {"mean": [0, 0, 0], "std": [1, 1, 1], "pretraining": Contrastive(epochs=1, batch=16)}
    seeds = Seeds("pst", 3)
    pst, ours = by_the_library(tiny, settings | how, MOMENTUM[1], seeds)
    pretrained = pst._pretraining.learned
    done, theirs = by_the_workflow(tiny, settings | {"pretraining": "contrastive"}, MOMENTUM[1], pretrained, seeds)
    assert [(row["steps_taken"], row["next_step"], row["next_stage"]) for row in pst.probes] == [
        (0, 0, "early"),
        (4, 0, "stage 1"),
        (8, 0, "stage 2"),
    ]
    assert pst.probes == done.probes and pst.training.steps_taken == done.steps_taken == STEPS + 4 + 4
    assert same(ours, theirs)
    fresh = model_of(tiny).state_dict()
    for name, tensor in ours.items():
        stopped = name.startswith(("network.block1.", "network.block2."))
        assert torch.equal(tensor, pretrained[name]) == (stopped or torch.equal(fresh[name], tensor)), name
