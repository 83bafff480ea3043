"""The training loop, once: epochs, batches, optimizer, history, checkpoints. It looks nothing up by name."""

# ruff: noqa: D102, the hooks of the protocol are described in relearn.methods.erm

import sys
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from relearn.data import Split, to_float
from relearn.errors import NotFiniteError
from relearn.probing import metrics
from relearn.probing.embedding import embed
from relearn.probing.layer_groups import Group
from relearn.probing.probe_set import ProbeSet
from relearn.probing.verdict import middle_group
from relearn.runtime import structures
from relearn.runtime.progress import ProgressBar
from relearn.runtime.seeding import Seeds
from relearn.training import checkpoint, optimizers, schedule
from relearn.training.augment import crop_and_flip
from relearn.training.batches import Batches
from relearn.training.divergence import FiniteGuard
from relearn.training.models import Normalised, check_batch
from relearn.training.recipe import check
from relearn.training.state import Fitted, TrainingState

WORSE_THAN_GUESSING = 10  # times the loss of guessing: a training that ends so has diverged


class Method(Protocol):
    """What the training loop asks of a method; `relearn.methods.erm.ERM` defines every hook and describes it."""

    stop_statistics: bool

    def rates(self, groups: list[str]) -> dict[str, float]: ...
    def augment(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor: ...
    def eval_transform(self, x: torch.Tensor) -> torch.Tensor: ...
    def probe_transform(self, x: torch.Tensor) -> torch.Tensor: ...
    def guessing(self, classes: int, batch: int) -> float: ...
    def loss(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator, criterion: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]: ...
    def hold_out(self, train: Split, generator: torch.Generator) -> Split: ...
    def on_epoch(self, training: TrainingState) -> None: ...
    def should_probe(self, step: int, steps_per_epoch: int) -> bool: ...
    def on_probe(self, training: TrainingState) -> None: ...
    def state(self) -> dict: ...
    def load_state(self, state: dict) -> None: ...


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
        label: str = "train",
        section: str = "train",
    ):
        self.method, self.train, self.recipe, self.seeds = method, train, recipe, seeds
        self.device = train.labels.device
        self.batches = Batches(train.images, self.device)
        steps_per_epoch = check(recipe, train, section)
        self.sums = torch.zeros(2, device=self.device)  # loss and correct images since the epoch began
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe["label_smoothing"])
        self.groups = model.layer_groups()
        self.training = TrainingState(
            model,
            optimizers.build(model, recipe),
            {name: Group(list(module.parameters()), module) for name, module in self.groups.items()},
            probe_set,
            steps_per_epoch=steps_per_epoch,
            steps=steps_per_epoch * recipe["epochs"],
            stop_statistics=method.stop_statistics,
            eval_transform=method.probe_transform,
            extra={"sums": self.sums},
        )
        self.training.set_rates(method.rates(list(self.groups)))
        self.guard = FiniteGuard(label, f"give a smaller {_divergent(section)} under {section}:")
        self.history: list[dict] = []
        self.embeddings: list[dict] = []
        self.rolled_back: list[dict] = []
        self._order: tuple[int, torch.Tensor, torch.Tensor] | None = None

    def advance(self) -> None:
        """One optimizer step. Batch and augmentation depend on the step alone, so a restored run repeats them."""
        training, optimizer = self.training, self.training.optimizer
        images, labels, generator = self._batch()
        optimizers.set_factor(optimizer, self._factor(training.step))
        optimizer.zero_grad(set_to_none=True)
        part = self.recipe["micro_batch"] or len(labels)
        for some, y in zip(images.split(part), labels.split(part), strict=True):
            x = self.method.augment(to_float(some), generator)
            loss, correct = self.method.loss(training.model, x, y, generator, self.criterion)
            self.guard.note(loss, "loss", self._place(training.step + 1))
            (loss * (len(y) / len(labels))).backward()
            # an image counts once, however many answers the loss has of it
            self.sums += torch.stack([loss.detach() * len(y), correct.sum() / (len(correct) / len(y))])
        optimizer.step()
        training.step += 1
        training.steps_taken += 1

    def take_probe(self) -> None:
        """Let the method act on a probe; a roll-back moves the rows of the history after it to `rolled_back`."""
        with self.guard.at(self._place(self.training.step)):
            returned = self.training.take_probe(self.method.on_probe)
        if returned:
            step, steps_per_epoch = self.training.step, self.training.steps_per_epoch
            self.rolled_back += [row for row in self.history if row["step"] > step]
            self.history = [row for row in self.history if row["step"] <= step]
            self.embeddings = [row for row in self.embeddings if row["epoch"] * steps_per_epoch <= step]

    def end_epoch(self, test: Split | None) -> None:
        """Write the history's row, if this epoch is tested; the only place where the device is waited for.

        Raises DivergedError when anything of the epoch, the weights or what they compute is not finite.
        """
        training, batch = self.training, self.recipe["batch"]
        place = self._place(training.step)
        loss, correct = (self.sums / (training.steps_per_epoch * batch)).tolist()
        self.guard.check_number(loss, "mean loss of the epoch", place)
        if training.step == training.steps:
            self._check_last_loss(loss)
        self.guard.check_weights(training.model, place)
        self.sums.zero_()
        epoch = training.step // training.steps_per_epoch
        with self.guard.at(place):
            self.method.on_epoch(training)
        if epoch > 1 and epoch % self.recipe["test_epochs"] and training.step < training.steps:
            return
        with self.guard.at(place):
            result = training.measure()
            tested = {} if test is None else {"test_accuracy": self._accuracy(test)}
        row = {
            "epoch": epoch,
            "step": training.step,
            "steps_taken": training.steps_taken,
            "stage": training.stage,
            "train_loss": loss,
            "train_accuracy": 100 * correct,
            **tested,
            "probe_accuracy": result.accuracy,
            "hidden_accuracy": result.hidden_accuracy,
        }
        row |= {f"acm_{name}": value for name, value in result.acm.items()}
        self.history.append(row | {f"rate_{name}": rate for name, rate in training.rates.items()})
        if training.step in (training.steps_per_epoch, training.steps):
            watch = middle_group(result)
            points = embed(training.probe_set, training.model, self.method.probe_transform, self.groups, watch)
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

    def _check_last_loss(self, loss: float) -> None:
        """Raise DivergedError for a training that ends far worse than guessing: so does one that nearly overflowed."""
        guessing = self.method.guessing(len(self.train.labels.unique()), self.recipe["batch"])
        if loss > WORSE_THAN_GUESSING * guessing:
            raise self.guard.error(f"the loss of the last epoch is {loss:.3g}, that of guessing is {guessing:.3g}")

    def _accuracy(self, test: Split) -> float:
        logits = metrics.logits(self.training.model, test.images, self.method.eval_transform)
        return metrics.accuracy(logits, test.labels)

    def _place(self, step: int) -> str:
        """The `step`-th step in words, with the highest learning rate of a layer group."""
        rate = self.recipe["lr"] * self._factor(max(0, step - 1)) * max(self.training.rates.values())
        return f"step {step} of {self.training.steps}, learning rate {rate:g}"

    def _factor(self, step: int) -> float:
        """The share of the learning rate at a step of the schedule."""
        return schedule.factor(step, self.training.steps, self.recipe["warmup_steps"], self.recipe["schedule"])

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
        step, batch = self.training.step, self.recipe["batch"]
        epoch, within = divmod(step, self.training.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = torch.randperm(len(self.train), generator=self.seeds.generator("batches", epoch))
            self._order = (epoch, order[: self.training.steps_per_epoch * batch], order.to(self.device))
        _, on_cpu, order = self._order
        begin = within * batch
        rows = order[begin : begin + batch]
        generator = self.seeds.generator("augment", step, device=str(self.device))
        here, following = on_cpu[begin : begin + batch], on_cpu[begin + batch : begin + 2 * batch]
        images = self.batches.take(step, here if self.batches.ahead else rows, following)
        images = crop_and_flip(images, self.recipe["crop_pad"], self.recipe["flip"], generator)
        return images, self.train.labels.index_select(0, rows), generator


def fit(
    model: Normalised,
    method: Method,
    train: Split,
    test: Split | None,
    recipe: dict,
    seeds: Seeds,
    *,
    probe_set: ProbeSet,
    label: str,
    section: str = "train",
    checkpoint_path: Path | None = None,
    settings_hash: str = "",
) -> Fitted:
    """Train `model` on `train` by `method`; both splits lie on the model's device.

    What a method changes once before training is changed already. `recipe` holds the settings of `train:`; messages
    name the `section` that they come from. `test` is for monitoring alone: nothing is chosen by it, and without it the
    history has no accuracy on test images. A checkpoint is kept at `checkpoint_path`, resumed if it exists and has the
    same `settings_hash`, and removed at the end. Raises DivergedError at the first loss that is not finite, and removes
    the checkpoint, which leads there again.
    """
    train = method.hold_out(train, seeds.generator("held out"))
    model.train()
    run = Run(model, method, train, recipe, seeds, probe_set, label, section)
    training, steps_per_epoch = run.training, run.training.steps_per_epoch
    shown = method.eval_transform(to_float(train.images[:1].to(run.device)))
    check_batch(model, shown, recipe["micro_batch"] or recipe["batch"], f"give a smaller batch under {section}:")
    saved = checkpoint.load(checkpoint_path, str(run.device)) if checkpoint_path and checkpoint_path.exists() else {}
    if checkpoint_path and saved.get("settings_hash") == settings_hash:
        with checkpoint.restoring(checkpoint_path):
            run.load_state_dict(structures.checked(checkpoint_path, saved, {"run": structures.RUN_STATE})["run"])
        print(
            f"{label}: resuming at step {training.step} of {training.steps}, {checkpoint_path}",
            file=sys.stderr,
            flush=True,
        )
    try:
        if not training.steps_taken and method.should_probe(0, steps_per_epoch):
            run.take_probe()
        _steps(run, test, label, checkpoint_path, settings_hash)
    except NotFiniteError:
        if checkpoint_path is not None:
            checkpoint_path.unlink(missing_ok=True)
        raise
    if checkpoint_path is not None:
        checkpoint_path.unlink(missing_ok=True)
    return Fitted(
        history=run.history,
        probes=training.probes,
        last_probe=training.measure(),
        embeddings=run.embeddings,
        rolled_back=run.rolled_back,
        steps_taken=training.steps_taken,
        steps=training.steps,
    )


def _steps(run: Run, test: Split | None, label: str, checkpoint_path: Path | None, settings_hash: str) -> None:
    """All steps that are left, with probes, the rows of the history, and checkpoints."""
    training, steps_per_epoch = run.training, run.training.steps_per_epoch
    with ProgressBar(training.steps, label, training.step) as progress:
        while training.step < training.steps:
            run.advance()
            ended = training.step % steps_per_epoch == 0
            if ended:
                run.end_epoch(test)
                last = run.history[-1] if run.history else {}
                tested = {"test": f"{last['test_accuracy']:.1f} %"} if "test_accuracy" in last else {}
                notes = tested | {"stage": training.stage}
                progress.total = training.steps  # a method may have set another
                progress.advance_to(training.step, **notes)
            if run.method.should_probe(training.step, steps_per_epoch):
                run.take_probe()
            if ended and checkpoint_path and training.step // steps_per_epoch % run.recipe["checkpoint_epochs"] == 0:
                checkpoint.save(checkpoint_path, {"run": run.state_dict(), "settings_hash": settings_hash})


def _divergent(section: str) -> str:
    """The settings of a section by which training can diverge."""
    return "lr" if section.startswith("pretraining.") else "lr or weight_decay"
