"""The learning rate over a run, as a share of `lr`; without torch, so that figures can draw it."""

import math


def factor(step: int, steps: int, warmup_steps: int) -> float:
    """The share of the learning rate at `step` of `steps`: a linear warm-up times a cosine from 1 to 0."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))
