"""How much the poisons that attack a model add to the bare passes that they need."""

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr

from benchmarks import poison_speed
from benchmarks.options import Options
from benchmarks.timing import head, interleaved, number, ratios, row, spread

ARCHITECTURE = ("cnn", {"width": 16})
ROUNDS = 3  # at most: a round takes many seconds
FEWER = {"sem": {"train_steps": 1}, "rem": {"train_steps": 1}}  # they would take most of the time


def report(options: Options) -> Iterator[str]:
    """A table with a row per poison."""
    train = poison_speed.random_images(options.attacked)
    attacks = {name: own | FEWER.get(name, {}) | options.attack for name, own in poison_speed.ATTACKS.items()}
    actions: dict[tuple, Callable[[], object]] = {}
    for name, settings in attacks.items():
        for precision in options.precisions:
            context = poison_speed.new_context(name, train, ARCHITECTURE, precision)
            # the bare pass comes just before what is compared with it
            model = poison_speed.new_context("bare", train, ARCHITECTURE, precision).trained_surrogate()
            actions["bare", name, precision] = poison_speed.bare_pass(model, train, settings["batch"])
            actions["poison", name, precision] = poison_speed.crafting(name, settings, train, context)
    rounds = min(options.repeats, ROUNDS)
    with redirect_stderr(io.StringIO()):  # the progress of each poison
        times = interleaved(actions, rounds, options.piece)
    yield (
        f"## Crafting\n\nA pass is forward and backward over {options.attacked} images in batches of "
        f"{options.attack['batch']}, on {ARCHITECTURE[0]} w{ARCHITECTURE[1]['width']}; a bare one takes the gradient "
        f"to the images and nothing else. n = {rounds}.\n"
    )
    yield head(
        "poison", "passes", *(f"{kind}, {what}" for kind in options.precisions for what in ("images/s", "over bare"))
    )
    for name, settings in attacks.items():
        passes = poison_speed.declared_passes(name, settings, len(train))
        cells = [name, number(passes)]
        for precision in options.precisions:
            each = [taken / passes for taken in times["poison", name, precision]]
            over = ratios(each, times["bare", name, precision])
            cells += [spread([len(train) / taken for taken in each]), spread(over)]
        yield row(*cells)
