"""One way to tell how far a step is: a bar with ETA on a terminal, plain lines in a log."""

import sys
import time

from tqdm import tqdm

QUIET_SECONDS = 15  # in a log: at most one line in this time


class Progress:
    """Counts up to `total`, from `begin` if an earlier run did the rest; `notes` are shown beside the count. Use as a context manager."""

    def __init__(self, total: int, label: str, begin: int = 0):
        self.total, self.label, self.first, self.done = total, label, begin, begin
        self.begin = self.said = time.monotonic()
        self.bar = tqdm(total=total, initial=begin, desc=label, dynamic_ncols=True) if sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()

    def to(self, done: int, **notes) -> None:
        """Say that `done` of `total` is done; it may go back (PST rolls back)."""
        self.done = done
        if self.bar is not None:
            self.bar.n = done
            self.bar.set_postfix(notes, refresh=False)
            self.bar.refresh()
            return
        now = time.monotonic()
        if now - self.said >= QUIET_SECONDS or done == self.total:
            self.said = now
            left = (now - self.begin) / max(done - self.first, 1) * (self.total - done)
            words = "".join(f", {key} {value}" for key, value in notes.items())
            print(f"{self.label}: {done}/{self.total}{words}, {left:.0f} s left", file=sys.stderr, flush=True)
