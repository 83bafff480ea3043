"""How set-up and steps of a training grow with the number of images, of classes, and the size of the images."""

from collections.abc import Callable, Iterator

from benchmarks.options import Options
from benchmarks.runs import new_run, random_images
from benchmarks.timing import head, interleaved, ratios, row, spread
from relearn.data import Split

ARCHITECTURE = ("cnn", {"width": 16})


def report(options: Options) -> Iterator[str]:
    """A table: each case over the first one, beside what one expects."""
    actions: dict[tuple, Callable[[], object]] = {}
    for case in options.growth:
        train = random_images(*case)
        actions |= {(case, "set-up"): set_up(train, options), (case, "step"): set_up(train, options)().advance}
    times = interleaved(actions, options.repeats, options.piece)
    yield (
        f"## Growth\n\nOf {ARCHITECTURE[0]} w{ARCHITECTURE[1]['width']}, float32, batches of {options.batch}. Set-up "
        "is the model with its normalisation, the probe set and the run; it should grow no faster than the bytes of "
        "the images. A step should grow with the size of an image alone.\n"
    )
    yield head(
        "images", "classes", "size", "set-up, s", "over the first", "at most", "step, ms", "over the first", "expected"
    )
    first = options.growth[0]
    for case in options.growth:
        images, classes, side = case
        pixels = (side / first[2]) ** 2
        cells = [f"{images:,}", str(classes), f"{side}×{side}"]
        for kind, scale, expected in (("set-up", 1, images / first[0] * pixels), ("step", 1000, pixels)):
            taken = times[case, kind]
            cells += [spread(taken, scale), spread(ratios(taken, times[first, kind])), f"{expected:g}"]
        yield row(*cells)


def set_up(train: Split, options: Options) -> Callable:
    """An action that makes a run on `train`."""
    return lambda: new_run(ARCHITECTURE, train, options, probe_size=options.probe_size)
