"""How much of the data, how many epochs and how wide a network the time allows. Pure functions of measured speeds."""

import math
from dataclasses import dataclass

from relearn.errors import UserError

MOST = 50_000  # images
LADDER = (MOST, 35_000, 25_000, 15_000, 10_000, 7_000, 5_000, 3_500, 2_500, 1_500, 1_000, 700, 500, 350, 250, 200)
ENOUGH = 2_500  # images: with fewer, a narrower network on more of them
EPOCHS = 5  # of plain training on many images, as in the preset cifar10_fast
LEAST_STEPS = 300  # of plain training at least, for which fewer images get more epochs
FEWEST = 0.4  # the share of the target's epochs that is tried before the check gives up
STAGED = 12 / 5  # epochs of a stage of PST to those of plain training (of which EPOCHS count), as in the preset pst
STAGES = 2  # of PST, at most
BATCHES = ((10_000, 256), (2_500, 128), (600, 64), (0, 32))  # from so many images on
WARMUP = 100  # steps at most, and a fifth of the training
PROBED = 2_000  # images of the probe set at most; a quarter of the images where that is less, but for few images all
HELD_OUT, SHARE = 2_000, 5  # at most; one image of so many
PROBE_STEPS, DENSE_EPOCHS, PROBES_PER_EPOCH = 20, 2, 2  # how often the method pst probes
SAFETY = 1.25  # what a machine may be slower later than in the first steps


@dataclass(frozen=True)
class Speed:
    """Seconds for an image: in a step of plain training, of a stage of PST, of the pretraining, and in evaluation.

    `step` are those of a step of any kind, whatever its batch.
    """

    plain: float
    staged: float
    pretraining: float
    evaluated: float
    step: float = 0.0


@dataclass(frozen=True)
class Sizes:
    """What a check runs on: `images` in all, of which `held_out` are not trained on; the rest follows from these."""

    images: int
    held_out: int
    epochs: int
    staged_epochs: int
    batch: int
    warmup_steps: int
    probe_size: int
    width: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return (self.images - self.held_out) // self.batch


def sizes(images: int, classes: int, width: int, epochs: int | None = None, share: float = 1.0) -> Sizes:
    """The sizes for so many images of so many classes; `epochs` None for `share` of the target's."""
    held_out = min(HELD_OUT, max(1, images // SHARE))
    training = images - held_out
    batch = next(batch for least, batch in BATCHES if training >= least)
    steps_per_epoch = max(1, training // batch)
    epochs = epochs or max(1, math.ceil(share * max(EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch))))
    most = max(1, round(STAGED * epochs))
    staged = max(round(STAGED * min(epochs, EPOCHS)), min(most, math.ceil(LEAST_STEPS / steps_per_epoch)))
    return Sizes(
        images=images,
        held_out=held_out,
        epochs=epochs,
        staged_epochs=staged,
        batch=min(batch, training),
        warmup_steps=min(WARMUP, steps_per_epoch * epochs // 5),
        probe_size=max(2 * classes, min(PROBED, max(500, training // 4))),
        width=width,
    )


def seconds(chosen: Sizes, speed: Speed, clean: int = 0) -> float:
    """The longest that the check can take: plain training; PST that sees the trap at the end, and both its stages.

    `clean` images are measured at the end of each training.
    """
    training = chosen.steps_per_epoch * chosen.batch
    plain, staged = chosen.epochs, STAGES * chosen.staged_epochs
    steps = training * ((2 * plain) * speed.plain + staged * speed.staged + 2 * speed.pretraining)
    steps += chosen.steps_per_epoch * (2 * plain + staged + 2) * speed.step
    rows = 2 * plain + staged  # of the histories
    dense = DENSE_EPOCHS * chosen.steps_per_epoch / PROBE_STEPS
    probes = rows + 2 * (dense + PROBES_PER_EPOCH * plain) + dense + PROBES_PER_EPOCH * chosen.staged_epochs
    probed = min(chosen.probe_size, chosen.images - chosen.held_out)
    looked_at = 2 * probed * probes + rows * chosen.held_out + 3 * (clean + chosen.held_out)
    return SAFETY * (steps + looked_at * speed.evaluated)


def enough(
    available: int,
    classes: int,
    width: int,
    speed: Speed,
    budget: float,
    images: int | None = None,
    epochs: int | None = None,
    clean: int = 0,
) -> bool:
    """Whether `ENOUGH` images, or all that are `available`, end within `budget` seconds at this width."""
    return seconds(sizes(images or min(available, ENOUGH), classes, width, epochs), speed, clean) <= budget


def choose(
    available: int,
    classes: int,
    speeds: dict[int, Speed],
    budget: float,
    images: int | None = None,
    epochs: int | None = None,
    clean: int = 0,
) -> Sizes:
    """The largest sizes that end within `budget` seconds; `speeds` by width of the network, best width first.

    `images` and `epochs`, where given, stay as they are. A width is taken with `ENOUGH` images, or all that are
    `available`; where none can be had, the last width with fewer images, then with fewer epochs. Raises UserError when
    nothing fits, with the minutes that would do.
    """
    counts = [images] if images else sorted({min(available, count) for count in LADDER}, reverse=True)
    tries = [(width, count, 1.0) for width in speeds for count in counts if count >= min(available, ENOUGH, counts[0])]
    last = list(speeds)[-1]
    tries += [(last, count, 1.0) for count in counts] + [(last, count, FEWEST) for count in counts]
    needed = math.inf
    for width, count, share in tries:
        chosen = sizes(count, classes, width, epochs, share)
        found = seconds(chosen, speeds[width], clean)
        if found <= budget:
            return chosen
        needed = min(needed, found)
    fewer = ", or fewer --images or --epochs" if images else ""
    raise UserError(
        f"check: {max(0.0, budget):.0f} seconds are left for training, and the least it needs here is {needed:.0f}; "
        f"give --minutes {math.ceil((needed + 30) / 60) + 1} or more{fewer}"
    )
