"""Times of actions that take turns, their medians and quartiles, and rows of tables."""

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from statistics import median, quantiles
from typing import TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)


def seconds(action: Callable[[], object], times: int = 1, device: str = "cpu", wall: bool = False) -> float:
    """The mean of `times` calls: CPU time, which other work disturbs less; wall time on a GPU, or if asked.

    An action that runs in another process measures itself, by a method `seconds`.
    """
    if measured := getattr(action, "seconds", None):
        return measured(times)
    now = _synchronised if device != "cpu" else time.perf_counter if wall else time.process_time
    begin = now()
    for _ in range(times):
        action()
    return (now() - begin) / times


def interleaved(
    actions: Mapping[Key, Callable[[], object]],
    repeats: int,
    piece: float,
    device: str = "cpu",
    wall: bool = False,
) -> dict[Key, list[float]]:
    """Seconds of a call of each action, once per round; in a round all take turns and so meet the same load.

    In a round an action is called until `piece` seconds have passed. Each was called before, to warm up.
    """
    calls = {}
    for key, action in actions.items():
        first = seconds(action, 1, device, wall)
        # the first call is slower; a quick action is called once more to learn how often it fits into a piece
        again = first if first >= piece else seconds(action, 1, device, wall)
        calls[key] = max(1, math.ceil(piece / max(again, 1e-6)))
    times: dict[Key, list[float]] = {key: [] for key in actions}
    for _ in range(repeats):
        for key, action in actions.items():
            times[key].append(seconds(action, calls[key], device, wall))
    return times


def ratios(above: Iterable[float], below: Iterable[float]) -> list[float]:
    """Each time over that of the same round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def spread(values: Iterable[float], scale: float = 1.0) -> str:
    """The median with the quartiles in brackets, three digits each, of `values` times `scale`."""
    scaled = sorted(scale * value for value in values)
    if len(scaled) == 1:
        return number(scaled[0])
    low, _, high = quantiles(scaled, n=4, method="inclusive")
    return f"{number(median(scaled))} ({number(low)}–{number(high)})"


def number(value: float) -> str:
    """Three digits, and all digits of larger integers."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    decimals = 2 if abs(value) >= 1 or value == 0 else min(6, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{1 if abs(value) >= 10 else decimals}f}"


def head(*titles: str) -> str:
    """The first two lines of a table."""
    return f"{row(*titles)}\n|{'---|' * len(titles)}"


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def _synchronised() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
