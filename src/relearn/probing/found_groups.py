"""Layer groups that are found: the network is cut where everything passes, into a few parts of comparable depth.

The depth of a part is how many layers with weights it has: convolutions and linear layers, not norms and biases.
"""

import itertools
import math
import warnings
from collections.abc import Iterable

from torch import nn

from relearn.errors import UserError
from relearn.probing.trace import Calls, own_parameters

ENOUGH = 4  # parts, or resolutions, before the head: a network with so many is cut there, as ResNets are into stages
MOST = 5  # groups before the head: as many as a ResNet has, with its stem
THICK = 2 / MOST  # share of the depth: what has more is opened, or cut in two
THIN = 1 / (4 * MOST)  # share of the depth: what has less joins a neighbour
ODD = 1 / 2  # share of the depth: a group with more is worth a warning

Part = list[nn.Module]


def found_groups(
    model: nn.Module, calls: Calls, names: dict[nn.Module, str]
) -> tuple[dict[str, Part], dict[str, nn.Module | None]]:
    """The modules of each layer group and the one whose output is its activation; shallow to deep, the head last.

    Warns when the groups share the depth unevenly. Raises UserError when there are not two.
    """
    units = _inside(model, calls)
    while len(whole := [unit for unit in units if _learns(unit)]) == 1 and _opens(whole[0], calls):  # a wrapper
        units = _inside(whole[0], calls)
    if len(whole) < 2:
        raise UserError(
            f"no layer groups found in this {type(model).__name__}; "
            "give groups=[...], modules or their names from shallow to deep"
        )
    parts = _parts(_opened(units, calls), calls)
    if _end(parts[-1], calls) is None and depth(parts[-1], calls) > THICK * depth(itertools.chain(*parts), calls):
        *parts, streams = parts  # side by side up to the logits: no heads of one trunk
        parts += [[unit] for unit in streams]
    stages = _stages(parts, calls)
    named = {names[max(stage, key=lambda unit: depth([unit], calls))]: stage for stage in stages}
    _warn_if_odd({name: depth(stage, calls) for name, stage in named.items()})
    return named, {name: _end(stage, calls) for name, stage in named.items()}


def depth(part: Iterable[nn.Module], calls: Calls) -> int:
    """How many modules with weights, parameters of two dimensions or more, are called in `part`."""
    inner = (module for unit in part for module in unit.modules() if module in calls)
    return sum(any(parameter.squeeze().ndim > 1 for parameter in own_parameters(module)) for module in inner)


# Units: modules that are opened until they are small enough


def _inside(module: nn.Module, calls: Calls) -> Part:
    """The outermost modules that are called inside `module`, in the order of the forward pass."""
    inner = [unit for child in module.children() for unit in ([child] if child in calls else _inside(child, calls))]
    return sorted(dict.fromkeys(inner), key=lambda unit: calls[unit].place)


def _opened(units: Part, calls: Calls) -> Part:
    """`units`, the deepest ones opened until there are enough and none has too much of the depth."""
    while True:
        *trunk, head = [unit for unit in units if _learns(unit)]
        depths = {unit: depth([unit], calls) for unit in (*trunk, head)}
        few = sum(depths[unit] > 0 for unit in trunk) < ENOUGH
        closed = [
            unit
            for unit in depths
            if (depths[unit] > THICK * sum(depths.values()) or (few and unit is not head))
            and _opens(unit, calls)
            and any(_end([inner], calls) for inner in _inside(unit, calls)[:-1] if _learns(inner))
        ]
        if not closed:
            return units
        place = units.index(max(closed, key=lambda unit: depths[unit]))
        units = [*units[:place], *_inside(units[place], calls), *units[place + 1 :]]


def _learns(unit: nn.Module) -> bool:
    return any(True for _ in unit.parameters())


def _opens(unit: nn.Module, calls: Calls) -> bool:
    """Whether `unit` can be split: what learns in it are modules called once each, and parameters of its own."""
    inside = [module for module in _inside(unit, calls) if _learns(module)]
    known = {parameter for module in inside for parameter in module.parameters()} | set(unit.parameters(recurse=False))
    return bool(inside) and all(calls[module].times == 1 for module in inside) and known == set(unit.parameters())


# Parts: units up to a place that everything passes


def _parts(units: Part, calls: Calls) -> list[Part]:
    """Units that learn, each with those that follow until everything passes; of parallel heads, all in the last part.

    Units that learn nothing and keep the shape go with the part before them.
    """
    parts: list[Part] = []
    for unit in units:
        end = _end(parts[-1], calls) if parts else None
        call = calls[unit]
        if parts and end is None:
            parts[-1].append(unit)
        elif _learns(unit):
            parts.append([unit])
        elif end and call.times == 1 and call.passage and call.shape == calls[end].shape:
            parts[-1].append(unit)  # an activation function: what is measured is what the next group gets
    return parts


def _end(part: Part, calls: Calls) -> nn.Module | None:
    """The last module in `part` whose output everything passes through, if no layer of `part` comes after it."""
    inner = [module for unit in part for module in unit.modules() if module in calls]
    passages = [
        module for module in inner if calls[module].passage and calls[module].times == 1 and calls[module].shape
    ]
    end = max(passages, key=lambda module: calls[module].place, default=None)
    layers = [calls[module].place for module in inner if own_parameters(module)]
    return end if end is not None and calls[end].place >= max(layers, default=0) else None


# Stages: parts joined until they share the depth


def _stages(parts: list[Part], calls: Calls) -> list[Part]:
    """The layer groups: the resolutions of the network, or neighbours joined, none with far more of the depth."""
    *trunk, head = parts
    total = depth(itertools.chain(*trunk), calls)

    def weight(part: Part) -> int:
        return depth(part, calls)

    def weights(run: list[Part]) -> int:
        return sum(map(weight, run))

    def resolution(part: Part) -> tuple:
        end = _end(part, calls)
        shape = calls[end].shape or () if end else ()
        return shape[1:2] if len(shape) == 3 else shape[2:]  # tokens (N, T, D), else (N, C, H, W)

    pooled = [*itertools.takewhile(lambda part: math.prod(resolution(part)) <= 1, reversed(trunk))][::-1]
    if pooled and len(trunk) - len(pooled) > 1 and weights(pooled) < THIN * total:
        trunk, head = trunk[: -len(pooled)], [*itertools.chain(*pooled), *head]
    runs = [list(run) for _, run in itertools.groupby(trunk, key=resolution)]
    runs = runs if len(runs) >= ENOUGH else [[part] for part in trunk]
    pieces = []
    for run in _thickened(runs, weights, THIN * total):
        cut = _balanced(run, weight, math.ceil(weights(run) / (THICK * total)) if total else 1)
        pieces += cut if all(weights(piece) >= THIN * total for piece in cut) else [run]
    if len(pieces) > MOST:
        pieces = [list(itertools.chain(*piece)) for piece in _balanced(pieces, weights, MOST)]
    return [*(list(itertools.chain(*piece)) for piece in pieces), head]


def _thickened(runs: list[list], weight, least: float) -> list[list]:
    """`runs`, those that weigh less than `least` joined to the lighter neighbour."""
    runs = list(runs)
    while len(runs) > 1 and weight(runs[thin := min(range(len(runs)), key=lambda k: weight(runs[k]))]) < least:
        neighbours = [k for k in (thin - 1, thin + 1) if 0 <= k < len(runs)]
        first = min(thin, min(neighbours, key=lambda k: weight(runs[k])))
        runs[first : first + 2] = [runs[first] + runs[first + 1]]
    return runs


def _balanced(items: list, weight, count: int) -> list[list]:
    """`items` cut into `count` pieces, or as many as there are, of the least sum of squared weights."""
    sums = [0, *itertools.accumulate(map(weight, items))]
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}  # by how many items are cut so far: the sum, and the cuts
    for _ in range(min(count, len(items))):
        best = {
            end: min((square + (sums[end] - sums[start]) ** 2, [*cuts, start]) for start, (square, cuts) in found)
            for end in range(1, len(items) + 1)
            if (found := [(start, value) for start, value in best.items() if start < end])
        }
    cuts = [*best[len(items)][1], len(items)]
    return [items[start:end] for start, end in itertools.pairwise(cuts)]


def _warn_if_odd(depths: dict[str, int]) -> None:
    total, most = sum(depths.values()), max(depths.values())
    if most > 1 and (most > ODD * total or len(depths) < ENOUGH):
        shares = ", ".join(f"'{name}' {share / total:.0%}" for name, share in depths.items())
        warnings.warn(
            f"the layer groups found are uneven in depth: {shares}; "
            "list better ones with groups=[...], modules or their names from shallow to deep",
            stacklevel=4,
        )
