"""One report of how fast relearn is: `python -m benchmarks [PART ...]`."""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks import crafting, grid, growth, machine, memory, plain, pst, streaming, training
from benchmarks.options import Options
from relearn.runtime import device as devices
from relearn.runtime import memory as memory_of_jobs
from relearn.runtime.seeding import deterministic

#: name -> what prints it; all but `grid`, which takes many minutes, by default
PARTS = {
    "training": training.report,
    "plain": plain.report,
    "pst": pst.report,
    "crafting": crafting.report,
    "memory": memory.report,
    "growth": growth.report,
    "streaming": streaming.report,
    "grid": grid.report,
}
DEFAULT = [name for name in PARTS if name != "grid"]
ON_DEVICE = ("training", "pst", "streaming")  # on a GPU if there is one; the others measure the CPU


def whole(parts: list[str], options: Options) -> Iterator[str]:
    """The lines of the report."""
    begin = time.monotonic()
    yield from machine.report(options)
    for name in parts:
        yield ""
        yield from PARTS[name](options if name in ON_DEVICE else replace(options, device="cpu"))
    used = sum(os.times()[:4])  # of the processes that it started, too
    yield f"\nThe report took {time.monotonic() - begin:.0f} s, {used:.0f} s of CPU; load at the end {machine.load()}."


def main() -> None:
    """Print the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all but grid")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=Options.repeats, help="rounds of each measurement")
    parser.add_argument("--batch", type=int, default=Options.batch)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    memory_of_jobs.keep_freed()
    deterministic(given.threads)
    options = Options(given.threads, given.repeats, given.batch, devices.choose())
    for line in whole(given.parts or DEFAULT, options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
