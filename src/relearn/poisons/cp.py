"""CP: contrastive poisoning, made against learning without labels.

He et al., 2023, Indiscriminate Poisoning Attacks on Unsupervised Contrastive Learning (arXiv 2202.11202), section 4.
"""

from functools import partial

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.crafting.pgd import descend
from relearn.data import Split, levels
from relearn.errors import UserError
from relearn.registry import ArchitectureName, Levels, LinfBudget, Positive, PositiveInt, Seed, register
from relearn.training import projector
from relearn.training.objectives import VIEWS, nt_xent
from relearn.training.state import copy_state, load_state
from relearn.training.views import View

TEMPERATURE = 0.5  # of SimCLR on CIFAR-10, as the authors have it
HIDDEN, OUT = 128, 64  # widths of the projector

#: forward and backward passes per image, from settings and the number of images
PASSES = {"cp": lambda s, images: VIEWS * s["rounds"] * (s["steps"] + s["batches"] * s["batch"] / images)}


@register
def cp(
    train: Split,
    craft: CraftContext,
    *,
    arch: ArchitectureName = "resnet18",
    epsilon: LinfBudget = 8.0,
    step_size: Levels = 0.8,
    steps: PositiveInt = 5,
    rounds: PositiveInt = 200,
    batches: PositiveInt = 100,
    batch: PositiveInt = 512,
    lr: Positive = 0.06,
    seed: Seed = 0,
) -> Perturbation:
    """Sample-wise noise, L-inf `epsilon` (1/255), that lowers the contrastive loss of a surrogate; it needs no labels.

    A round trains the surrogate by SimCLR on `batches` mini-batches of poisoned images, then moves every perturbation
    `steps` signed steps of `step_size` (1/255) down the same loss, through both views of each image. The views are
    those of relearn.training.views, so this is the attack on the first stage of PST that knows it. Raises UserError
    for a batch of one image.
    """
    images = levels(train.images.to(craft.device))
    delta = torch.zeros_like(images)
    surrogate = _Surrogate(train, craft, arch, lr, seed)
    shuffled = torch.randperm(len(train), generator=craft.generator("order", seed))
    order = [rows.to(craft.device) for rows in shuffled.split(batch)]
    if len(order) > 1 and len(order[-1]) == 1:  # a single image could be compared with itself alone
        order[-2:] = [torch.cat(order[-2:])]
    if min(batch, len(train)) < 2:
        raise UserError(f"cp compares the images of a batch, found batch: {batch}; give 2 or more")
    saved = craft.load_checkpoint("cp")
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
                surrogate.learn(images[rows] + delta[rows])
            for k, rows in enumerate(order, 1):
                delta[rows] = descend(
                    [surrogate.loss],
                    images[rows],
                    delta[rows],
                    epsilon=epsilon,
                    step_size=step_size,
                    steps=steps,
                    guard=craft.guard,
                )
                progress.advance_to(number * len(order) + k)
            craft.save_checkpoint("cp", partial(state, number + 1))
    return Perturbation(delta.permute(0, 2, 3, 1).contiguous().cpu(), Budget("linf", epsilon))


class _Surrogate:
    """A network with a projector that learns without labels; images are (B, 3, H, W) float32."""

    def __init__(self, train: Split, craft: CraftContext, arch: str, lr: float, seed: int):
        self.guard, self.lr, self.learned = craft.guard, lr, 0
        self.view, self.generator = View(), craft.generator("views", seed, device=craft.device)
        self.model = craft.model(arch, train, craft.generator("init", seed))
        projector.attach(self.model, HIDDEN, OUT, craft.generator("projector", seed))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        self.model.train()  # in crafting, too: the victim's batch norm will see batches of poisoned images

    def state(self) -> dict:
        """All that training has changed."""
        return copy_state(self.model, self.optimizer) | {"generator": self.generator.get_state()}

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
        load_state(self.model, self.optimizer, state)
        self.generator.set_state(state["generator"].cpu())

    def learn(self, images: torch.Tensor) -> None:
        """One step down the loss of images in 1/255."""
        self.model.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(images.clamp(0, 255) / 255)
        self.learned += 1
        self.guard.note(loss, "loss of the surrogate", f"its step {self.learned} since the job began, rate {self.lr:g}")
        loss.backward()
        self.optimizer.step()
        self.model.requires_grad_(False)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """NT-Xent of two views of images in [0, 1], drawn anew."""
        projections = [projector.project(self.model, self.view.of(x, self.generator)) for _ in range(VIEWS)]
        return nt_xent(torch.cat(projections), TEMPERATURE)[0]
