"""DeepConfuse: a generator trained to confuse.

Feng et al., 2019, Learning to Confuse (arXiv 1905.09027), section 3.
"""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split, levels
from relearn.errors import UserError
from relearn.registry import ArchitectureName, Channels, LinfBudget, Positive, PositiveInt, Seed, register
from relearn.training.models import Normalised, constructed, initialise
from relearn.training.state import copy_state, load_state

#: forward and backward passes per image: a step of the classifier, a virtual one, and the loss after it with its
#: gradient through both
PASSES = {"deepconfuse": lambda s, images: 4 * s["rounds"] * s["epochs"]}


@register
def deepconfuse(
    train: Split,
    craft: CraftContext,
    *,
    arch: ArchitectureName = "resnet18",
    epsilon: LinfBudget = 8.16,
    rounds: PositiveInt = 1000,
    epochs: PositiveInt = 20,
    lr: Positive = 0.01,
    generator_lr: Positive = 1e-4,
    width: Channels = 32,
    batch: PositiveInt = 256,
    seed: Seed = 0,
) -> Perturbation:
    """Noise, L-inf `epsilon` (1/255; the authors' 0.032 of 1), that a U-Net computes from each image.

    A round trains a fresh classifier for `epochs` at rate `lr` on images poisoned by the generator of the last round.
    At every batch a copy of the generator takes a step of Adam (`generator_lr`) that raises the loss on clean images of
    the classifier after one virtual step of rate `lr` on the copy's images. At the end of the round the copy takes
    over. Raises UserError for images of less than 8 pixels a side.
    """
    height, image_width = train.images.shape[1:3]
    if min(height, image_width) < 8:
        raise UserError(
            f"deepconfuse halves images three times; they must be 8x8 at least, found {height}x{image_width}"
        )
    duel = _Duel(craft, train, arch, epsilon, lr, generator_lr, width, seed)
    saved = craft.load_checkpoint("generator")
    if saved:
        duel.load_state(saved)
    begin = saved.get("round", 0)
    with craft.progress(rounds * epochs, begin * epochs) as progress:
        for number in range(begin, rounds):
            duel.begin(number)
            for epoch in range(epochs):
                order = torch.randperm(len(train), generator=craft.generator("order", seed, number, epoch))
                for rows in order.to(craft.device).split(min(batch, len(train))):
                    if len(rows) > 1:  # batch norm needs more than one image
                        duel.step(rows, f"round {number + 1} of {rounds}, epoch {epoch + 1} of {epochs}")
                progress.advance_to(number * epochs + epoch + 1)
            craft.guard.check_weights(duel.copy, f"round {number + 1} of {rounds}, generator_lr {generator_lr:g}")
            craft.save_checkpoint("generator", partial(duel.state, number + 1), always=number + 1 == rounds)
    duel.copy.eval()
    with torch.no_grad():
        delta = craft.map_batches(train, batch, lambda x, labels, rows: epsilon * duel.copy(x / 255))
    return Perturbation(delta, Budget("linf", epsilon))


class UNet(nn.Module):
    """A network from images in [0, 1] to noise in [-1, 1], both (B, 3, H, W).

    Average pooling halves the size three times; on the way back each block also gets what lay before the halving.
    """

    def __init__(self, width: int):
        super().__init__()
        sizes = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(_block(before, after) for before, after in pairwise([3, *sizes]))
        self.up = nn.ModuleList(_block(before + after, after) for before, after in pairwise(reversed(sizes)))
        self.out = nn.Conv2d(width, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The noise of a batch."""
        outputs = []
        for number, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if number else x)
            outputs.append(x)
        for block, skipped in zip(self.up, outputs[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, skipped.shape[2:]), skipped], 1))
        return torch.tanh(self.out(x))


def _block(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class _Duel:
    """The classifier, the generator whose images it learns, and the copy that learns to confuse it."""

    model: Normalised
    sgd: torch.optim.SGD

    def __init__(
        self,
        craft: CraftContext,
        train: Split,
        arch: str,
        epsilon: float,
        lr: float,
        generator_lr: float,
        width: int,
        seed: int,
    ):
        self.craft, self.train, self.arch, self.lr, self.seed = craft, train, arch, lr, seed
        self.generator_lr = generator_lr
        self.amplitude = epsilon / 255
        self.images, self.labels = train.images.to(craft.device), train.labels.to(craft.device)
        self.copy, self.generator = (constructed("the generator", lambda: UNet(width), craft.device) for _ in range(2))
        initialise(self.copy, craft.generator("generator", seed))  # drawn on the CPU, like all weights
        self.copy, self.generator = self.copy.to(craft.device), self.generator.to(craft.device)
        self.optimizer = torch.optim.Adam(self.copy.parameters(), lr=generator_lr)

    def begin(self, number: int) -> None:
        """Begin a round: a fresh classifier, and the copy takes over."""
        self.generator.load_state_dict(self.copy.state_dict())
        self.generator.eval().requires_grad_(False)
        self.model = self.craft.model(self.arch, self.train, self.craft.generator("init", self.seed, number))
        self.sgd = torch.optim.SGD(self.model.parameters(), lr=self.lr, momentum=0.9, weight_decay=5e-4)

    def step(self, rows: torch.Tensor, place: str) -> None:
        """One step of the copy against the classifier as it stands, then one of the classifier; `place` says where."""
        x, y = levels(self.images[rows]) / 255, self.labels[rows]
        clean = self.confuse(x, y)
        self.craft.guard.note(clean, "clean loss", f"{place}, generator_lr {self.generator_lr:g}, lr {self.lr:g}")
        with torch.no_grad():
            poisoned = (x + self.amplitude * self.generator(x)).clamp(0, 1)
        self.model.train().requires_grad_(True)
        self.sgd.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(poisoned), y)
        self.craft.guard.note(loss, "loss of the classifier", f"{place}, lr {self.lr:g}")
        loss.backward()
        self.sgd.step()

    def confuse(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One step of the copy up the clean loss of the classifier after its virtual step; that loss."""
        weights = {name: p.detach().requires_grad_(True) for name, p in self.model.named_parameters()}
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}  # batch norm writes on those it is given
        self.copy.train()
        self.model.train()
        poisoned = (x + self.amplitude * self.copy(x)).clamp(0, 1)
        loss = F.cross_entropy(functional_call(self.model, {**weights, **buffers}, (poisoned,)), y)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        moved = {
            name: weight - self.lr * gradient
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
        self.model.eval()
        clean = F.cross_entropy(functional_call(self.model, {**moved, **buffers}, (x,)), y)
        self.optimizer.zero_grad(set_to_none=True)
        (-clean).backward()
        self.optimizer.step()
        return clean.detach()

    def state(self, rounds: int) -> dict:
        """All that training has changed at the end of `rounds` rounds."""
        return copy_state(self.copy, self.optimizer) | {"round": rounds}

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
        load_state(self.copy, self.optimizer, state)
        for moments in self.optimizer.state.values():
            moments["step"] = moments["step"].cpu()  # where Adam counts its steps; a checkpoint is loaded to the device
