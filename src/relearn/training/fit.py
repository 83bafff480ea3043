"""The training loop, once: epochs, batches, optimizer, precision, history, checkpoints. It looks nothing up by name."""

# ruff: noqa: D102, the hooks of the protocol are described in relearn.methods.erm

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from relearn.data import Split, to_float
from relearn.probing import metrics
from relearn.probing.embedding import embed
from relearn.probing.layer_groups import Group
from relearn.probing.probe_set import ProbeResult, ProbeSet
from relearn.probing.verdict import middle_group
from relearn.runtime import structures
from relearn.runtime.progress import ProgressBar
from relearn.runtime.seeding import Seeds
from relearn.training import checkpoint, schedule
from relearn.training.augment import crop_and_flip
from relearn.training.models import Normalised
from relearn.training.state import TrainingState


class Method(Protocol):
    """What the training loop asks of a method; `relearn.methods.erm.ERM` defines every hook and describes it."""

    def prepare(self, images: torch.Tensor) -> torch.Tensor: ...
    def rates(self, groups: list[str]) -> dict[str, float]: ...
    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor: ...
    def eval_transform(self, x: torch.Tensor) -> torch.Tensor: ...
    def loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]: ...
    def should_probe(self, step: int, steps_per_epoch: int) -> bool: ...
    def on_probe(self, training: TrainingState) -> None: ...
    def state(self) -> dict: ...
    def load_state(self, state: dict) -> None: ...


@dataclass
class Fitted:
    """What training leaves: the history (a row per epoch), the probes (a row each), and the result of the last probe.

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


class Run:
    """One training run. `training` is what a method may change; the rest is what the loop writes down."""

    def __init__(
        self,
        model: Normalised,
        method: Method,
        train: Split,
        recipe: dict,
        seeds: Seeds,
        probe_set: ProbeSet,
        precision: str,
    ):
        self.method, self.train, self.recipe, self.seeds, self.precision = method, train, recipe, seeds, precision
        self.device = train.images.device
        steps_per_epoch = max(1, len(train) // recipe["batch"])
        self.steps = steps_per_epoch * recipe["epochs"]
        self.sums = torch.zeros(2, device=self.device)  # loss and correct images since the epoch began
        self.groups = model.layer_groups()
        self.training = TrainingState(
            model,
            _sgd(model, recipe),
            {name: Group(list(module.parameters()), module) for name, module in self.groups.items()},
            probe_set,
            steps_per_epoch=steps_per_epoch,
            eval_transform=method.eval_transform,
            extra={"sums": self.sums},
        )
        self.training.set_rates(method.rates(list(self.groups)))
        self.history: list[dict] = []
        self.embeddings: list[dict] = []
        self.rolled_back: list[dict] = []
        self._order: tuple[int, torch.Tensor] | None = None

    def advance(self) -> None:
        """One optimizer step. Batch and augmentation depend on the step alone, so a restored run repeats them."""
        training, optimizer = self.training, self.training.optimizer
        images, labels, generator = self._batch()
        x = self.method.augment(to_float(images), generator)
        factor = schedule.factor(training.step, self.steps, self.recipe["warmup_steps"])
        for group in optimizer.param_groups:
            group["lr"] = self.recipe["lr"] * factor
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss, logits = self.method.loss(training.model, x, labels, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        self.sums += torch.stack([loss.detach() * len(labels), (logits.argmax(1) == labels).sum()])
        training.step += 1
        training.steps_taken += 1

    def take_probe(self) -> None:
        """Let the method act on a probe; a roll-back moves the rows of the history after it to `rolled_back`."""
        if self.training.take_probe(self.method.on_probe):
            step, steps_per_epoch = self.training.step, self.training.steps_per_epoch
            self.rolled_back += [row for row in self.history if row["step"] > step]
            self.history = [row for row in self.history if row["step"] <= step]
            self.embeddings = [row for row in self.embeddings if row["epoch"] * steps_per_epoch <= step]

    def end_epoch(self, test: Split) -> None:
        """Write the history's row; the only place where the device is waited for."""
        training, batch = self.training, min(self.recipe["batch"], len(self.train))
        loss, correct = (self.sums / (training.steps_per_epoch * batch)).tolist()
        result = training.measure()
        logits = metrics.logits(training.model, test.images, self.method.eval_transform)
        row = {
            "epoch": training.step // training.steps_per_epoch,
            "step": training.step,
            "steps_taken": training.steps_taken,
            "stage": training.stage,
            "train_loss": loss,
            "train_accuracy": 100 * correct,
            "test_accuracy": metrics.accuracy(logits, test.labels),
            "probe_accuracy": result.accuracy,
        }
        row |= {f"acm_{name}": value for name, value in result.acm.items()}
        self.history.append(row | {f"rate_{name}": rate for name, rate in training.rates.items()})
        self.sums.zero_()
        if training.step in (training.steps_per_epoch, self.steps):
            watch = middle_group(result)
            points = embed(training.probe_set, training.model, self.method.eval_transform, self.groups, watch)
            self.embeddings += [{"epoch": row["epoch"], **point} for point in points]

    def state_dict(self) -> dict:
        """The whole run, for a checkpoint."""
        rows = {"history": self.history, "embeddings": self.embeddings, "rolled_back": self.rolled_back}
        return rows | {"training": self.training.state_dict(), "method": self.method.state()}

    def load_state_dict(self, state: dict) -> None:
        """Resume from a checkpoint."""
        self.training.load_state_dict(state["training"])
        self.history, self.embeddings, self.rolled_back = state["history"], state["embeddings"], state["rolled_back"]
        self.method.load_state(state["method"])

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
        step, batch = self.training.step, self.recipe["batch"]
        epoch, within = divmod(step, self.training.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = torch.randperm(len(self.train), generator=self.seeds.generator("batches", epoch)).to(self.device)
            self._order = (epoch, order)
        rows = self._order[1][within * batch : (within + 1) * batch]
        generator = self.seeds.generator("augment", step, device=str(self.device))
        images = crop_and_flip(self.train.images[rows], self.recipe["crop_pad"], self.recipe["flip"], generator)
        return images, self.train.labels[rows], generator


def fit(
    model: Normalised,
    method: Method,
    train: Split,
    test: Split,
    recipe: dict,
    seeds: Seeds,
    *,
    probe_set: ProbeSet,
    precision: str,
    label: str,
    checkpoint_path: Path | None = None,
    settings_hash: str = "",
) -> Fitted:
    """Train `model` on `train` by `method`; both splits lie on the model's device.

    `recipe` holds the settings of `train:`. `test` is for monitoring alone: nothing is chosen by it. A checkpoint is
    kept at `checkpoint_path`, resumed if it exists and has the same `settings_hash`, and removed at the end.
    """
    train = train.with_images(method.prepare(train.images))
    model.train()
    run = Run(model, method, train, recipe, seeds, probe_set, precision)
    training, steps_per_epoch = run.training, run.training.steps_per_epoch
    saved = checkpoint.load(checkpoint_path, str(run.device)) if checkpoint_path and checkpoint_path.exists() else {}
    if saved.get("settings_hash") == settings_hash:
        with checkpoint.restoring(checkpoint_path):
            run.load_state_dict(structures.checked(checkpoint_path, saved, {"run": structures.RUN_STATE})["run"])
        print(
            f"{label}: resuming at step {training.step} of {run.steps}, {checkpoint_path}", file=sys.stderr, flush=True
        )
    elif method.should_probe(0, steps_per_epoch):
        run.take_probe()
    with ProgressBar(run.steps, label, training.step) as progress:
        while training.step < run.steps:
            run.advance()
            ended = training.step % steps_per_epoch == 0
            if ended:
                run.end_epoch(test)
                notes = {"test": f"{run.history[-1]['test_accuracy']:.1f} %", "stage": training.stage}
                progress.advance_to(training.step, **notes)
            if method.should_probe(training.step, steps_per_epoch):
                run.take_probe()
            if ended and checkpoint_path and training.step // steps_per_epoch % recipe["checkpoint_epochs"] == 0:
                checkpoint.save(checkpoint_path, {"run": run.state_dict(), "settings_hash": settings_hash})
    if checkpoint_path is not None:
        checkpoint_path.unlink(missing_ok=True)
    return Fitted(
        history=run.history,
        probes=training.probes,
        last_probe=training.measure(),
        embeddings=run.embeddings,
        rolled_back=run.rolled_back,
        steps_taken=training.steps_taken,
        steps=run.steps,
    )


def _sgd(model: Normalised, recipe: dict) -> torch.optim.SGD:
    return torch.optim.SGD(
        model.parameters(),
        lr=recipe["lr"],
        momentum=recipe["momentum"],
        nesterov=recipe["nesterov"],
        weight_decay=recipe["weight_decay"],
    )
