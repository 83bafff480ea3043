"""Batches of images on the device: taken from its memory, or fetched from elsewhere, one batch ahead."""

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from relearn.runtime import memory


class Batches:
    """Rows of images (N, H, W, 3) uint8 as batches on `device`.

    Images on a GPU are indexed there, and so are those on a CPU that fill at most half of its memory. Others, that a
    GPU does not hold or that stay in a file, are gathered by a thread while the step before computes. The bytes are
    the same.
    """

    def __init__(self, images: torch.Tensor, device: torch.device):
        self.images, self.device = images, device
        on_device = images.device == device
        self.ahead = not on_device or (device.type == "cpu" and not memory.holds(images.nbytes))
        self._coming: tuple[int, Future] | None = None
        if self.ahead:
            self._thread = ThreadPoolExecutor(1)
            self._stream = None if on_device else torch.cuda.Stream(device)
            self._buffer = torch.empty(0, dtype=torch.uint8)

    def take(self, step: int, rows: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
        """The images at `rows` (B,), those of `step`; `following` are the rows of the step after it, or none.

        Rows are on the CPU where `ahead` is true, else on the device. The rows of a step must always be the same.
        """
        if not self.ahead:
            # index_select copies an image at a time; indexing with [rows] copies a value at a time, twenty times slower
            return self.images.index_select(0, rows)
        if self._coming is None or self._coming[0] != step:  # the first step, or one after a roll-back
            self._coming = (step, self._thread.submit(self._fetch, rows))
        batch = self._coming[1].result()
        self._coming = (step + 1, self._thread.submit(self._fetch, following)) if len(following) else None
        if self._stream is not None:
            batch.record_stream(torch.cuda.current_stream(self.device))
        return batch

    def _fetch(self, rows: torch.Tensor) -> torch.Tensor:
        """The images at `rows`, whole on the device when it returns; runs in the thread."""
        if self._stream is None:
            return self.images.index_select(0, rows)
        if len(self._buffer) < len(rows):  # memory that a GPU reads by itself, which costs much to make
            self._buffer = torch.empty((len(rows), *self.images.shape[1:]), dtype=torch.uint8, pin_memory=True)
        gathered = torch.index_select(self.images, 0, rows, out=self._buffer[: len(rows)])
        with torch.cuda.stream(self._stream):
            batch = gathered.to(self.device, non_blocking=True)
        self._stream.synchronize()
        return batch
