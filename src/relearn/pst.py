"""Progressive Staged Training in a PyTorch loop of your own (docs/pst.md). Dang et al., 2023 (arXiv 2306.02064).

The method `pst` of the workflow shares its core: staging (relearn.training.staging), snapshots and learning rates
(relearn.training.state) and the measurement (relearn.probing).
"""

import copy
import dataclasses
from collections.abc import Iterator

import torch

from relearn.errors import UserError
from relearn.probing.layer_groups import GroupList, layer_groups
from relearn.probing.probe_set import ProbeResult, ProbeSet
from relearn.probing.verdict import Verdict, judge
from relearn.registry import suggest
from relearn.training.staging import Staging
from relearn.training.state import TrainingState

SETTINGS = {f.name: f.default for f in dataclasses.fields(Staging) if f.init and f.name != "groups"}


class PST:
    """Watches the training of `model` for the trap, goes back to before it, and goes on with shallow layers slowed.

    `data` is the training set under the transform of test time: it has a length, and its items are (image, label), a
    float tensor (C, H, W) as the model takes it and an int. About `probe_size` of its images, equally many of each
    class, are drawn with `seed`, stay in memory, and are measured by each probe. `steps_per_epoch` is the number of
    optimizer steps of an epoch, as a rule len(loader). `groups` lists the layer groups, in place of those that are
    found (relearn.probing.layer_groups). `settings` are those of relearn.training.staging.Staging:
    full_rate_groups, rate, confirm, ... The newest `max_snapshots` of weights, buffers and optimizer state stay on
    the model's device.

    `probes` has a row per probe. Raises UserError for settings, data or a model that will not do.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        data,
        *,
        steps_per_epoch: int,
        scheduler=None,
        groups: GroupList = None,
        probe_size: int = 2000,
        seed: int = 0,
        **settings,
    ):
        self.staging = _staging(settings)
        if steps_per_epoch < 1:
            raise UserError(f"pst: steps_per_epoch must be 1 or more, found {steps_per_epoch}; give len(loader)")
        model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped: its names, and the hooks it calls
        self.scheduler, self.steps_per_epoch = scheduler, steps_per_epoch
        probe_set = ProbeSet.from_dataset(data, probe_size, torch.Generator().manual_seed(seed))
        probe_set.images = probe_set.images.to(next(model.parameters()).dtype)
        self.groups = layer_groups(model, probe_set.images[:2], groups)
        _check_full_rate_groups(self.staging, len(self.groups))
        self.staging.groups = list(self.groups)
        self.training = TrainingState(model, optimizer, self.groups, probe_set, steps_per_epoch=steps_per_epoch)
        self.training.set_rates(self.staging.rates())
        self._in_epoch = False
        self._restore_schedule = False  # at the next update, after a roll-back
        self._schedules: dict[int, dict] = {}  # learning rates and scheduler by the step of their snapshot
        optimizer.register_step_pre_hook(self._before_update)

    def epochs(self, epochs: int) -> Iterator[int]:
        """What range(`epochs`) gives; after a roll-back the epoch gone back to again, from there to its end.

        Raises UserError when the loop over batches ended before `step` was True.
        """
        if not self.probes:
            self._take_probe()
        while self.training.step < epochs * self.steps_per_epoch:
            self._in_epoch, epoch = True, self.training.step // self.steps_per_epoch
            yield epoch
            if self._in_epoch:
                done = self.training.step - epoch * self.steps_per_epoch
                raise UserError(
                    f"pst: the loop over batches ended after {done} steps, "
                    f"steps_per_epoch is {self.steps_per_epoch}; give len(loader)"
                )

    def step(self) -> bool:
        """Register an optimizer step, probe if it is time; True when the epoch is over: leave the loop over batches.

        An epoch is over at its end or by a roll-back. Call it last for a batch, after a scheduler that steps with every
        batch. Raises UserError when called outside an epoch of `epochs`.
        """
        if not self._in_epoch:
            raise UserError(
                "pst: step() outside an epoch: loop `for epoch in pst.epochs(n)`, and over batches until `pst.step()` "
                "is True"
            )
        training = self.training
        training.step += 1
        training.steps_taken += 1
        rolled_back = self.staging.should_probe(training.step, self.steps_per_epoch) and self._take_probe()
        self._in_epoch = not rolled_back and training.step % self.steps_per_epoch > 0
        return not self._in_epoch

    @property
    def probes(self) -> list[dict]:
        """A row per probe: steps, stage, probe accuracy, ACM per layer group, and the rates from there on."""
        return self.training.probes

    @property
    def stage(self) -> str:
        """`early`, or `stage k`."""
        return self.staging.name

    @property
    def verdict(self) -> Verdict:
        """Whether the model as it stands is trapped, or that it cannot be told, and why; printed, it says both."""
        return judge(self.measure())

    def measure(self) -> ProbeResult:
        """ACM per layer group and probe accuracy now, by a forward pass over the probe set; cached until a step."""
        return self.training.measure()

    def state_dict(self) -> dict:
        """What a resumed run needs beside the states of model, optimizer and scheduler.

        `torch.load(weights_only=True)` reads it. It holds the snapshots, so it is as large as they are.
        """
        training = self.training
        return {
            "groups": list(self.groups),
            "staging": self.staging.state(),
            "step": training.step,
            "steps_taken": training.steps_taken,
            "probes": list(training.probes),
            "restore_schedule": self._restore_schedule,
            "schedules": copy.deepcopy(self._schedules),
        }

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` gave. Raises UserError when it is of other layer groups."""
        if state["groups"] != list(self.groups):
            raise UserError(f"pst: the state is of layer groups {state['groups']}, this model has {list(self.groups)}")
        training = self.training
        self.staging.load_state(state["staging"])
        training.step, training.steps_taken = state["step"], state["steps_taken"]
        training.probes, training.stage = list(state["probes"]), self.stage
        self._restore_schedule, self._schedules = state["restore_schedule"], copy.deepcopy(state["schedules"])
        training.set_rates(self.staging.rates())
        training.forget_measurement()

    def _take_probe(self) -> bool:
        rolled_back = self.training.take_probe(self.staging.respond)
        self._restore_schedule = self._restore_schedule or rolled_back
        return rolled_back

    def _before_update(self, *_) -> None:
        """Read or restore the schedule here, where an update uses it: a scheduler may step per batch or epoch."""
        step = self.training.step
        if self._restore_schedule:
            self._set_schedule(copy.deepcopy(self._schedules[step]))
            self._restore_schedule = False
            return
        stored = {snapshot["step"] for snapshot in self.staging.snapshots}
        self._schedules = {at: schedule for at, schedule in self._schedules.items() if at in stored and at != step}
        if step in stored:
            self._schedules[step] = copy.deepcopy(self._schedule())

    def _schedule(self) -> dict:
        groups = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.training.optimizer.param_groups
        ]
        return {"optimizer": groups, "scheduler": self.scheduler.state_dict() if self.scheduler else None}

    def _set_schedule(self, schedule: dict) -> None:
        for group, saved in zip(self.training.optimizer.param_groups, schedule["optimizer"], strict=True):
            group.update(saved)
        if self.scheduler:
            self.scheduler.load_state_dict(schedule["scheduler"])


def _staging(settings: dict) -> Staging:
    """The stages with these settings. Raises UserError for an unknown one, or for no snapshot to go back to."""
    for name in settings:
        if name not in SETTINGS:
            raise UserError(f"pst: no setting '{name}'; {suggest(name, SETTINGS)}")
    full_rate_groups = tuple(settings.get("full_rate_groups", SETTINGS["full_rate_groups"]))
    staging = Staging([], **settings | {"full_rate_groups": full_rate_groups})
    if staging.max_snapshots < 1:
        raise UserError(f"pst: max_snapshots must be 1 or more, found {staging.max_snapshots}")
    return staging


def _check_full_rate_groups(staging: Staging, groups: int) -> None:
    if not all(1 <= count < groups for count in staging.full_rate_groups):
        raise UserError(
            f"pst: full_rate_groups says how many of the deepest groups stay at the full rate, 1 to {groups - 1} here, "
            f"found {list(staging.full_rate_groups)}"
        )
