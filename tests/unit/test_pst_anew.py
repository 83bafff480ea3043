"""Stages of PST that begin anew: plain training first, then augmented images, then pretrained shallow groups."""

import pytest
import torch

from helpers.compare import same
from helpers.images import drawn
from helpers.training import GROUPS, RECIPE, model_of, pretrained_of, probe_result, run_of
from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.methods.frozen_pretrained import FrozenPretrained
from relearn.methods.pst import PST
from relearn.probing.probe_set import ProbeSet
from relearn.runtime.seeding import Seeds
from relearn.training import fit, models

CLEAN, TRAPPED = 0.8, 0.1  # the share of accuracy kept
VIEW = {"gray": 1.0, "convolve": 0.5, "degrade": 0.5, "contrast": 0.2}
STAGED = {"pretraining": "p", "plain_first": True, "augmented_first": True, "full_rate_groups": [3], "confirm": 1}
STAGED |= {"staged_epochs": 2, "probe_steps": 2, "dense_epochs": 9.0, **VIEW}
EPOCH = 5  # steps


def trained(train, method, script: dict | None = None, pretrained: dict | None = None, **recipe) -> tuple:
    """A whole run, with what probes find by steps_taken if `script` says so, and the weights it ends with."""
    model = model_of(train).train()
    method.initialise(model, {}, pretrained or {})
    run = fit.Run(model, method, train, RECIPE | recipe, Seeds("test"), ProbeSet.draw(train, 40, drawn()))
    if script is not None:
        state = run.training
        state.measure = lambda: probe_result(script.get(state.steps_taken, CLEAN))
    run.take_probe()
    while run.training.step < run.training.steps:
        run.advance()
        if run.training.step % EPOCH == 0:
            run.end_epoch(train)
        if method.should_probe(run.training.step, EPOCH):
            run.take_probe()
    return run, models.weights(model)


def test_without_a_trap_it_is_plain_training(tiny):
    _, plain = trained(tiny, ERM())
    run, weights = trained(tiny, PST(**STAGED), {}, pretrained_of(tiny))
    assert same(weights, plain) and run.training.steps_taken == 3 * EPOCH


def test_the_first_stage_is_augmented_training_from_the_beginning(tiny):
    _, augmented = trained(tiny, ERM(**VIEW), epochs=2)
    run, weights = trained(tiny, PST(**STAGED), {4: TRAPPED}, pretrained_of(tiny))
    assert same(weights, augmented)
    assert run.training.stage == "stage 1" and run.training.steps_taken == 4 + 2 * EPOCH


def test_the_second_stage_has_the_pretrained_groups(tiny):
    pretrained = pretrained_of(tiny)
    _, frozen = trained(tiny, FrozenPretrained(pretraining="p", full_rate_groups=3, **VIEW), {}, pretrained, epochs=2)
    run, weights = trained(tiny, PST(**STAGED), {4: TRAPPED, 12: TRAPPED}, pretrained)
    assert same(weights, frozen) and run.training.stage == "stage 2"
    stopped = tuple(f"network.{name}." for name in GROUPS[:2])
    assert all(torch.equal(tensor, pretrained[name]) for name, tensor in weights.items() if name.startswith(stopped))
    assert [row["stage"] for row in run.history] == ["stage 2", "stage 2"]


def test_probes_end_with_the_last_stage(tiny):
    run, _ = trained(tiny, PST(**STAGED), {4: TRAPPED, 12: TRAPPED, 14: TRAPPED}, pretrained_of(tiny))
    assert run.training.stage == "stage 2" and max(row["steps_taken"] for row in run.training.probes) == 12


def test_images_outside_training_are_those_of_the_stage(tiny):
    x = torch.rand(4, 3, 8, 8, generator=drawn(1))
    method = PST(**STAGED)
    assert torch.equal(method.eval_transform(x), x)
    method.at_stage("stage 1")
    assert torch.equal(method.eval_transform(x), ERM(**VIEW).eval_transform(x))
    method.at_stage("early")
    assert torch.equal(method.eval_transform(x), x)


def test_without_plain_first_training_is_augmented_from_the_beginning(tiny):
    x = torch.rand(4, 3, 8, 8, generator=drawn(1))
    method = PST(gray=1.0)
    assert torch.equal(method.eval_transform(x), ERM(gray=1.0).eval_transform(x))


def test_the_batch_norm_of_stopped_groups_is_used_as_it_is(tiny):
    """In training, too, whatever mode the loop sets, and again that of the batch once the group learns."""
    run = run_of(tiny, FrozenPretrained(pretraining="p", full_rate_groups=3))
    norms = [m for m in run.groups["block1"].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    run.training.model.train()
    run.advance()
    assert not any(norm.training for norm in norms) and run.groups["block3"].training
    run.training.set_rates(dict.fromkeys(GROUPS, 1.0))
    run.advance()
    assert all(norm.training for norm in norms)


@pytest.mark.parametrize("settings", [{"augmented_first": True}, {"pretraining": "p"}])
def test_stages_that_begin_anew_need_a_snapshot(settings):
    with pytest.raises(UserError, match="go back to step 0, found max_snapshots: 0; give 1 or more"):
        PST(max_snapshots=0, **settings)


def test_a_size_that_would_change_half_way_is_refused():
    with pytest.raises(UserError, match="size of images cannot change half-way"):
        PST(plain_first=True, downsample=2)
