"""State of a run on disk: nested dicts and lists of tensors, numbers and texts as one safetensors file, no pickle."""

from pathlib import Path

import torch

from relearn.data import load_tensors, save_tensors


def save(path: Path, state) -> None:
    """Write `state`, tensors as they are and the rest as JSON in the header, under a temporary name first."""
    tensors: dict[str, torch.Tensor] = {}
    packed = _pack(state, tensors)
    save_tensors(path, tensors, {"state": packed})


def load(path: Path, device: str):
    """Read what `save` wrote, tensors on `device`. Raises UserError for a broken file."""
    tensors, facts = load_tensors(path)
    return _unpack(facts["state"], {name: tensor.to(device) for name, tensor in tensors.items()})


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
