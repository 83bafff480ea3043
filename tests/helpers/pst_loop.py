"""A training loop with PST in it, as a user of the library writes it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.compare import stir
from helpers.training import ALWAYS_TRAPPED, probe_result
from relearn.errors import UserError
from relearn.probing.probe_set import ProbeSet
from relearn.pst import PST

BATCHES = 5  # of 16 images in an epoch
NEVER = {"probe_steps": 10**6, "dense_epochs": 1e6}
GROUPS = [*(f"blocks.{k}" for k in range(4)), "head"]
CLEAN, UNSURE, TRAPPED = 0.8, 0.5, 0.1  # the share of accuracy kept
SCRIPT = {0: CLEAN, 4: CLEAN, 8: TRAPPED}  # by steps_taken: a snapshot at step 4, and back to it from step 8
SCRIPTED = {"script": SCRIPT, "probe_steps": 4, "dense_epochs": 9.0, "confirm": 1}
EAGER = ALWAYS_TRAPPED | {"dense_epochs": 9.0, "probe_steps": 4}
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01, weight_decay=0.1),
}


class Net(nn.Module):
    """Four blocks and a head; with a token, a buffer outside its state_dict, and draws from the global generator."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        sizes = [3, width, width, 2 * width, 2 * width]
        pairs = zip(sizes, sizes[1:], strict=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)) for a, b in pairs
        )
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        x = x * self.scale
        for block in self.blocks:
            x = block(x)
        if self.training:
            self.calls += 1
        return self.head(self.drop(x).mean((2, 3)))


def batch(data, step: int):
    """The images and labels of a step."""
    rows = torch.randint(0, len(data), (16,), generator=torch.Generator().manual_seed(step))
    return data[rows]


class Training:
    """A loop whose batches and global draws depend on the step alone, so that what is restored repeats itself."""

    def __init__(self, data, optimizer: str = "sgd", schedule=None, script: dict | None = None, **settings):
        stir(0)
        self.data, self.model = data, Net()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler = schedule(self.optimizer) if schedule else None
        self.pst = PST(
            self.model,
            self.optimizer,
            data,
            steps_per_epoch=BATCHES,
            scheduler=self.scheduler,
            probe_size=40,
            **settings,
        )
        if script is not None:
            state = self.pst.training
            state.measure = lambda: probe_result(script.get(state.steps_taken, UNSURE), groups=GROUPS)
        self.updates: list[tuple[int, float]] = []  # (step, learning rate) of every update

    @property
    def step(self) -> int:
        """The position in the schedule."""
        return self.pst.training.step

    @property
    def steps_taken(self) -> int:
        """All steps ever taken."""
        return self.pst.training.steps_taken

    def update(self) -> None:
        """One step, without PST's."""
        images, labels = batch(self.data, self.step)
        torch.manual_seed(self.step)  # dropout
        self.model.train()
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.pst.view(images)), labels).backward()
        self.optimizer.step()
        self.updates.append((self.step, self.optimizer.param_groups[0]["lr"]))

    def run(self, epochs: int = 3, until: int = 10**6, per_epoch: bool = False) -> list[int]:
        """Train until so many steps_taken; the scheduler steps with every update or once an epoch."""
        ran = []
        for epoch in self.pst.epochs(epochs):
            ran.append(epoch)
            for _ in range(BATCHES):
                self.update()
                if self.scheduler and not per_epoch:
                    self.scheduler.step()
                left = self.pst.step()
                if self.steps_taken == until:
                    return ran
                if left:
                    break
            if per_epoch:
                self.scheduler.step()
        return ran

    def state(self) -> dict:
        """What a user saves to resume."""
        scheduler = self.scheduler.state_dict() if self.scheduler else {}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
            "pst": self.pst.state_dict(),
        }


def everything(training: Training) -> dict:
    """Copies of all that training changes."""
    tensors = {
        name: tensor.detach().clone()
        for name, tensor in (*training.model.named_parameters(), *training.model.named_buffers())
    }
    return {"tensors": tensors, "state": copy.deepcopy(training.optimizer.state_dict()["state"])}


def begin(data, model=None, optimizer=None, **given) -> PST:
    model = Net() if model is None else model
    optimizer = OPTIMIZERS["sgd"](model.parameters()) if optimizer is None else optimizer
    return PST(model, optimizer, data, **{"steps_per_epoch": BATCHES, "probe_size": 40} | given)


def refused(message: str):
    """A refusal in one line."""
    return pytest.raises(UserError, match=rf"^(?s:(?!.*\n).*){message}")


def drawn(dataset) -> ProbeSet:
    return ProbeSet.from_dataset(dataset, 40, torch.Generator().manual_seed(0))
