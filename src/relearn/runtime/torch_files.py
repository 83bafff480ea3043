"""What a file of torch's own format holds, without running anything in it."""

from pathlib import Path

import torch

from relearn.errors import UserError


def load_plain(path: Path) -> object:
    """Tensors, numbers, texts, and dicts and lists of these, on the CPU. Raises UserError for a file with more."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file of another kind makes it raise; its own text advises to run the code
        words = (
            "it holds more than tensors, lists, dicts and numbers" if "eights" in str(error) else type(error).__name__
        )
        raise UserError(
            f"{path} is not read ({words}), since a torch file can run code; save its tensors alone where you trust it"
        ) from None
