"""PST as a library: the roll-back, the schedule, the rates, and resuming."""

import copy

import pytest
import torch
import torch.nn.functional as F

from helpers.compare import same, stir
from helpers.pst_loop import BATCHES, CLEAN, OPTIMIZERS, SCRIPT, SCRIPTED, TRAPPED, Net, Training, batch, everything
from relearn.errors import UserError
from relearn.pst import PST

# The schedule


def test_epochs_by_hand(data):
    training = Training(data, **SCRIPTED)
    # 5 steps; 3 steps, back from 8 to 4 in the middle of epoch 0; its one step left; epochs 1 and 2 whole
    assert training.run() == [0, 1, 0, 1, 2]
    assert [step for step, _ in training.updates] == [*range(8), *range(4, 15)]
    assert (training.step, training.steps_taken, training.pst.stage) == (15, 19, "stage 1")
    found = [
        (row["steps_taken"], row["step"], row["stage"], row["next_step"], row["next_stage"])
        for row in training.pst.probes
    ]
    assert found == [(0, 0, "early", 0, "early"), (4, 4, "early", 4, "early"), (8, 8, "early", 4, "stage 1")]


def test_without_a_trap_epochs_are_those_of_range(data):
    training = Training(data, script={}, probe_steps=4)
    assert training.run() == [0, 1, 2] and training.steps_taken == 15 and training.pst.stage == "early"


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
    expected = dict(undisturbed.updates)
    assert len(set(expected.values())) >= 3 and len(training.updates) == 19
    assert training.updates == [(step, expected[step]) for step, _ in training.updates]


def test_an_update_that_a_gradient_scaler_skips(data):
    """The first update of all, and the first after the roll-back: the schedule goes back, and ends in time."""
    training = Training(
        data, schedule=lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 15), **SCRIPTED
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    rates = []
    for _ in training.pst.epochs(3):
        for _ in range(BATCHES):
            images, labels = batch(data, training.step)
            training.optimizer.zero_grad()
            scaler.scale(F.cross_entropy(training.model.train()(images), labels)).backward()
            if training.steps_taken in (0, 8):
                training.model.head.weight.grad.fill_(float("inf"))
            rates.append((training.step, training.optimizer.param_groups[0]["lr"]))
            before = training.model.head.weight.detach().clone()
            scaler.step(training.optimizer)
            scaler.update()
            assert torch.equal(before, training.model.head.weight) == (training.steps_taken in (0, 8))
            training.scheduler.step()
            if training.pst.step():
                break
    assert [step for step, _ in rates] == [*range(8), *range(4, 15)] and len(dict(rates)) == 15
    assert len(set(rates)) == 15  # a step has one rate


def test_a_trainer_that_owns_its_epochs_is_told(data):
    """Three epochs of five steps, but of the second three, and back by four, and of the third one."""
    training = Training(data, **SCRIPTED)
    epochs = training.pst.epochs(3)
    for _ in range(3):
        next(epochs)
        for _ in range(BATCHES):
            training.update()
            if training.pst.step():
                break
    with pytest.warns(UserWarning, match=r"training ended at step 5 of 15.*go on until it ends"):
        epochs.close()
    assert training.run() == [1, 2] and training.step == 15


@pytest.mark.filterwarnings("error")
def test_leaving_without_a_roll_back_is_the_users_choice(data):
    training = Training(data, script={})
    for _ in training.pst.epochs(3):
        for _ in range(BATCHES):
            training.update()
            training.pst.step()
        break


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
    assert same(everything(again), before) and again.step == 4
    assert [p.requires_grad for p in again.model.blocks[2].parameters()] == [False] * 4
    assert again.model.head.weight.requires_grad


def test_a_snapshot_is_not_written_into(data):
    """Two roll-backs to one snapshot, training in between: the same bytes both times."""
    settings = SCRIPTED | {"script": SCRIPT | {12: TRAPPED}, "full_rate_groups": [3, 1]}
    first, second = Training(data, "adamw", **settings), Training(data, "adamw", **settings)
    first.run(until=8)
    second.run(until=12)
    assert second.pst.stage == "stage 2" and second.step == 4
    assert same(everything(first), everything(second))


def test_only_the_newest_snapshots_stay(data):
    training = Training(data, script=dict.fromkeys(range(99), CLEAN), probe_steps=1, dense_epochs=9.0, max_snapshots=2)
    training.run(until=4)
    assert [snapshot["step"] for snapshot in training.pst.staging.snapshots] == [3, 4]


# Rates


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_rate_scales_the_update(data, optimizer):
    steps = []
    for rate in (1.0, 0.25):
        training = Training(data, optimizer, rate=rate, full_rate_groups=[2], script={})
        training.pst.staging.stage = 1
        training.pst.training.set_rates(training.pst.staging.rates())
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
    training.pst.training.set_rates(training.pst.staging.rates())
    other = copy.deepcopy(training.model)
    deep = [*other.blocks[3].parameters(), *other.head.parameters()]
    shallow = [p for p in other.parameters() if all(p is not q for q in deep)]
    optimizer = OPTIMIZERS["sgd"]([{"params": deep}, {"params": shallow, "lr": 0.03}])
    scheduler = cosine(optimizer)
    training.run(epochs=1)
    for step in range(BATCHES):
        images, labels = batch(data, step)
        torch.manual_seed(step)
        optimizer.zero_grad()
        F.cross_entropy(other.train()(images), labels).backward()
        optimizer.step()
        scheduler.step()
    for (name, ours), theirs in zip(training.model.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5), name


def test_frozen_groups_keep_their_weights_and_thaw_again(data):
    training = Training(data, full_rate_groups=[1, 4], **SCRIPTED | {"script": SCRIPT | {12: TRAPPED}})
    training.run(until=8)
    before = everything(training)["tensors"]
    training.update()
    after = everything(training)["tensors"]
    for name, p in training.model.named_parameters():
        assert torch.equal(before[name], after[name]) != name.startswith("head"), name
        assert (p.grad is None) != name.startswith("head"), name
    assert not torch.equal(before["blocks.0.1.running_mean"], after["blocks.0.1.running_mean"])
    training.pst.staging.stage = 2
    training.pst.training.set_rates(training.pst.staging.rates())
    assert training.model.blocks[1][0].weight.requires_grad and not training.model.blocks[0][0].weight.requires_grad


def test_what_the_user_froze_stays_frozen(data):
    model = Net()
    model.blocks[2].requires_grad_(False)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    pst = PST(model, optimizer, data, steps_per_epoch=5, probe_size=40, full_rate_groups=[1, 4])
    for pst.staging.stage in (1, 2):
        pst.training.set_rates(pst.staging.rates())
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith(("blocks.0", "blocks.2", "scale")) for name in learning)
    assert "blocks.1.0.weight" in learning


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
    assert first.updates + resumed.updates == undisturbed.updates and resumed.steps_taken == 19


def test_a_roll_back_after_resuming_with_more_epochs(data):
    """Trainers with loops of their own plan by `steps`."""
    first, resumed = Training(data, **SCRIPTED), Training(data, **SCRIPTED)
    first.run(epochs=2, until=5)
    resumed.pst.load_state_dict(first.pst.state_dict())
    resumed.run(epochs=3)
    assert resumed.pst.probes[-1]["next_step"] == 4 and resumed.pst.probes[-1]["steps"] == 15
    assert resumed.pst.training.step == resumed.pst.training.steps == 15


def test_a_state_of_another_network_is_refused(data):
    training, other = Training(data), Training(data, groups=[["blocks.0", "blocks.1"], "blocks.2", "blocks.3", "head"])
    with pytest.raises(UserError, match=r"the state is of layer groups \['blocks.0', 'blocks.2'"):
        training.pst.load_state_dict(other.pst.state_dict())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: {}, r"no state of PST"),
        (lambda state: [1], r"no state of PST"),
        (lambda state: None, r"no state of PST"),
        (lambda state: state | {"staging": {}}, r"no state of PST"),
        (lambda state: state | {"staging": state["staging"] | {"snapshots": [3]}}, r"no state of PST"),
        (lambda state: state | {"restore_schedule": True}, r"no state of PST"),
        (lambda state: state | {"steps_per_epoch": 7}, r"of 7 steps an epoch, steps_per_epoch is 5"),
        (lambda state: state | {"staging": state["staging"] | {"stage": 2}}, r"in stage 2, these settings have 1"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(data, change, message):
    first, second = Training(data, **SCRIPTED), Training(data, **SCRIPTED)
    first.run(until=7)
    before = second.pst.state_dict()
    with pytest.raises(UserError, match=message) as caught:
        second.pst.load_state_dict(change(first.pst.state_dict()))
    assert "\n" not in str(caught.value) and same(before, second.pst.state_dict())


def test_a_state_of_a_wider_model_is_refused(data):
    wide = Net(width=8)
    pst = PST(wide, OPTIMIZERS["sgd"](wide.parameters()), data, steps_per_epoch=BATCHES, probe_size=40)
    next(pst.epochs(1))
    with pytest.raises(
        UserError, match=r"another model: 'blocks.0.0.weight' is \(8, 3, 3, 3\) there, \(4, 3, 3, 3\) here"
    ):
        Training(data).pst.load_state_dict(pst.state_dict())
