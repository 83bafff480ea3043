"""EM: error-minimising noise.

Huang et al., 2021, Unlearnable Examples (arXiv 2101.04898), sections 3.2 and 3.3.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.crafting.pgd import descend
from relearn.crafting.seen import SEEN
from relearn.data import Split, levels, subset
from relearn.registry import ArchitectureName, Fraction, Levels, LinfBudget, Pad, PositiveInt, Seed, register
from relearn.training.augment import shift_and_flip
from relearn.training.state import copy_state, load_state

RATE = 0.1  # the learning rate of the surrogate
GRADIENT_NORM = 5.0  # the authors clip the surrogate's gradient to this norm

#: forward and backward passes per image at most, from settings and the number of images
PASSES = {
    "em": lambda s, images: s["rounds"] * (s["steps"] + s["batches"] * s["batch"] / images),
    "em_classwise": lambda s, images: (
        s["rounds"] * (s["share"] * s["steps"] + s["batches"] * min(s["batch"], s["share"] * images) / images)
    ),
}


@register
def em(
    train: Split,
    craft: CraftContext,
    *,
    arch: ArchitectureName = "resnet18",
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 0.8,
    steps: PositiveInt = 20,
    rounds: PositiveInt = 10,
    batches: PositiveInt = 10,
    batch: PositiveInt = 512,
    stop_error: Fraction | None = 0.01,
    crop_pad: Pad = 0,
    flip: bool = False,
    through: Literal["crops", "gray", "views", "coarse", "jpeg"] = "crops",
    rounding: Literal["half_up", "truncate", "em_legacy"] = "half_up",
    seed: Seed = 0,
) -> Perturbation:
    """Sample-wise min-min noise, L-inf `epsilon` (1/255).

    A round trains the surrogate on `batches` mini-batches of poisoned images, then lowers the surrogate's loss by
    `steps` signed gradient steps of `step_size` (1/255) of every perturbation. Rounds end when the surrogate's error on
    the poisoned images is at most `stop_error` (null: never), at the latest after `rounds`.

    As with the authors, all rounds use one order, and the images that train the surrogate are not clipped. The authors
    augment nothing. With `crop_pad` and `flip` the surrogate trains as a victim does, with one draw per batch.
    `through` lets it see the crops in grayscale, by the views of contrastive learning (the idea of AUE; Wang et al.,
    2024, arXiv 2402.04010), at half the resolution, or quantised as by JPEG, with one draw per image. `rounding:
    em_legacy` publishes the images as the authors' loader does: without negative noise.
    """
    surrogate = _Surrogate(train, craft, arch, seed, crop_pad, flip, through)
    images, labels = craft.on_device(train)
    delta = torch.zeros_like(images)
    # drawn once: the authors take the order of the files, but the files of a folder come class by class
    order = torch.randperm(len(train), generator=craft.generator("order", seed)).to(craft.device).split(batch)
    saved = craft.load_checkpoint("em")
    begin = saved.get("round", 0)
    if begin:
        delta = saved["delta"].contiguous(memory_format=torch.channels_last)
        surrogate.load_state(saved["surrogate"])

    def state(rounds_done: int) -> dict:
        return {"round": rounds_done, "delta": delta, "surrogate": surrogate.state()}

    with craft.progress(rounds * len(order), begin * len(order)) as progress:
        for number in range(begin, rounds):
            for k in range(number * batches, (number + 1) * batches):
                rows = order[k % len(order)]
                surrogate.learn(images[rows] + delta[rows], labels[rows])
            wrong = torch.zeros((), device=craft.device)
            for k, rows in enumerate(order, 1):
                delta[rows] = surrogate.descend(
                    images[rows], delta[rows], labels[rows], epsilon=epsilon, step_size=step_size, steps=steps
                )
                wrong += surrogate.wrong(images[rows] + delta[rows], labels[rows])
                progress.advance_to(number * len(order) + k)
            if stop_error is not None and wrong / len(train) <= stop_error:
                break
            craft.save_checkpoint("em", partial(state, number + 1))
    return Perturbation(delta.permute(0, 2, 3, 1).contiguous().cpu(), Budget("linf", epsilon), rounding=rounding)


@register
def em_classwise(
    train: Split,
    craft: CraftContext,
    *,
    arch: ArchitectureName = "resnet18",
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 0.8,
    steps: PositiveInt = 1,
    rounds: PositiveInt = 40,
    batches: PositiveInt = 10,
    batch: PositiveInt = 512,
    share: Fraction = 0.2,
    stop_error: Fraction | None = 0.01,
    crop_pad: Pad = 0,
    flip: bool = False,
    rounding: Literal["half_up", "truncate", "em_legacy"] = "half_up",
    seed: Seed = 0,
) -> Perturbation:
    """Class-wise min-min noise, L-inf `epsilon` (1/255): one perturbation per class, found on a share of the images.

    As `em`, but on a stratified `share` of the images: in each batch `steps` are computed for every image from the
    noise of its class, and the noise of the class becomes their mean. The authors give no limit on the rounds.
    `crop_pad` and `flip` as for `em`.
    """
    surrogate = _Surrogate(train, craft, arch, seed, crop_pad, flip)
    per_class = max(1, int(share * int(train.labels.unique(return_counts=True)[1].min())))
    part = subset(train, per_class, craft.generator("subset", seed))
    images, labels = levels(part.images.to(craft.device)), part.labels.to(craft.device)
    noise = torch.zeros(craft.classes, *images.shape[1:], device=craft.device)
    size = min(batch, len(part))
    sweeps = len(part) // size
    saved = craft.load_checkpoint("em_classwise")
    begin = saved.get("round", 0)
    if begin:
        noise = saved["noise"]
        surrogate.load_state(saved["surrogate"])

    def state(rounds_done: int) -> dict:
        return {"round": rounds_done, "noise": noise, "surrogate": surrogate.state()}

    stream = _shuffled(
        len(part), size, begin * (batches + sweeps), lambda k: craft.generator("order", seed, k), craft.device
    )
    with craft.progress(rounds, begin) as progress:
        for done in range(begin + 1, rounds + 1):
            for rows in itertools.islice(stream, batches):
                surrogate.learn(images[rows] + noise[labels[rows]], labels[rows])
            for rows in itertools.islice(stream, sweeps):
                y = labels[rows]
                proposals = surrogate.descend(
                    images[rows], noise[y], y, epsilon=epsilon, step_size=step_size, steps=steps
                )
                noise = _class_means(proposals, y, noise)
            batches_of_part = zip(images.split(size), labels.split(size), strict=True)
            wrong = sum(surrogate.wrong(x + noise[y], y) for x, y in batches_of_part)
            progress.advance_to(done)
            if stop_error is not None and wrong / len(part) <= stop_error:
                break
            craft.save_checkpoint("em_classwise", partial(state, done))
    return Perturbation(noise.permute(0, 2, 3, 1).contiguous().cpu(), Budget("linf", epsilon), train.labels, rounding)


class _Surrogate:
    """The model of min-min noise, trained between the sweeps over the noise.

    Images are (B, 3, H, W) float32 in 1/255.
    """

    def __init__(
        self,
        train: Split,
        craft: CraftContext,
        arch: str,
        seed: int,
        crop_pad: int = 0,
        flip: bool = False,
        through: str = "crops",
    ):
        self.crop_pad, self.flip, self.generator = crop_pad, flip, craft.generator("augment", seed)
        self.see, self.seeing = SEEN[through], craft.generator("views", seed, device=craft.device)
        self.guard, self.learned = craft.guard, 0
        self.model = craft.model(arch, train, craft.generator("init", seed))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)

    def state(self) -> dict:
        """All that training has changed."""
        draws = {"generator": self.generator.get_state(), "seeing": self.seeing.get_state()}
        return copy_state(self.model, self.optimizer) | draws

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
        load_state(self.model, self.optimizer, state)
        self.generator.set_state(state["generator"].cpu())
        self.seeing.set_state(state["seeing"].cpu())

    def learn(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """One step of the model down its loss."""
        self.model.train().requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(self._augmented(images / 255)), labels)
        self.learned += 1
        self.guard.note(loss, "loss of the surrogate", f"its step {self.learned} since the job began, rate {RATE:g}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self.optimizer.step()

    def descend(
        self,
        images: torch.Tensor,
        delta: torch.Tensor,
        labels: torch.Tensor,
        *,
        epsilon: float,
        step_size: float,
        steps: int,
    ) -> torch.Tensor:
        """The perturbations after signed steps down the loss of the model, which stays fixed."""
        self.model.eval().requires_grad_(False)

        def loss(x: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(self.model(self._augmented(x)), labels, reduction="sum")

        return descend([loss], images, delta, epsilon=epsilon, step_size=step_size, steps=steps, guard=self.guard)

    def _augmented(self, x: torch.Tensor) -> torch.Tensor:
        if self.crop_pad or self.flip:
            x = shift_and_flip(x, self.crop_pad, self.flip, self.generator)
        return self.see(x, self.seeing)

    @torch.no_grad()
    def wrong(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """How many of the images, clipped, the model gets wrong."""
        self.model.eval()
        return (self.model(images.clamp(0, 255) / 255).argmax(1) != labels).sum()


def _shuffled(
    count: int, size: int, begin: int, generator: Callable[[int], torch.Generator], device: str
) -> Iterator[torch.Tensor]:
    """Endless batches of `size` of `count` rows, from the `begin`-th batch on.

    Each pass over the rows has an order of its own and leaves out the remainder.
    """
    per_pass = count // size
    for k in itertools.count(begin // per_pass):
        order = torch.randperm(count, generator=generator(k)).to(device).split(size)[:per_pass]
        yield from order[begin % per_pass if k == begin // per_pass else 0 :]


def _class_means(proposals: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The mean proposal of each class; the old noise where a class has none in the batch."""
    member = F.one_hot(labels, len(noise)).T.to(proposals.dtype)
    count = member.sum(1).reshape(-1, 1, 1, 1)
    mean = (member @ proposals.flatten(1)).reshape(noise.shape) / count.clamp_min(1)
    return torch.where(count > 0, mean, noise)
