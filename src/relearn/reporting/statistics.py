"""Means over few seeds and what is known of them: quantiles of Student's t, confidence intervals. Needs no scipy."""

import math

import pandas

HALVINGS = 200  # of an interval of reals; floats have no more


def central_share(t: float, freedom: int) -> float:
    """The probability that a Student t of `freedom` degrees lies within ± `t`.

    A finite sum; Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1, freedom // 2 + 1):
        total += term
        term *= cosine**2 * (2 * k - 1 + odd) / (2 * k + odd)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(share: float, freedom: int) -> float:
    """The t within ± which a Student t of `freedom` degrees (1 or more) lies with probability `share`, below 1."""
    low, high = 0.0, 1.0
    while central_share(high, freedom) < share:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if central_share(middle, freedom) < share else (low, middle)
    return high


def half_width(values: pandas.Series, share: float) -> float | None:
    """Half the width of the confidence interval of a mean, by Student's t; None for less than two values."""
    values = values.dropna()
    if len(values) < 2:
        return None
    return t_quantile(share, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
