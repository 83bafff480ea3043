"""PST in a loop of one's own: the roll-back, the schedule, the rates, and resuming."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from helpers.compare import same, stir
from helpers.pst_loop import BATCHES, CLEAN, EAGER, HOT, OPTIMIZERS, SCRIPT, SCRIPTED, Net, Training, batch, everything
from relearn import params
from relearn.training import augment, fit, models
from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.methods.pst import PST as Method
from relearn.probing.probe_set import ProbeSet
from relearn.pst import PST
from relearn.runtime.seeding import Seeds

# The schedule


def test_epochs_by_hand(data):
    training = Training(data, **SCRIPTED)
    # 5 steps; 3 steps, back from 8 to 4 in the middle of epoch 0; its one step left; epochs 1 and 2 whole
    assert training.run() == [0, 1, 0, 1, 2]
    assert [count for count, _ in training.seen] == [*range(8), *range(4, 15)]
    assert (training.pst.count, training.pst.steps_taken, training.pst.stage) == (15, 19, "stage 1")
    found = [
        (row["steps_taken"], row["step"], row["stage"], row["next_step"], row["next_stage"])
        for row in training.pst.probes
    ]
    assert found == [(0, 0, "early", 0, "early"), (4, 4, "early", 4, "early"), (8, 8, "early", 4, "stage 1")]


def test_without_a_trap_epochs_are_those_of_range(data):
    training = Training(data, script={}, probe_steps=4)
    assert training.run() == [0, 1, 2] and training.pst.steps_taken == 15 and training.pst.stage == "early"


RECIPE = {setting.name: setting.default for setting in params.schema(params.Recipe)}
RECIPE |= {"epochs": 3, "batch": 16, "warmup_steps": 2, "crop_pad": 2, "momentum": 0.0, "nesterov": False}


@pytest.mark.parametrize(
    "settings",
    [{"full_rate_groups": [3, 2], **EAGER}, {"full_rate_groups": [2], "rate": 0.5, **EAGER}, {"full_rate_groups": [2], "confirm": 2, "probe_steps": 3}],
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
    found = ProbeSet.draw(tiny, 40, torch.Generator().manual_seed(3))
    done = fit.fit(
        theirs, Method(**settings), tiny, tiny, RECIPE, Seeds("test"), probe=found, precision="float32", label="test"
    )
    pst = by_hand(ours)
    assert pst.probes == done.probes and pst.steps_taken == done.steps_taken == 15 + 4 * pst.staging.stage
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
    settings = SCRIPTED | {"script": SCRIPT | {12: HOT}, "full_rate_groups": [3, 1]}
    first, second = Training(data, "adamw", **settings), Training(data, "adamw", **settings)
    first.run(until=8)
    second.run(until=12)
    assert second.pst.stage == "stage 2" and second.pst.count == 4
    assert same(everything(first), everything(second))


def test_only_the_newest_snapshots_are_kept(data):
    training = Training(data, script=dict.fromkeys(range(99), CLEAN), probe_steps=1, dense_epochs=9.0, max_snapshots=2)
    training.run(until=4)
    assert [snapshot["count"] for snapshot in training.pst.kept] == [3, 4]


# Rates


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_rate_scales_the_update(data, optimizer):
    steps = []
    for rate in (1.0, 0.25):
        training = Training(data, optimizer, rate=rate, full_rate_groups=[2], script={})
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
    training = Training(data, full_rate_groups=[1, 4], **SCRIPTED | {"script": SCRIPT | {12: HOT}})
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
    pst = PST(model, optimizer, data, steps_per_epoch=5, probe=40, full_rate_groups=[1, 4])
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
    assert same(everything(resumed), everything(undisturbed)) and resumed.pst.probes == undisturbed.pst.probes
    assert first.seen + resumed.seen == undisturbed.seen and resumed.pst.steps_taken == 19


def test_a_state_of_another_network_is_refused(data):
    training, other = Training(data), Training(data, groups=[["blocks.0", "blocks.1"], "blocks.2", "blocks.3", "head"])
    with pytest.raises(UserError, match=r"the state is of layer groups \['blocks.0', 'blocks.2'"):
        training.pst.load_state_dict(other.pst.state_dict())
