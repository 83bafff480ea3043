"""What a training run changes: weights, optimizer state and rates, copied and restored as one; probes; what it leaves.

The workflow's training loop (`fit`) and the library (`relearn.pst`) both build on `TrainingState`.
"""

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from relearn.probing.layer_groups import Group
from relearn.probing.probe_set import ProbeResult, ProbeSet
from relearn.probing.verdict import judge


def unchanged(x: torch.Tensor) -> torch.Tensor:
    """The batch as it is."""
    return x


def copy_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """A copy of parameters and buffers of `model`, and of the state of `optimizer`, as nested dicts."""
    tensors = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
    return {"model": tensors, "optimizer": copy.deepcopy(optimizer.state_dict())}


@torch.no_grad()
def load_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Put back what `copy_state` gave; `state` stays as it is."""
    for name, tensor in _tensors(model):
        tensor.copy_(state["model"][name])
    optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it would go on writing into what it is given


def released(model: nn.Module) -> list[nn.Parameter]:
    """End what earlier states of `model`, or of a part of it, hold back; the parameters that may learn again.

    A state that ends in a late stage leaves groups without gradients, and stops their batch norm.
    """
    hooks = (hook for module in model.modules() for hook in module._forward_pre_hooks.values())
    earlier = [getattr(hook, "__self__", None) for hook in hooks]
    found: list[nn.Parameter] = []
    for state in (state for state in earlier if isinstance(state, TrainingState)):
        held = [p for parameters in state.trainable.values() for p in parameters if not p.requires_grad]
        state.set_rates(dict.fromkeys(state.groups, 1.0))
        state.watch.remove()
        found += held
    return found


@dataclass
class Fitted:
    """What training leaves: the history (a row per tested epoch), the probes (a row each), and the last result.

    `embeddings` are a few probe images in a plane, after the first epoch and at the end. `rolled_back` are rows of the
    history after a step that a method went back to. `steps_taken` counts all steps, `steps` those of the schedule.
    """

    history: list[dict]
    probes: list[dict]
    last_probe: ProbeResult
    embeddings: list[dict]
    rolled_back: list[dict]
    steps_taken: int
    steps: int


class TrainingState:
    """A model in training: its optimizer, its layer groups with a learning-rate multiplier each, and its probes.

    `step` is the position in the schedule of `steps`, and goes back on `restore`; `steps_taken` counts every optimizer
    step ever taken; `probes` has a row per probe. `extra` are tensors beside the model's that snapshots cover too. With
    `stop_statistics` the batch norm of groups at rate 0 uses its statistics as they are, and leaves them so. With
    `keep_gradients` groups at rate 0 get gradients of 0, for DistributedDataParallel waits for one of each parameter
    that had one when it was made; their updates, which may be weight decay, are undone.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        groups: Mapping[str, Group],
        probe_set: ProbeSet,
        *,
        steps_per_epoch: int,
        steps: int = 0,
        stop_statistics: bool = False,
        eval_transform: Callable[[torch.Tensor], torch.Tensor] = unchanged,
        extra: Mapping[str, torch.Tensor] | None = None,
        keep_gradients: bool = False,
    ):
        self.model, self.optimizer, self.groups, self.probe_set = model, optimizer, dict(groups), probe_set
        self.steps_per_epoch, self.eval_transform, self.extra = steps_per_epoch, eval_transform, dict(extra or {})
        # parameters that are frozen before training stay so
        self.trainable = {name: [p for p in group.parameters if p.requires_grad] for name, group in groups.items()}
        self.rates = dict.fromkeys(self.groups, 1.0)
        self.stage = "early"
        self.step, self.steps, self.steps_taken = 0, steps, 0
        self.stop_statistics, self.keep_gradients = stop_statistics, keep_gradients
        self.probes: list[dict] = []
        self._result: tuple[int, ProbeResult] | None = None
        self._before_update: list[tuple[nn.Parameter, torch.Tensor, float]] = []
        optimizer.register_step_pre_hook(self._remember_slowed)
        optimizer.register_step_post_hook(self._slow_update)
        owners = {parameter: name for name, group in self.groups.items() for parameter in group.parameters}
        # batch norm without weights of its own belongs to no group, and goes on
        self._norms = {
            norm: owners[norm.weight]
            for norm in model.modules()
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.weight in owners
        }
        self.watch = model.register_forward_pre_hook(self._stop_statistics)
        if keep_gradients:
            for name, parameters in self.trainable.items():
                for parameter in parameters:
                    parameter.register_hook(lambda gradient, name=name: self._stop_gradient(gradient, name))

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Set the learning-rate multiplier of each layer group.

        At 0 the parameters get no gradient, so no update and no weight decay, and their backward pass is saved. A
        multiplier in between scales the update itself, whatever the optimizer and its schedule made it.
        """
        self.rates = dict(rates)
        if self.stop_statistics:
            for norm, name in self._norms.items():
                norm.train(self.model.training and self.rates[name] > 0)
        for name, parameters in self.trainable.items():
            for parameter in parameters:
                parameter.requires_grad_(self.rates[name] > 0 or self.keep_gradients)
                if self.rates[name] == 0:
                    parameter.grad = None

    def snapshot(self) -> dict:
        """A copy of what training has changed: weights, buffers, optimizer state, rates, stage, step, and `extra`."""
        extra = {name: tensor.clone() for name, tensor in self.extra.items()}
        place = {"rates": dict(self.rates), "stage": self.stage, "step": self.step, "steps": self.steps}
        return copy_state(self.model, self.optimizer) | {"extra": extra} | place

    def restore(self, snapshot: dict) -> None:
        """Go back to a snapshot, to every byte of it; `steps_taken` and `probes` stay."""
        load_state(self.model, self.optimizer, snapshot)
        for name, tensor in self.extra.items():
            tensor.copy_(snapshot["extra"][name])
        self.set_rates(snapshot["rates"])
        self.stage, self.step, self.steps = snapshot["stage"], snapshot["step"], snapshot["steps"]
        self.forget_measurement()

    def measure(self) -> ProbeResult:
        """ACM per layer group and probe accuracy of the model as it stands; measured once per optimizer step."""
        if self._result is None or self._result[0] != self.steps_taken:
            outputs = {name: group.output for name, group in self.groups.items()}
            device = next(self.model.parameters()).device.type
            with torch.autocast(device, enabled=False):  # under it, weights cast here would be kept without a gradient
                result = self.probe_set.measure(self.model, self.eval_transform, outputs)
            self._result = self.steps_taken, result
        return self._result[1]

    def take_probe(self, respond: Callable[["TrainingState"], None]) -> bool:
        """Measure, let `respond` act on it, and add a row to `probes`; True when `respond` went back to a snapshot."""
        result, step, stage = self.measure(), self.step, self.stage
        respond(self)
        row = {"steps_taken": self.steps_taken, "step": step, "stage": stage, "probe_accuracy": result.accuracy}
        found = judge(result)
        row |= {"hidden_accuracy": result.hidden_accuracy, "kept": found.kept, "verdict": found.answer}
        row |= {f"acm_{name}": value for name, value in result.acm.items()}
        row |= {"next_step": self.step, "next_stage": self.stage, "steps": self.steps}
        self.probes.append(row | {f"rate_{name}": rate for name, rate in self.rates.items()})
        return self.step < step

    def tensors(self) -> itertools.chain[tuple[str, torch.Tensor]]:
        """Parameters and buffers of the model by name: what a snapshot copies."""
        return _tensors(self.model)

    def know(self, result: ProbeResult) -> None:
        """Take `result` as what `measure` finds at this step."""
        self._result = self.steps_taken, result

    def forget_measurement(self) -> None:
        """Measure anew next time, since the weights have changed without an optimizer step."""
        self._result = None

    def state_dict(self) -> dict:
        """All of it, for a checkpoint."""
        return self.snapshot() | {"steps_taken": self.steps_taken, "probes": list(self.probes)}

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` gave."""
        self.restore(state)
        self.steps_taken, self.probes = state["steps_taken"], list(state["probes"])

    def _stop_statistics(self, *_) -> None:
        """Keep batch norm of stopped groups in evaluation mode, whatever mode the loop has set for the model."""
        if self.stop_statistics and self.model.training:
            for norm, name in self._norms.items():
                if self.rates[name] == 0:
                    norm.eval()

    def _stop_gradient(self, gradient: torch.Tensor, name: str) -> torch.Tensor:
        """Nothing of it where the group stands still, so that it counts in no norm either."""
        return gradient if self.rates[name] > 0 else torch.zeros_like(gradient)

    def _remember_slowed(self, *_) -> None:
        changed = {name: rate for name, rate in self.rates.items() if rate != 1 and (rate or self.keep_gradients)}
        slowed = ((parameter, rate) for name, rate in changed.items() for parameter in self.trainable[name])
        self._before_update = [(parameter, parameter.detach().clone(), rate) for parameter, rate in slowed]

    @torch.no_grad()
    def _slow_update(self, *_) -> None:
        for parameter, before, rate in self._before_update:
            parameter.copy_(torch.lerp(before, parameter, rate))
        self._before_update = []


def _tensors(model: nn.Module) -> itertools.chain[tuple[str, torch.Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())
