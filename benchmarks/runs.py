"""Training runs on random images: the real loop, and a bare step to compare it with."""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.options import Options
from relearn import registry
from relearn.data import Split, split, to_float
from relearn.params import Recipe
from relearn.probing.probe_set import ProbeSet
from relearn.runtime.seeding import Seeds
from relearn.training import models
from relearn.training.fit import Run

MICRO_BATCH = 256  # larger batches are trained in parts of so many images
COUNTED = 4  # images by which FLOPs are counted


def random_images(count: int, classes: int = 10, side: int = 32) -> Split:
    """`count` random images, as many of each class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)
    return split(images, torch.arange(count) % classes)


def images_for(options: Options) -> Split:
    """Random images for training: at least a batch."""
    return random_images(max(options.images, options.batch)).to(options.device)


def recipe(options: Options) -> dict:
    """The default recipe, with the batch of the options."""
    micro_batch = MICRO_BATCH if options.batch > MICRO_BATCH else None
    return dataclasses.asdict(Recipe()) | {"batch": options.batch, "micro_batch": micro_batch}


def new_run(
    architecture: tuple[str, dict],
    train: Split,
    options: Options,
    *,
    precision: str = "float32",
    method: str = "erm",
    probe_size: int = 0,
    **settings,
) -> Run:
    """A run of `method` with `settings`; without a `probe_size` its probe set has two images of each class."""
    seeds, classes = Seeds("benchmark", *architecture), int(train.labels.max()) + 1
    model = models.build(
        *architecture,
        images=train.images,
        classes=classes,
        generator=seeds.generator("init"),
        device=options.device,
        precision=precision,
    )
    probe_set = ProbeSet.draw(train, probe_size or 2 * classes, seeds.generator("probe"))
    made = registry.load("methods", method)(**settings)
    return Run(model.train(), made, train, recipe(options), seeds, probe_set)


def bare_step(run: Run) -> Callable[[], None]:
    """One step on a batch that stays the same: nothing but the model and the optimizer."""
    batch, model, optimizer = run.recipe["batch"], run.training.model, run.training.optimizer
    x, y = to_float(run.train.images[:batch]), run.train.labels[:batch]
    part = run.recipe["micro_batch"] or batch

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for some, labels in zip(x.split(part), y.split(part), strict=True):
            (F.cross_entropy(model(some), labels) * (len(labels) / batch)).backward()
        optimizer.step()

    return step


def flops_per_image(run: Run) -> float:
    """Floating-point operations of convolutions and matrix products, forward and backward, of an image.

    Only what is computed: no gradient of the images, nothing backward of a frozen first layer. They grow with the
    number of images, so a few are enough to count.
    """
    x, y = to_float(run.train.images[:COUNTED]), run.train.labels[:COUNTED]
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(run.training.model(x), y).backward()
    run.training.optimizer.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(y)
