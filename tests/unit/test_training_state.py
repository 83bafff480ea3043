"""The state of a training run: snapshots bit for bit, rates, probes and checkpoints."""

import copy

import pytest
import torch
import torch.nn.functional as F

from helpers.compare import same, stir
from helpers.pst_loop import OPTIMIZERS, Net, batch, everything
from relearn.probing.layer_groups import layer_groups
from relearn.probing.probe_set import ProbeSet
from relearn.training.state import TrainingState


class Loop:
    """Training of a small network with dropout, batch norm and a buffer outside its state_dict."""

    def __init__(self, data, optimizer: str = "adamw", **extra: torch.Tensor):
        stir(0)
        self.data, self.model = data, Net()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        groups = layer_groups(self.model, data.tensors[0][:2])
        probe_set = ProbeSet.from_dataset(data, 40, torch.Generator().manual_seed(0))
        self.state = TrainingState(self.model, self.optimizer, groups, probe_set, steps_per_epoch=5, extra=extra)

    def advance(self, steps: int = 1) -> None:
        for _ in range(steps):
            images, labels = batch(self.data, self.state.step)
            torch.manual_seed(self.state.step)  # dropout
            self.model.train()
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(images), labels).backward()
            self.optimizer.step()
            for tensor in self.state.extra.values():
                tensor += 1
            self.state.step += 1
            self.state.steps_taken += 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 3])
def test_a_restore_is_exact_to_the_last_bit(steps, optimizer, data):
    """Weights, buffers, the optimizer's state (Adam counts its steps too) and what the user names beside them."""
    sums = torch.tensor([0.25, 3.0])
    loop = Loop(data, optimizer, sums=sums)
    loop.advance(steps)
    loop.state.set_rates({name: 0.5 if name == "head" else 1.0 for name in loop.state.groups})
    loop.state.stage = "stage 1"
    snapshot, before = loop.state.snapshot(), everything(loop)
    stored = copy.deepcopy(snapshot)
    assert len(before["state"]) == (len(list(loop.model.parameters())) if steps else 0)
    ends = []
    for _ in range(2):
        loop.state.set_rates({name: float(name == "head") for name in loop.state.groups})
        loop.state.stage = "stage 2"
        loop.advance(4)
        ends.append(everything(loop))
        assert not same(ends[-1], before) and sums[1] == 3.0 + steps + 4
        loop.state.restore(snapshot)
        assert same(everything(loop), before) and same(sums, torch.tensor([0.25, 3.0]) + steps)
        assert same(snapshot, stored) and same(loop.state.snapshot(), stored)
        assert (loop.state.step, loop.state.stage, loop.state.rates["head"]) == (steps, "stage 1", 0.5)
        assert all(p.requires_grad for p in loop.model.parameters())
    assert same(*ends) and loop.state.steps_taken == steps + 8


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_of_0_a_half_and_1(optimizer, data):
    """At 0 a group stays put without a gradient, in between the update is scaled, at 1 it is the optimizer's own."""
    updates = {}
    for rate in (0.0, 0.5, 1.0):
        loop = Loop(data, optimizer)
        shallow = next(iter(loop.state.groups))
        owned = [id(p) for p in loop.state.groups[shallow].parameters]
        loop.advance()
        loop.state.set_rates(dict.fromkeys(loop.state.groups, 1.0) | {shallow: rate})
        before = [p.detach().clone() for p in loop.model.parameters()]
        loop.advance()
        pairs = list(zip(loop.model.parameters(), before, strict=True))
        updates[rate] = [p.detach() - old for p, old in pairs if id(p) in owned]
        others = [p.detach() for p, _ in pairs if id(p) not in owned]
        assert all((p.grad is None) == (rate == 0) for p, _ in pairs if id(p) in owned)
        assert all(p.grad is not None for p, _ in pairs if id(p) not in owned)
        # after one step from the same weights the other groups have moved alike
        updates.setdefault("others", others)
        assert same(others, updates["others"])
    assert not any(update.any() for update in updates[0.0])
    for half, whole in zip(updates[0.5], updates[1.0], strict=True):
        assert whole.any() and torch.allclose(half, 0.5 * whole, rtol=1e-5, atol=1e-7)


def test_all_at_rate_1_is_the_optimizer_alone(data):
    """Bit for bit: without slowed groups the hooks of the state change nothing."""
    loop, plain = Loop(data), Loop(data)
    plain.optimizer = OPTIMIZERS["adamw"](plain.model.parameters())  # one without the hooks
    for one in (loop, plain):
        one.advance(3)
    assert same(everything(loop), everything(plain))


def test_what_was_frozen_before_stays_frozen(data):
    stir(0)
    model = Net()
    model.blocks[1].requires_grad_(False)
    groups = layer_groups(model, data.tensors[0][:2])
    state = TrainingState(model, OPTIMIZERS["sgd"](model.parameters()), groups, None, steps_per_epoch=5)
    for rate in (0.0, 1.0):
        state.set_rates(dict.fromkeys(groups, rate))
    assert not any(p.requires_grad for p in model.blocks[1].parameters())
    assert all(p.requires_grad for p in model.blocks[0].parameters())


def test_a_row_per_probe(data):
    loop = Loop(data)
    loop.advance(2)
    snapshot = loop.state.snapshot()
    assert not loop.state.take_probe(lambda state: None)
    loop.advance(2)
    result = loop.state.measure()

    def respond(state: TrainingState) -> None:
        state.restore(snapshot)
        state.set_rates({name: float(name == "head") for name in state.groups})
        state.stage = "stage 1"

    assert loop.state.take_probe(respond)
    first, second = loop.state.probes
    names = list(loop.state.groups)
    assert list(second) == [
        *("steps_taken", "step", "stage", "probe_accuracy", "hidden_accuracy", "kept", "verdict"),
        *(f"acm_{name}" for name in names),
        *("next_step", "next_stage", "steps"),
        *(f"rate_{name}" for name in names),
    ]
    assert [first[key] for key in ("steps_taken", "step", "stage", "next_step", "next_stage")] == [
        *(2, 2, "early", 2, "early")
    ]
    assert [second[key] for key in ("steps_taken", "step", "stage", "next_step", "next_stage")] == [
        *(4, 4, "early", 2, "stage 1")
    ]
    assert second["probe_accuracy"] == result.accuracy and second["rate_blocks.0"] == 0 and second["rate_head"] == 1
    assert {name: second[f"acm_{name}"] for name in names} == result.acm
    # what is measured next is the restored model, as it was at the first probe
    assert loop.state.measure().acm == {name: first[f"acm_{name}"] for name in names}


def test_a_checkpoint_has_all_of_it(data):
    first, second = Loop(data, sums=torch.zeros(1)), Loop(data, sums=torch.zeros(1))
    first.advance(3)
    first.state.take_probe(lambda state: state.set_rates({name: float(name == "head") for name in state.groups}))
    first.state.stage = "stage 1"
    saved = copy.deepcopy(first.state.state_dict())
    second.state.load_state_dict(saved)
    assert same(second.state.state_dict(), saved)
    for loop in (first, second):
        loop.advance(3)
        loop.state.take_probe(lambda state: None)
    assert same(first.state.state_dict(), second.state.state_dict()) and second.state.steps_taken == 6
    assert same(everything(first), everything(second)) and len(second.state.probes) == 2
