"""CP: contrastive poisoning, made against learning without labels.

He et al., 2023, Indiscriminate Poisoning Attacks on Unsupervised Contrastive Learning (arXiv 2202.11202), section 4.
"""

from functools import partial

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.crafting.pgd import descend
from relearn.data import Split, levels
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
    those of relearn.training.views, so this is the attack on the first stage of PST that knows it.
    """
    images = levels(train.images.to(craft.device))
    delta = torch.zeros_like(images)
    model = craft.model(arch, train, craft.generator("init", seed))
    projector.attach(model, HIDDEN, OUT, craft.generator("projector", seed))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    view, generator = View(), craft.generator("views", seed)
    shuffled = torch.randperm(len(train), generator=craft.generator("order", seed))
    # the last batch may be short, but a single image could be compared with itself alone
    order = [rows.to(craft.device) for rows in shuffled.split(batch) if len(rows) > 1]

    def loss(x: torch.Tensor) -> torch.Tensor:
        projections = [projector.project(model, view.of(x, generator)) for _ in range(VIEWS)]
        return nt_xent(torch.cat(projections), TEMPERATURE)[0]

    saved = craft.load_checkpoint("cp")
    begin = saved.get("round", 0)
    if begin:
        delta = saved["delta"].contiguous(memory_format=torch.channels_last)
        load_state(model, optimizer, saved["surrogate"])
        generator.set_state(saved["generator"].cpu())

    def state(rounds_done: int) -> dict:
        surrogate = copy_state(model, optimizer)
        return {"round": rounds_done, "delta": delta, "surrogate": surrogate, "generator": generator.get_state()}

    with craft.progress(rounds * len(order), begin * len(order)) as progress:
        for number in range(begin, rounds):
            model.train().requires_grad_(True)
            for k in range(number * batches, (number + 1) * batches):
                rows = order[k % len(order)]
                optimizer.zero_grad(set_to_none=True)
                found = loss((images[rows] + delta[rows]).clamp(0, 255) / 255)
                craft.guard.note(found, "loss of the surrogate", f"its step {k + 1}, rate {lr:g}")
                found.backward()
                optimizer.step()
            model.requires_grad_(False)  # batch norm stays that of training, in which the victim learns
            for k, rows in enumerate(order, 1):
                how = {"epsilon": epsilon, "step_size": step_size, "steps": steps, "guard": craft.guard}
                delta[rows] = descend([loss], images[rows], delta[rows], **how)
                progress.advance_to(number * len(order) + k)
            craft.save_checkpoint("cp", partial(state, number + 1))
    return Perturbation(delta.permute(0, 2, 3, 1).contiguous().cpu(), Budget("linf", epsilon))
