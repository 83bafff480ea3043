"""The training loop, once: epochs, batches, optimiser, precision, history, checkpoints. It looks nothing up by name."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from relearn import checkpoint, metrics, schedule
from relearn.augment import crop_and_flip, to_float
from relearn.data import Split
from relearn.probe import Probe, Reading, middle
from relearn.progress import Progress
from relearn.seeding import Seeds


@dataclass
class Fitted:
    """What training leaves: the history (a row per epoch), the ticks (a row per look), and the last reading of the probe."""

    history: list[dict]
    ticks: list[dict]
    reading: Reading
    embeddings: list[dict]  # a few probe images in a plane, after the first epoch and at the end
    struck: list[dict]  # rows of the history after a step that a method went back to
    iterations: int
    steps: int


class Run:
    """One training run: the state that moves on with every step, and what a method may do to it.

    `step` counts along the schedule and goes back on `restore`; `iterations` counts every optimiser step ever taken.
    """

    def __init__(self, model, method, train: Split, recipe: dict, seeds: Seeds, probe: Probe, precision: str):
        self.model, self.method, self.train, self.recipe, self.seeds, self.probe = (
            model,
            method,
            train,
            recipe,
            seeds,
            probe,
        )
        self.device = train.images.device
        self.precision = precision
        self.steps_per_epoch = max(1, len(train) // recipe["batch"])
        self.steps = self.steps_per_epoch * recipe["epochs"]
        self.step = self.iterations = 0
        self.stage = "early"
        self.history: list[dict] = []
        self.ticks: list[dict] = []
        self.embeddings: list[dict] = []
        self.struck: list[dict] = []
        self.sums = torch.zeros(2, device=self.device)  # loss and correct images since the epoch began
        self.optimiser = self._optimiser()
        self.rates: dict[str, float] = {}
        self.set_rates(method.rates(list(model.layer_groups())))
        self._read: tuple[int, Reading] | None = None
        self._order: tuple[int, torch.Tensor] | None = None

    def advance(self) -> None:
        """One optimiser step. Its batch and its augmentation depend on the step alone, so a restored run repeats them."""
        images, labels, generator = self._batch()
        x = self.method.augment(to_float(images), generator)
        factor = self._schedule()
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe["lr"] * factor * self.rates[group["name"]]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss, scores = self.method.loss(self.model, x, labels, generator)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.sums += torch.stack([loss.detach() * len(labels), (scores.argmax(1) == labels).sum()])
        self.step += 1
        self.iterations += 1

    def measure(self) -> Reading:
        """ACM per layer group and probe accuracy now; kept for the same iteration, so that two askers cost one pass."""
        if self._read is None or self._read[0] != self.iterations:
            self._read = (self.iterations, self.probe.measure(self.model, self.method.view))
        return self._read[1]

    def look(self) -> None:
        """Let the method look, and write down what there was to see."""
        reading, step, stage = self.measure(), self.step, self.stage
        self.method.on_tick(self)
        row = {"iterations": self.iterations, "step": step, "stage": stage, "probe_accuracy": reading.accuracy}
        row |= {f"acm_{name}": value for name, value in reading.acm.items()}
        row |= {"next_step": self.step, "next_stage": self.stage}
        self.ticks.append(row | {f"rate_{name}": rate for name, rate in self.rates.items()})

    def set_rates(self, rates: dict[str, float]) -> None:
        """Set the learning-rate multiplier per layer group; a group at 0 gets no gradient, which saves its backward pass."""
        self.rates = dict(rates)
        for group in self.optimiser.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(self.rates[group["name"]] > 0)
                if not parameter.requires_grad:
                    parameter.grad = None

    def clear_momentum(self) -> None:
        """Forget the optimiser's momentum."""
        self.optimiser.state.clear()

    def snapshot(self) -> dict:
        """A copy of all that training has changed: weights, buffers, momentum, rates, stage, step, and the epoch's sums."""
        state = self.optimiser.state
        return {
            "model": {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()},
            "momentum": {
                name: state[p]["momentum_buffer"].clone()
                for name, p in self.model.named_parameters()
                if state.get(p, {}).get("momentum_buffer") is not None
            },
            "sums": self.sums.clone(),
            "rates": dict(self.rates),
            "stage": self.stage,
            "step": self.step,
        }

    def restore(self, snapshot: dict) -> None:
        """Go back to a snapshot: every byte of it; rows of the history after it are struck out."""
        self.model.load_state_dict(snapshot["model"])
        self.optimiser.state.clear()
        parameters = dict(self.model.named_parameters())
        for name, buffer in snapshot["momentum"].items():
            self.optimiser.state[parameters[name]]["momentum_buffer"] = buffer.clone()
        self.sums = snapshot["sums"].clone()
        self.set_rates(snapshot["rates"])
        self.stage, self.step = snapshot["stage"], snapshot["step"]
        self.struck += [row for row in self.history if row["step"] > self.step]
        self.history = [row for row in self.history if row["step"] <= self.step]
        self.embeddings = [row for row in self.embeddings if row["epoch"] * self.steps_per_epoch <= self.step]
        self._read = None

    def end_epoch(self, test: Split) -> None:
        """Write the history's row; the only place where the device is waited for."""
        loss, correct = (self.sums / (self.steps_per_epoch * min(self.recipe["batch"], len(self.train)))).tolist()
        reading = self.measure()
        scores = metrics.logits(self.model, test.images, self.method.view)
        row = {
            "epoch": self.step // self.steps_per_epoch,
            "step": self.step,
            "iterations": self.iterations,
            "stage": self.stage,
            "train_loss": loss,
            "train_accuracy": 100 * correct,
            "test_accuracy": metrics.accuracy(scores, test.labels),
            "probe_accuracy": reading.accuracy,
        }
        row |= {f"acm_{name}": value for name, value in reading.acm.items()}
        self.history.append(row | {f"rate_{name}": rate for name, rate in self.rates.items()})
        self.sums = torch.zeros_like(self.sums)
        if self.step in (self.steps_per_epoch, self.steps):
            points = self.probe.embedding(self.model, self.method.view, middle(reading))
            self.embeddings += [{"epoch": row["epoch"], **point} for point in points]

    def state(self) -> dict:
        """The whole run, for a checkpoint."""
        own = {"iterations": self.iterations, "history": self.history, "ticks": self.ticks}
        own |= {"embeddings": self.embeddings, "struck": self.struck}
        return self.snapshot() | own | {"method": self.method.state()}

    def load_state(self, state: dict) -> None:
        """Go on from a checkpoint."""
        self.restore(state)
        self.iterations, self.history, self.ticks = state["iterations"], state["history"], state["ticks"]
        self.embeddings, self.struck = state["embeddings"], state["struck"]
        self.method.load_state(state["method"])

    def _batch(self):
        epoch, within = divmod(self.step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = torch.randperm(len(self.train), generator=self.seeds.generator("batches", epoch)).to(self.device)
            self._order = (epoch, order)
        batch = self.recipe["batch"]
        rows = self._order[1][within * batch : (within + 1) * batch]
        generator = self.seeds.generator("augment", self.step, device=self.device)
        return (
            crop_and_flip(self.train.images[rows], self.recipe["crop_pad"], self.recipe["flip"], generator),
            self.train.labels[rows],
            generator,
        )

    def _schedule(self) -> float:
        return schedule.factor(self.step, self.steps, self.recipe["warmup_steps"])

    def _optimiser(self) -> torch.optim.SGD:
        groups = [
            {"name": name, "params": list(module.parameters())} for name, module in self.model.layer_groups().items()
        ]
        r = self.recipe
        return torch.optim.SGD(
            groups, lr=r["lr"], momentum=r["momentum"], nesterov=r["nesterov"], weight_decay=r["weight_decay"]
        )


def fit(
    model,
    method,
    train: Split,
    test: Split,
    recipe: dict,
    seeds: Seeds,
    *,
    probe: Probe,
    precision: str,
    label: str,
    resume: Path | None = None,
    identity: str = "",
) -> Fitted:
    """Train `model` on `train` by `method`; both splits lie on the model's device.

    `recipe` holds the settings of `train:`. `test` is for monitoring alone: nothing is chosen by it. With `resume`, a
    checkpoint is kept at that path, taken up if it is there and of the same `identity` (a hash of all settings), and
    removed at the end.
    """
    train = train.with_images(method.prepare(train.images))
    model.train()
    run = Run(model, method, train, recipe, seeds, probe, precision)
    saved = checkpoint.load(resume, str(run.device)) if resume is not None and resume.exists() else {}
    if saved.get("identity") == identity:
        run.load_state(saved)
        print(f"{label}: goes on from step {run.step} of {run.steps}, {resume}", file=sys.stderr, flush=True)
    elif method.ticks(0, run.steps_per_epoch):
        run.look()
    with Progress(run.steps, label, run.step) as progress:
        while run.step < run.steps:
            run.advance()
            ended = run.step % run.steps_per_epoch == 0
            if ended:
                run.end_epoch(test)
                progress.to(run.step, test=f"{run.history[-1]['test_accuracy']:.1f} %", stage=run.stage)
            if method.ticks(run.step, run.steps_per_epoch):
                run.look()
            if ended and resume is not None and run.step // run.steps_per_epoch % recipe["checkpoint_epochs"] == 0:
                checkpoint.save(resume, run.state() | {"identity": identity})
    if resume is not None:
        resume.unlink(missing_ok=True)
    return Fitted(run.history, run.ticks, run.measure(), run.embeddings, run.struck, run.iterations, run.steps)
