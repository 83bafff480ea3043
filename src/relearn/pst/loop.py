"""`PST`, which watches a training loop. It is the method `pst` of the workflow (relearn.methods.pst) around any loop.

They share stages and augmentation, snapshots and learning rates (relearn.training.state) and the measurement
(relearn.probing).
"""

import copy
import warnings
from collections.abc import Iterator, Mapping

import torch

from relearn.errors import NotFiniteError, UserError
from relearn.pretraining.two_views import TwoViews
from relearn.probing.items import IMAGES
from relearn.probing.layer_groups import GroupList, layer_groups
from relearn.probing.probe_set import ProbeResult, ProbeSet
from relearn.probing.verdict import Verdict, judge
from relearn.pst import arguments, saved
from relearn.pst.pretrain import Pretraining
from relearn.pst.processes import processes_of
from relearn.pst.schedules import Schedules
from relearn.pst.views import Normalisation, Views
from relearn.training.state import TrainingState, released


class PST:
    """Detects the trap in the training of `model`, goes back to before it, and continues with shallow layers slowed.

    `data` is the training set under the transform of test time: it has a length, and its items are (image, label), a
    float tensor (C, H, W) as the model takes it and a class number, or have the keys `image` and `label`
    (relearn.probing.items). The model returns logits (N, K), or an output with `logits`. About `probe_size` of the
    images, equally many of each class, are drawn with `seed`, stay in memory, and are measured by each probe.
    `steps_per_epoch` is the number of optimizer steps of an epoch: len(loader), or that divided by the number of
    batches whose gradients are accumulated. In DistributedDataParallel every process makes its own PST of the wrapped
    model, and all of them use the probes of the first. `groups` lists the layer groups, in place of those that are
    found (relearn.probing.layer_groups). `settings` are those of the method `pst`:
    full_rate_groups, rate, confirm, gray, ... The newest `max_snapshots` of weights, buffers and optimizer state stay
    on the model's device.

    With settings that change images, every batch passes through `view`; they need `mean` and `std`, three numbers
    each, by which `data` and batches are normalised. So does `pretraining`, such as relearn.pst.Contrastive(): the
    first stage that slows groups then begins with groups learned from at most `pretraining_images` of the images.

    `probes` has a row per probe. Raises UserError for settings, data or a model that will not do; later at the first
    probe or end of an epoch that finds weights or outputs which are not finite, as every reading does.
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
        mean=None,
        std=None,
        pretraining: TwoViews | None = None,
        pretraining_images: int = 50_000,
        **settings,
    ):
        arguments.check_pretraining(pretraining)
        self.method = arguments.method(settings, pretraining)
        self.staging = self.method.staging
        normalisation = arguments.normalisation(mean, std, settings, pretraining)
        self.steps_per_epoch = arguments.whole("steps_per_epoch", steps_per_epoch)
        seed = arguments.whole("seed", seed)
        generator = torch.Generator().manual_seed(seed)
        bare = arguments.bare_model(model)
        self._processes, model = processes_of(model), bare
        optimizer = arguments.bare_optimizer(optimizer, model)
        arguments.check_scheduler(scheduler, optimizer)
        arguments.check_learning(released(model), optimizer)
        probe_set = ProbeSet.from_dataset(data, arguments.whole("probe_size", probe_size), generator)
        if normalisation:
            normalisation.check(probe_set.images)
        probe_set.images = probe_set.images.to(next(model.parameters()).dtype)
        self.groups = layer_groups(model, probe_set.images[:2], groups)
        arguments.check_full_rate_groups(self.staging.full_rate_groups, len(self.groups))
        self._views = Views(self.method, normalisation, seed, self._processes.rank)
        self.training = TrainingState(
            model,
            optimizer,
            self.groups,
            probe_set,
            steps_per_epoch=self.steps_per_epoch,
            stop_statistics=self.method.stop_statistics,
            eval_transform=self._views.evaluation,
            keep_gradients=self._processes.several,
        )
        self.training.set_rates(self.method.rates(list(self.groups)))
        if pretraining and normalisation:
            most = arguments.whole("pretraining_images", pretraining_images)
            self._pretrain_with(pretraining, data, normalisation, most, seed)
        self.in_epoch = False
        self._calls = self._updates = 0  # of `step` and of the optimizer in this epoch
        optimizer.register_step_post_hook(self._count_update)
        self._schedules = Schedules(optimizer, scheduler)

    def epochs(self, epochs: int) -> Iterator[int]:
        """What range(`epochs`) gives; after a roll-back the epoch gone back to again, from there to its end.

        Raises UserError when the loop over batches ended before `step` was True. Warns when the loop over epochs ends
        before the schedule does, after a roll-back.
        """
        steps = arguments.whole("epochs", epochs) * self.steps_per_epoch
        self.training.steps = steps
        for snapshot in self.staging.snapshots:  # of a state that was saved in a training of another length
            snapshot["steps"] = steps
        return self._epochs(steps)

    def _epochs(self, steps: int) -> Iterator[int]:
        if not self.probes:
            self._take_probe()
        try:
            while self.training.step < steps:
                self._schedules.begin_epoch(self.training.step, self._snapshots())
                self.in_epoch, epoch = True, self.training.step // self.steps_per_epoch
                self._calls = self._updates = 0
                yield epoch
                if self.in_epoch:
                    done = self.training.step - epoch * self.steps_per_epoch
                    raise UserError(
                        f"pst: the loop over batches ended after {done} steps, "
                        f"steps_per_epoch is {self.steps_per_epoch}; give the optimizer steps of an epoch, len(loader)"
                    )
        except GeneratorExit:
            if self.training.step < min(steps, self.training.steps_taken):
                warnings.warn(
                    f"pst: training ended at step {self.training.step} of {steps}: after a roll-back pst.epochs() has "
                    "more epochs; go on until it ends",
                    stacklevel=2,
                )
            raise

    def step(self) -> bool:
        """Register an optimizer step, probe if it is time; True when the epoch is over: leave the loop over batches.

        An epoch is over at its end or by a roll-back. Call it last for a batch, after a scheduler that steps with every
        batch. Raises UserError when called outside an epoch of `epochs`, or when the training has diverged.
        """
        if not self.in_epoch:
            raise UserError(
                "pst: step() outside an epoch: loop `for epoch in pst.epochs(n)`, and over batches until `pst.step()` "
                "is True"
            )
        training = self.training
        training.step += 1
        training.steps_taken += 1
        self._calls += 1
        rolled_back = self.staging.should_probe(training.step, self.steps_per_epoch) and self._take_probe()
        self._schedules.pending = self._schedules.pending or rolled_back
        self._schedules.remember(training.step, self._snapshots())
        self.in_epoch = not rolled_back and training.step % self.steps_per_epoch > 0
        if not self.in_epoch:
            self._check_finite()
            if 0 < self._updates <= self._calls / 2:
                warnings.warn(
                    f"pst: step() was called {self._calls} times in an epoch in which the optimizer made "
                    f"{self._updates} steps; call it once after each of them, not after batches that only accumulate",
                    stacklevel=2,
                )
        return not self.in_epoch

    def view(self, images: torch.Tensor | Mapping) -> torch.Tensor | dict:
        """A batch (B, 3, H, W), normalised, as the network gets it at the present stage; normalised again.

        In training mode of the model it is augmented, with draws that depend on the seed and the step alone; in
        evaluation mode it is as test images are taken, in grayscale if `gray` is 1. Where no setting changes images it
        is the batch itself. Of a batch that is a mapping it gives a dict in which the images, called `image` or
        `pixel_values`, are so changed. Raises UserError for images that are not RGB, or a mapping without images.
        """
        training = self.training
        if isinstance(images, Mapping):
            name = next((name for name in IMAGES if name in images), None)
            if name is None:
                found = ", ".join(map(str, list(images)[:5]))
                raise UserError(f"pst: a batch has its images in {' or '.join(IMAGES)}, found {found}")
            return {**images, name: self.view(images[name])}
        if training.model.training:
            return self._views.training(images, training.step, training.steps_taken)
        return self._views.evaluation(images)

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
        """ACM per layer group and probe accuracy now, by a forward pass over the probe set.

        Raises UserError when weights or outputs are not finite.
        """
        self._check_finite()
        self.training.forget_measurement()  # the weights may have changed without a step
        return self.training.measure()

    def state_dict(self) -> dict:
        """What a resumed run needs beside the states of model, optimizer and scheduler.

        `torch.load(weights_only=True)` reads it. It holds the snapshots, so it is as large as they are.
        """
        training = self.training
        return {
            "groups": list(self.groups),
            "steps_per_epoch": self.steps_per_epoch,
            "staging": self.staging.state(),
            "step": training.step,
            "steps_taken": training.steps_taken,
            "probes": list(training.probes),
            "restore_schedule": self._schedules.pending,
            "schedules": copy.deepcopy(self._schedules.stored),
        }

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` gave. Raises UserError when it is of another model or another loop, or none."""
        here = {name: tuple(tensor.shape) for name, tensor in self.training.tensors()}
        saved.check(state, self.state_dict(), here, len(self.staging.learning))
        training, schedules = self.training, self._schedules
        self.staging.load_state(state["staging"])
        training.step, training.steps_taken = state["step"], state["steps_taken"]
        training.probes, training.stage = list(state["probes"]), self.stage
        schedules.pending, schedules.stored = state["restore_schedule"], copy.deepcopy(state["schedules"])
        training.set_rates(self.staging.rates())
        training.forget_measurement()
        self._views.forget()

    def _check_finite(self) -> None:
        """Raises NotFiniteError when a parameter is not finite."""
        for name, parameter in self.training.model.named_parameters():
            if not parameter.isfinite().all():
                rates = {float(group["lr"]) for group in self.training.optimizer.param_groups if "lr" in group}
                raise NotFiniteError(
                    f"pst: the training has diverged: after step {self.training.step} '{name}' is not finite, at "
                    f"learning rate {', '.join(f'{rate:g}' for rate in sorted(rates))}; choose a lower one"
                )

    def _count_update(self, *_) -> None:
        self._updates += 1

    def _take_probe(self) -> bool:
        self._check_finite()
        if self._processes.several:
            self.training.know(self._processes.agreed(self.training.measure))
        return self.training.take_probe(self.method.on_probe)

    def _pretrain_with(self, stage: TwoViews, data, normalisation: Normalisation, most: int, seed: int) -> None:
        """Let stages that slow groups begin with what `stage` learns from `data`."""
        images, processes = self.training.probe_set.images, self._processes
        self._pretraining = Pretraining(
            stage, self.training, data, images, normalisation=normalisation, most=most, seed=seed, processes=processes
        )
        self.staging.start = self._start

    def _start(self, model: torch.nn.Module) -> None:
        """Put pretrained weights into the groups that the present stage slows; the model is that of step 0."""
        self._pretraining.start(model, list(self.groups)[: -self.staging.learning[self.staging.stage - 1]])

    def _snapshots(self) -> list[int]:
        return [snapshot["step"] for snapshot in self.staging.snapshots]
