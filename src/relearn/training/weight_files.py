"""Weights in a file that others made, read without running anything in it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from relearn.errors import UserError
from relearn.registry import suggest
from relearn.runtime import files, memory
from relearn.runtime.hashing import check_sum, file_digest
from relearn.runtime.torch_files import load_plain

READERS: dict[str, Callable[[Path], object]] = {".safetensors": load_file, ".pth": load_plain, ".pt": load_plain}
AROUND = ("state_dict", "model")  # under which some authors keep the weights, beside other things


def read_weights(path: str, sha256: str) -> dict[str, torch.Tensor]:
    """The tensors of a state dict by name, on the CPU, as they are in the file.

    `sha256` is the SHA-256 of the file or how it begins. Raises UserError for a file that is missing, is another one,
    is damaged or of another kind, and for values that are not finite.
    """
    file = files.expanded(path)
    if file.suffix not in READERS:
        raise UserError(f"{file} ends in '{file.suffix}'; {suggest(file.suffix, READERS)}; save the state dict as one")
    check_sum(file, file_digest(file, "sha256"), sha256)
    memory.check(2 * file.stat().st_size, str(file), "give a smaller checkpoint")
    try:
        found = READERS[file.suffix](file)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{file} is damaged or no {file.suffix} file ({reason}); fetch it again") from None
    return _state_dict(file, found)


def _state_dict(file: Path, found: object) -> dict[str, torch.Tensor]:
    for key in AROUND:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{file} holds no state dict but {type(found).__name__}; save model.state_dict()")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise UserError(f"{file} holds more than tensors by name, at {str(name)[:40]!r}; save the state dict alone")
        if not torch.isfinite(tensor).all():
            raise UserError(f"{file} has NaN or infinite values in {name[:80]!r}; fetch it again")
    return {name: tensor.detach() for name, tensor in found.items()}
