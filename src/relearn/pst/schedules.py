"""Learning rates and the scheduler at the steps of snapshots."""

import copy
from collections.abc import Iterable

import torch


class Schedules:
    """What the optimizer's rates and the scheduler were at each snapshot, as the update after it uses them.

    A scheduler steps with every batch, before `PST.step`, or with every epoch, before the next one begins. So the
    schedule of a step is that after `PST.step`, and where an epoch begins that at its beginning; and it is put back
    where the epoch of the roll-back begins. Neither needs an update: a gradient scaler may skip one.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scheduler):
        self.optimizer, self.scheduler = optimizer, scheduler
        self.stored: dict[int, dict] = {}  # by step
        self.pending = False  # whether the next epoch begins with a stored one

    def remember(self, step: int, snapshots: Iterable[int]) -> None:
        """Store the schedule of `step` if it is one of the steps of `snapshots`, and forget those that are none."""
        kept = set(snapshots)
        self.stored = {at: schedule for at, schedule in self.stored.items() if at in kept}
        if step in kept and not self.pending:
            self.stored[step] = copy.deepcopy(self._present())

    def begin_epoch(self, step: int, snapshots: Iterable[int]) -> None:
        """Put back the schedule of `step` after a roll-back, else remember it."""
        if self.pending:
            self._put_back(copy.deepcopy(self.stored[step]))
            self.pending = False
        self.remember(step, snapshots)

    def _present(self) -> dict:
        groups = [
            {name: value for name, value in group.items() if name != "params"} for group in self.optimizer.param_groups
        ]
        return {"optimizer": groups, "scheduler": self.scheduler.state_dict() if self.scheduler else None}

    def _put_back(self, schedule: dict) -> None:
        for group, saved in zip(self.optimizer.param_groups, schedule["optimizer"], strict=True):
            group.update(saved)
        if self.scheduler:
            self.scheduler.load_state_dict(schedule["scheduler"])
