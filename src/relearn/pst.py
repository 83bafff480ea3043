"""Progressive Staged Training in a PyTorch loop of your own (docs/pst.md). Dang et al., 2023 (arXiv 2306.02064).

It shares its state machine (staging.py) and its measurement (probe.py) with the method `pst` of the workflow.
"""

import copy
import dataclasses
import itertools
from collections.abc import Iterator

import torch

from relearn import probe as probes
from relearn.errors import Fault
from relearn.groups import Listed, layer_groups
from relearn.probe import Probe, Reading
from relearn.registry import nearest
from relearn.staging import Staging

SETTINGS = {item.name: item.default for item in dataclasses.fields(Staging) if item.init and item.name != "groups"}


class PST:
    """Watches the training of `model` for the trap, goes back to before it, and goes on with the shallow layer groups slowed.

    `data` is the training set under the transform of test time: it has a length, and its items are (image, label), a
    float tensor (C, H, W) as the model takes it and an int. About `probe` of its images, equally many of each class, are
    drawn with `seed`, stay in memory, and are what looks measure. `steps_per_epoch` is the number of optimiser steps of
    an epoch, as a rule len(loader). `groups` are the layer groups, if those that are found do not please
    (relearn.groups). The newest `snapshots` of weights, buffers and optimiser state are kept on the model's device.
    `settings` are those of relearn.staging.Staging: watch, keep, rate, acm_trapped, ...

    `count` counts steps along the schedule and goes back with the model, `iterations` all steps ever taken; `ticks` has a
    row per look. Raises Fault for settings, data or a model that will not do.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        data,
        *,
        steps_per_epoch: int,
        scheduler=None,
        groups: Listed = None,
        probe: int = 2000,
        snapshots: int = 3,
        seed: int = 0,
        **settings,
    ):
        for name in settings:
            if name not in SETTINGS:
                raise Fault(f"pst: no setting '{name}'; {nearest(name, SETTINGS)}")
        if steps_per_epoch < 1 or snapshots < 1:
            raise Fault(
                f"pst: steps_per_epoch and snapshots must be 1 or more, found {steps_per_epoch} and {snapshots}"
            )
        self.model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped: its names, and the hooks it calls
        self.optimizer, self.scheduler = optimizer, scheduler
        self.steps_per_epoch, self.snapshots = steps_per_epoch, snapshots
        first = next(self.model.parameters())
        self.probe = Probe.of(data, probe, torch.Generator().manual_seed(seed))
        self.probe.images = self.probe.images.to(first.dtype)
        self.groups = layer_groups(self.model, self.probe.images[:2], groups)
        self.staging = Staging(list(self.groups), **settings | {"keep": tuple(settings.get("keep", SETTINGS["keep"]))})
        most = len(self.groups) - 1
        if not all(1 <= kept <= most for kept in self.staging.keep):
            raise Fault(
                f"pst: keep says how many of the deepest groups keep their rate, 1 to {most} here, found {list(self.staging.keep)}"
            )
        # parameters that the user has frozen stay so
        self.learning = {name: [p for p in group.parameters if p.requires_grad] for name, group in self.groups.items()}
        self.count = self.iterations = 0
        self.ticks: list[dict] = []
        self.kept: list[dict] = []  # snapshots, oldest first
        self._within = False  # an epoch
        self._gone_back = False  # and the schedule has not yet
        self._read: tuple[tuple[int, int], Reading] | None = None
        self._set_rates()
        optimizer.register_step_pre_hook(self._before_update)
        optimizer.register_step_post_hook(self._after_update)

    def epochs(self, epochs: int) -> Iterator[int]:
        """What range(`epochs`) gives, the epoch gone back to again after a roll-back, from there to its end.

        Raises Fault when the loop over batches ended before `step` was True.
        """
        if not self.ticks:
            self._look()
        while self.count < epochs * self.steps_per_epoch:
            self._within, epoch = True, self.count // self.steps_per_epoch
            yield epoch
            if self._within:
                done = self.count - epoch * self.steps_per_epoch
                raise Fault(
                    f"pst: the loop over batches ended after {done} steps, steps_per_epoch is {self.steps_per_epoch}; give len(loader)"
                )

    def step(self) -> bool:
        """Count an optimiser step and look if it is time; True when the epoch is over, also by a roll-back: leave the loop over batches.

        The last call for a batch, after a scheduler that steps with every batch. Raises Fault when called outside an epoch of `epochs`.
        """
        if not self._within:
            raise Fault(
                "pst: step() outside an epoch: loop `for epoch in pst.epochs(n)`, and over batches until `pst.step()` is True"
            )
        self.count += 1
        self.iterations += 1
        gone_back = self.staging.due(self.count, self.steps_per_epoch) and self._look()
        self._within = not gone_back and self.count % self.steps_per_epoch > 0
        return not self._within

    @property
    def stage(self) -> str:
        """`early`, or `stage k`."""
        return self.staging.name

    @property
    def trapped(self) -> bool:
        """Whether the model as it stands looks trapped, by the default thresholds at the middle group; a forward pass over the probe set."""
        reading = self.measure()
        return probes.trapped(reading, probes.middle(reading))

    def measure(self) -> Reading:
        """ACM per layer group and probe accuracy now; kept until the next step."""
        now = self.iterations, self.staging.stage
        if self._read is None or self._read[0] != now:
            device = next(self.model.parameters()).device.type
            outputs = {name: group.output for name, group in self.groups.items()}
            with torch.autocast(
                device, enabled=False
            ):  # under the user's, weights cast here would be kept without a gradient
                self._read = now, self.probe.measure(self.model, groups=outputs)
        return self._read[1]

    def state_dict(self) -> dict:
        """What a resumed run needs beside the states of model, optimiser and scheduler; torch.load(weights_only=True) reads it."""
        return {
            "groups": list(self.groups),
            "staging": self.staging.state(),
            "count": self.count,
            "iterations": self.iterations,
            "gone_back": self._gone_back,
            "ticks": list(self.ticks),
            "kept": [dict(snapshot) for snapshot in self.kept],
        }

    def load_state_dict(self, state: dict) -> None:
        """Take back what `state_dict` gave. Raises Fault when it is of other layer groups."""
        if state["groups"] != list(self.groups):
            raise Fault(f"pst: the state is of layer groups {state['groups']}, this model has {list(self.groups)}")
        self.staging.load_state(state["staging"])
        self.count, self.iterations, self._gone_back = state["count"], state["iterations"], state["gone_back"]
        self.ticks, self.kept = list(state["ticks"]), [dict(snapshot) for snapshot in state["kept"]]
        self._read = None
        self._set_rates()

    def _look(self) -> bool:
        reading, before = self.measure(), {"iterations": self.iterations, "step": self.count, "stage": self.stage}
        decision = self.staging.look(reading, self.count)
        if decision == "keep":
            self.kept = [*self.kept, self._snapshot()][-self.snapshots :]
        elif decision == "next":
            self._restore(self.kept[-1])
            self._set_rates()
        acm = {f"acm_{name}": value for name, value in reading.acm.items()}
        after = {"next_step": self.count, "next_stage": self.stage} | {
            f"rate_{name}": rate for name, rate in self.rates.items()
        }
        self.ticks.append(before | {"probe_accuracy": reading.accuracy} | acm | after)
        return decision == "next"

    def _tensors(self) -> dict[str, torch.Tensor]:
        return dict(itertools.chain(self.model.named_parameters(), self.model.named_buffers()))

    def _snapshot(self) -> dict:
        tensors = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        optimizer = copy.deepcopy(self.optimizer.state_dict())
        return {"count": self.count, "tensors": tensors, "optimizer": optimizer, "schedule": None}

    @torch.no_grad()
    def _restore(self, snapshot: dict) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(snapshot["tensors"][name])
        self.optimizer.load_state_dict(
            copy.deepcopy(snapshot["optimizer"])
        )  # it would go on writing into what it is given
        self.count, self._gone_back = snapshot["count"], True

    def _set_rates(self) -> None:
        self.rates = self.staging.rates()
        for name, parameters in self.learning.items():
            for parameter in parameters:
                parameter.requires_grad_(self.rates[name] > 0)
                if self.rates[name] == 0:
                    parameter.grad = None  # no gradient, so no update, no weight decay

    def _before_update(self, *_) -> None:
        """The schedule belongs to the update to come: read and put back here, a scheduler may step with every batch or epoch."""
        if self._gone_back:
            self._set_schedule(copy.deepcopy(self.kept[-1]["schedule"]))
            self._gone_back = False
        elif self.kept and self.kept[-1]["schedule"] is None:
            self.kept[-1]["schedule"] = copy.deepcopy(self._schedule())
        slowed = ((p, rate) for name, rate in self.rates.items() if rate not in (0, 1) for p in self.learning[name])
        self._slowed = [(parameter, parameter.detach().clone(), rate) for parameter, rate in slowed]

    @torch.no_grad()
    def _after_update(self, *_) -> None:
        """A rate scales the update itself, whatever the optimiser and its schedule made it."""
        for parameter, before, rate in self._slowed:
            parameter.copy_(torch.lerp(before, parameter, rate))
        self._slowed = []

    def _schedule(self) -> dict:
        groups = [
            {name: value for name, value in group.items() if name != "params"} for group in self.optimizer.param_groups
        ]
        return {"optimizer": groups, "scheduler": self.scheduler.state_dict() if self.scheduler else None}

    def _set_schedule(self, schedule: dict) -> None:
        for group, saved in zip(self.optimizer.param_groups, schedule["optimizer"]):
            group.update(saved)
        if self.scheduler:
            self.scheduler.load_state_dict(schedule["scheduler"])
