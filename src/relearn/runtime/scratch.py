"""Room for images as they are made: in memory, or in a file without a name where they would fill it."""

import math
import mmap
import os
import tempfile
from pathlib import Path

import torch

from relearn.runtime import memory


def room(shape: tuple[int, ...], folder: Path) -> torch.Tensor:
    """A tensor of `shape`, uint8, without content; a large one (`memory.holds`) in a file of `folder`.

    The file has no name and ends with the tensor. The system writes its pages to the disk and takes them out of memory
    as it needs. Raises OSError when the disk has too little room: the space is taken at once.
    """
    size = math.prod(shape)
    if memory.holds(size):
        return torch.empty(shape, dtype=torch.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            error.filename = str(folder)
            raise
        return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=torch.uint8).view(shape)
