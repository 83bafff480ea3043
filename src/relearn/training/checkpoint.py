"""State of a run on disk: nested dicts and lists of tensors, numbers and texts as one safetensors file, no pickle."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from relearn.data import load_tensors, save_tensors
from relearn.errors import UserError
from relearn.runtime import structures


def save(path: Path, state) -> None:
    """Write `state`, tensors as they are and the rest as JSON in the header, under a temporary name first."""
    tensors: dict[str, torch.Tensor] = {}
    packed = _pack(state, tensors)
    save_tensors(path, tensors, {"state": packed})


def load(path: Path, device: str) -> dict:
    """Read what `save` wrote, tensors on `device`. Raises UserError for a broken file."""
    tensors, facts = load_tensors(path, {"state": structures.MAPPING})
    with restoring(path):
        state = _unpack(facts["state"], {name: tensor.to(device) for name, tensor in tensors.items()})
    return structures.checked(path, state, structures.CHECKPOINT)


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Run a block that puts back a state of `path`. Raises UserError where the state is not of what it is put into."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} holds another state than this job's ({error}); delete it and run again") from None


def _pack(value, tensors: dict):
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = value.detach().cpu()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list):
        return {"list": [_pack(entry, tensors) for entry in value]}
    return {"value": value}


def _unpack(packed: dict, tensors: dict):
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(entry, tensors) for key, entry in content}
    if kind == "list":
        return [_unpack(entry, tensors) for entry in content]
    return content
