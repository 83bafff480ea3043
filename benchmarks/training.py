"""How fast the training loop is, how near the ceiling of the machine, and what it adds to the bare model."""

from collections.abc import Callable, Iterator

import torch

from benchmarks.options import Options
from benchmarks.runs import bare_step, flops_per_image, images_for, new_run
from benchmarks.timing import head, interleaved, number, ratios, row, spread

COLOURED = {"gray": 0.5, "jitter": 0.4}  # the settings of erm_cg


def report(options: Options) -> Iterator[str]:
    """Two tables."""
    yield "## Training\n"
    yield from _ceiling(options)
    yield ""
    yield from _overhead(options)


def product(options: Options, precision: str) -> Callable[[], object]:
    """A product of two square matrices, the most operations a second that training could reach."""
    shape = (options.matrix, options.matrix)
    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, precision)
    left, right = (torch.randn(shape, generator=generator).to(options.device, kind) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def _ceiling(options: Options) -> Iterator[str]:
    """Speed of plain training (erm) through the real loop, beside a matrix product of the same precision."""
    train, precisions = images_for(options), options.precisions
    products = {precision: product(options, precision) for precision in precisions}
    operations: dict[tuple, float] = {}  # of a call
    actions: dict[tuple, Callable[[], object]] = {}
    for name, architecture in (options.small | options.large).items():
        for precision in precisions:
            run = new_run(architecture, train, options, precision=precision)
            # the product comes just before the steps that are compared with it
            actions["product", name, precision] = products[precision]
            actions["step", name, precision] = run.advance
            operations["product", name, precision] = 2 * options.matrix**3
            operations["step", name, precision] = flops_per_image(run) * options.batch
    times = interleaved(actions, options.repeats, options.piece, options.device)
    rates = {key: [operations[key] / taken / 1e9 for taken in values] for key, values in times.items()}
    for precision in precisions:
        found = [rate for key, values in rates.items() if key[::2] == ("product", precision) for rate in values]
        yield f"A {options.matrix}×{options.matrix} torch.mm in {precision}: {spread(found)} GFLOP/s."
    yield (
        f"\nSteps of erm in batches of {options.batch}, crop and flip included; operations are those of convolutions "
        "and matrix products, forward and backward. Convolutions are not torch.mm and can be faster than it.\n"
    )
    yield head("architecture", "precision", "images/s", "MFLOP per image", "GFLOP/s", "share of torch.mm, %")
    for key, values in times.items():
        kind, name, precision = key
        if kind == "step":
            speed = spread([options.batch / taken for taken in values])
            share = spread(ratios(rates[key], rates["product", name, precision]), 100)
            each = number(operations[key] / options.batch / 1e6)
            yield row(name, precision, speed, each, spread(rates[key]), share)


def _overhead(options: Options) -> Iterator[str]:
    """The loop with crop and flip (erm), and with grayscale and colour jitter too (erm_cg), over a bare step."""
    train = images_for(options)
    actions: dict[tuple, Callable[[], object]] = {}
    for name, architecture in options.small.items():
        for precision in options.precisions:
            run = new_run(architecture, train, options, precision=precision)
            coloured = new_run(architecture, train, options, precision=precision, **COLOURED)
            actions |= {(name, precision, "bare"): bare_step(run), (name, precision, "erm"): run.advance}
            actions[name, precision, "erm_cg"] = coloured.advance
    times = interleaved(actions, options.repeats, options.piece, options.device)
    yield "A bare step is forward, backward and optimizer on one batch that stays the same.\n"
    yield head("architecture", "precision", "bare, images/s", "time of erm over bare", "time of erm_cg over bare")
    for name, precision in dict.fromkeys(key[:2] for key in times):
        bare, erm, coloured = (times[name, precision, kind] for kind in ("bare", "erm", "erm_cg"))
        speed = spread([options.batch / taken for taken in bare])
        yield row(name, precision, speed, spread(ratios(erm, bare)), spread(ratios(coloured, bare)))
