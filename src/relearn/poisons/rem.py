"""REM and SEM: error-minimising noise that holds out against a defender's own perturbation.

Fu et al., 2022, Robust Unlearnable Examples (arXiv 2203.14533), section 4; Liu et al., 2024, Stable Unlearnable Example
(arXiv 2311.13091), section 4.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.crafting.pgd import descend
from relearn.data import Split, levels
from relearn.registry import ArchitectureName, Levels, LinfBudget, Pad, PositiveInt, Radius, Seed, register
from relearn.training.augment import shift_and_flip
from relearn.training.state import copy_state, load_state


def _passes(inner_steps: Callable[[dict], int]) -> Callable[[dict, int], float]:
    """Passes per image when the defender inside each gradient step takes `inner_steps(settings)` steps."""

    def passes(s: dict, images: int) -> float:
        sweep = s["steps"] * s["samples"] * (inner_steps(s) + 1)
        return s["train_steps"] * min(s["batch"], images) / images * (sweep + s["attack_steps"] + 1) + sweep

    return passes


#: forward and backward passes per image, from settings and the number of images
PASSES = {"rem": _passes(lambda s: s["attack_steps"]), "sem": _passes(lambda s: 0)}


@register
def rem(
    train: Split,
    craft: CraftContext,
    *,
    arch: ArchitectureName = "resnet18",
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 1.6,
    steps: PositiveInt = 10,
    radius: Radius = 4.0,
    attack_step: Levels = 0.8,
    attack_steps: PositiveInt = 10,
    samples: PositiveInt = 5,
    train_steps: PositiveInt = 5000,
    decay: PositiveInt = 2000,
    batch: PositiveInt = 128,
    crop_pad: Pad = 4,
    flip: bool = True,
    seed: Seed = 0,
) -> Perturbation:
    """Sample-wise min-min-max noise, L-inf `epsilon` (1/255), against training in an L-inf ball of `radius` (1/255).

    Each of `train_steps` steps of the surrogate makes noise for one batch, from a random start, by `steps` signed steps
    of `step_size` (1/255); a gradient is summed over `samples` draws of crop and flip, each at the worst case that
    `attack_steps` steps of `attack_step` (1/255) find in the ball. Then the surrogate trains on such worst cases of the
    poisoned batch; its rate of 0.1 falls tenfold every `decay` steps. The noise of all images is made with the
    surrogate of the end.
    """
    robust = _Robust(train, craft, arch, seed, crop_pad, flip, radius, attack_step, attack_steps)
    return robust.craft_noise(
        train,
        train_steps,
        decay,
        batch,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        samples=samples,
        inner_steps=attack_steps,
    )


@register
def sem(
    train: Split,
    craft: CraftContext,
    *,
    arch: ArchitectureName = "resnet18",
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 1.6,
    steps: PositiveInt = 10,
    radius: Radius = 4.0,
    attack_step: Levels = 0.8,
    attack_steps: PositiveInt = 10,
    samples: PositiveInt = 5,
    train_steps: PositiveInt = 5000,
    decay: PositiveInt = 2000,
    batch: PositiveInt = 128,
    crop_pad: Pad = 4,
    flip: bool = True,
    seed: Seed = 0,
) -> Perturbation:
    """As `rem`, with a uniform draw from the ball of `radius` (1/255) in place of its worst case while noise is made.

    The surrogate still trains on worst cases, found by `attack_steps` steps of `attack_step`, as with the authors.
    """
    robust = _Robust(train, craft, arch, seed, crop_pad, flip, radius, attack_step, attack_steps)
    return robust.craft_noise(
        train,
        train_steps,
        decay,
        batch,
        epsilon=epsilon,
        step_size=step_size,
        steps=steps,
        samples=samples,
        inner_steps=0,
    )


class _Robust:
    """The adversarially trained surrogate of REM and SEM; images are (B, 3, H, W) float32 in 1/255."""

    def __init__(
        self,
        train: Split,
        craft: CraftContext,
        arch: str,
        seed: int,
        crop_pad: int,
        flip: bool,
        radius: float,
        attack_step: float,
        attack_steps: int,
    ):
        self.craft, self.seed, self.crop_pad, self.flip = craft, seed, crop_pad, flip
        self.radius, self.attack_step, self.attack_steps = radius, attack_step, attack_steps
        self.model = craft.model(arch, train, craft.generator("init", seed))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def craft_noise(
        self,
        train: Split,
        train_steps: int,
        decay: int,
        batch: int,
        *,
        epsilon: float,
        step_size: float,
        steps: int,
        samples: int,
        inner_steps: int,
    ) -> Perturbation:
        """Train the surrogate, then make the noise of all images."""

        def make_noise(x: torch.Tensor, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            return self.noise(
                x,
                y,
                generator,
                epsilon=epsilon,
                step_size=step_size,
                steps=steps,
                samples=samples,
                inner_steps=inner_steps,
            )

        def attack(x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return make_noise(x, y, self.craft.generator("final", self.seed, int(rows[0])))

        batch = min(batch, len(train))
        self._train(train, train_steps, decay, batch, make_noise)
        return Perturbation(self.craft.map_batches(train, batch, attack), Budget("linf", epsilon))

    def _train(
        self,
        train: Split,
        train_steps: int,
        decay: int,
        batch: int,
        make_noise: Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor],
    ) -> None:
        """Train the surrogate on worst cases of batches with the noise that `make_noise` gives them."""
        saved = self.craft.load_checkpoint("surrogate")
        begin = saved.get("step", 0)
        if begin:
            self.load_state(saved)
        images, labels = train.images.to(self.craft.device), train.labels.to(self.craft.device)
        per_epoch = len(train) // batch
        with self.craft.progress(train_steps, begin) as progress:
            for step in range(begin, train_steps):
                epoch, within = divmod(step, per_epoch)
                if within == 0 or step == begin:
                    order = torch.randperm(len(train), generator=self.craft.generator("order", self.seed, epoch))
                rows = order[within * batch : (within + 1) * batch].to(self.craft.device)
                x, y = levels(images[rows]), labels[rows]
                generator = self.craft.generator("iteration", self.seed, step)  # the name decides what is drawn
                noise = make_noise(x, y, generator)
                rate = self.optimizer.param_groups[0]["lr"] = 0.1 * 0.1 ** (step // decay)
                place = f"step {step + 1} of {train_steps}, rate {rate:g}"
                self.learn((x + noise).clamp(0, 255) / 255, y, generator, place)
                last = step + 1 == train_steps
                self.craft.save_checkpoint("surrogate", partial(self.state, step + 1), always=last)
                progress.advance_to(step + 1)

    def noise(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        generator: torch.Generator,
        *,
        epsilon: float,
        step_size: float,
        steps: int,
        samples: int,
        inner_steps: int,
    ) -> torch.Tensor:
        """Noise from a random start that lowers the loss under augmentation and a defender's perturbation.

        The defender takes `inner_steps` steps.
        """
        self.model.eval().requires_grad_(False)

        def loss(x: torch.Tensor) -> torch.Tensor:
            augmented = shift_and_flip(x, self.crop_pad, self.flip, generator)
            logits = self.model(self.perturbed(augmented, labels, generator, inner_steps))
            return F.cross_entropy(logits, labels, reduction="sum")

        start = _uniform(images, epsilon, generator)
        guard = self.craft.guard
        return descend([loss] * samples, images, start, epsilon=epsilon, step_size=step_size, steps=steps, guard=guard)

    def perturbed(
        self, augmented: torch.Tensor, labels: torch.Tensor, generator: torch.Generator, steps: int
    ) -> torch.Tensor:
        """Images in [0, 1] after `steps` steps up the loss from a random point of the ball.

        A gradient passes through to `augmented`, images in [0, 1], as if nothing was added.
        """
        images = augmented.detach() * 255

        def gain(x: torch.Tensor) -> torch.Tensor:
            return -F.cross_entropy(self.model(x), labels, reduction="sum")

        start = _uniform(images, self.radius, generator)
        guard = self.craft.guard
        delta = descend(
            [gain], images, start, epsilon=self.radius, step_size=self.attack_step, steps=steps, guard=guard
        )
        return augmented + ((images + delta).clamp(0, 255) / 255 - augmented).detach()

    def learn(self, poisoned: torch.Tensor, labels: torch.Tensor, generator: torch.Generator, place: str) -> None:
        """One step of the surrogate, at `place` in words, on worst cases of poisoned images in [0, 1], augmented."""
        self.model.eval().requires_grad_(False)
        augmented = shift_and_flip(poisoned, self.crop_pad, self.flip, generator)
        worst = self.perturbed(augmented, labels, generator, self.attack_steps)
        self.model.train().requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(worst), labels)
        self.craft.guard.note(loss, "loss of the surrogate", place)
        loss.backward()
        self.optimizer.step()

    def state(self, step: int) -> dict:
        """All that training has changed after `step` steps."""
        return copy_state(self.model, self.optimizer) | {"step": step}

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
        load_state(self.model, self.optimizer, state)


def _uniform(like: torch.Tensor, size: float, generator: torch.Generator) -> torch.Tensor:
    return ((torch.rand(like.shape, generator=generator) * 2 - 1) * size).to(like.device)
