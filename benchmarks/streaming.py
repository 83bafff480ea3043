"""Training on images that stay in a file, beside the same on images in the memory of the device."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.options import Options
from benchmarks.runs import new_run, random_images
from benchmarks.timing import head, interleaved, ratios, row, spread
from relearn.data import load_split, save_split
from relearn.runtime import memory


def report(options: Options) -> Iterator[str]:
    """A table: images per second of each, in rounds in which both take turns, and the ratio."""
    count, side = options.streamed
    name, settings = options.streamed_network
    own = replace(options, batch=options.streamed_batch)
    held = memory.HELD
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.safetensors"
        made = random_images(count, side=side)
        save_split(path, made, {"classes": [str(k) for k in range(10)], "settings": {}})
        yield (
            f"## Streaming\n\nSteps of erm with {name} {settings} on {count:,} images of {side}×{side}, batches of "
            f"{own.batch}: images in the memory of the device, and images in a file just written (in the page cache), "
            "gathered a batch ahead by a thread. Wall seconds, since the thread's work is part of them.\n"
        )
        yield head("precision", "in memory, images/s", "from the file, images/s", "speed from the file over in memory")
        actions: dict[tuple[str, str], Callable[[], object]] = {}
        for precision in options.precisions:
            resident = new_run((name, settings), made.to(options.device), own, precision=precision)
            memory.HELD = 0.0  # nothing is kept in the memory of the device
            try:
                streamed = new_run((name, settings), load_split(path)[0].to(options.device), own, precision=precision)
            finally:
                memory.HELD = held
            assert streamed.batches.ahead and not resident.batches.ahead
            actions |= {(precision, "memory"): resident.advance, (precision, "file"): streamed.advance}
        times = interleaved(actions, options.repeats, options.piece, options.device, wall=True)
        for precision in options.precisions:
            inside, outside = times[precision, "memory"], times[precision, "file"]
            speeds = (spread([own.batch / taken for taken in part]) for part in (inside, outside))
            yield row(precision, *speeds, spread(ratios(inside, outside)))
