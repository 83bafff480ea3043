"""How far a job is: a bar of tqdm on a terminal, lines of it in a log."""

import sys

from tqdm import tqdm

LOG_SECONDS = 15  # in a log: a line at the start, one at the end, and at most one in this time between
LOG_FORMAT = "{desc}: {n_fmt}/{total_fmt}{postfix}, {remaining} left"


class ProgressBar(tqdm):
    """A bar that counts up to `total`, from `initial` if an earlier run did the rest. Use it as a context manager."""

    monitor_interval = 0  # no thread beside the job

    def __init__(self, total: int, label: str, initial: int = 0):
        terminal = sys.stderr.isatty()
        super().__init__(
            total=total,
            initial=initial,
            desc=label,
            dynamic_ncols=True,
            miniters=1,
            mininterval=0.1 if terminal else LOG_SECONDS,
            file=sys.stderr if terminal else _Lines(),
            bar_format=None if terminal else LOG_FORMAT,
        )

    def advance_to(self, done: int, **notes: object) -> None:
        """Say that `done` of the total is done, with notes beside the count; it may go back, as PST does."""
        if notes:
            self.set_postfix(notes, refresh=False)
        self.update(done - self.n)


class _Lines:
    """A file for tqdm that writes a line where a bar would be drawn over the last one."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
