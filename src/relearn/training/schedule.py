"""The learning rate over a run, as a share of `lr`; without torch, so that figures can draw it."""

import math

#: the decay from 1 to 0, from the share of the steps that is done
DECAYS = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
}


def factor(step: int, steps: int, warmup_steps: int, decay: str = "cosine") -> float:
    """The share of the learning rate at `step` of `steps`: a linear warm-up times a decay from 1 to 0."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return warm * DECAYS[decay](step / steps)
