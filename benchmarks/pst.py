"""What the probes and snapshots of PST add to an epoch of plain training, in the workflow's own loop."""

from collections.abc import Callable, Iterator
from statistics import median

from benchmarks.options import Options
from benchmarks.runs import images_for, new_run
from benchmarks.timing import head, interleaved, row, spread
from relearn.training.fit import Run

STEPS_PER_EPOCH = 390  # of 50,000 images in batches of 128
LATER = 10  # an epoch in which probes are no longer dense


def report(options: Options) -> Iterator[str]:
    """A table with a row per architecture."""
    train = images_for(options)
    actions: dict[tuple[str, str], Callable[[], object]] = {}
    for name, architecture in options.small.items():
        run = new_run(architecture, train, options, method="pst", probe_size=options.probe_size)
        run.advance()  # so that snapshots hold the optimizer's momentum
        actions |= {(name, "step"): run.advance, (name, "probe"): probe(run)}
        actions[name, "snapshot"] = run.training.snapshot
    times = interleaved(actions, options.repeats, options.piece, options.device)
    should_probe = run.method.should_probe
    dense, later = (
        sum(
            should_probe(step, STEPS_PER_EPOCH)
            for step in range(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH)
        )
        for epoch in (0, LATER)
    )
    yield (
        f"## PST\n\nAn epoch of {STEPS_PER_EPOCH} steps with {dense} probes (the first) or {later} (a later one) over "
        f"one of plain training, before the trap is found; float32, a probe set of {options.probe_size}, and a "
        "snapshot at every probe. Neither counts the test at the end of an epoch.\n"
    )
    yield head("architecture", "a probe, s", "over a step", "a snapshot, ms", "first epoch over plain", "later epoch")
    for name in options.small:
        step, probes, snapshots = (times[name, kind] for kind in ("step", "probe", "snapshot"))
        # a snapshot is quick, a single one may be disturbed: its median
        added = [(taken + median(snapshots)) / one for taken, one in zip(probes, step, strict=True)]
        over = [taken / one for taken, one in zip(probes, step, strict=True)]
        epochs = (spread([1 + count * extra / STEPS_PER_EPOCH for extra in added]) for count in (dense, later))
        yield row(name, spread(probes), spread(over), spread(snapshots, 1000), *epochs)


def probe(run: Run) -> Callable[[], None]:
    """Both forward passes over the probe set, and ACM of every layer group."""

    def measure() -> None:
        run.training.forget_measurement()  # else it would return the last result
        run.training.measure()

    return measure
