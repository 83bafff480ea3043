"""Published poisons as files, and their import."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from relearn.crafting.exchange.importing import Choices, import_poison
from relearn.errors import UserError

CLASSES, PER_CLASS, SIDE = 4, 12, 16
COUNT = CLASSES * PER_CLASS
FACTS = {"classes": ["a", "b", "c", "d"], "settings": {"dataset": {"use": "own"}}}
PREPARED = "results/data/own/train.safetensors"


def load(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == {"images", "labels"}
        return file.get_tensor("images"), file.get_tensor("labels"), json.loads(file.metadata()["facts"])["manifest"]


def imported(path, **choices) -> tuple[np.ndarray, np.ndarray, dict]:
    out = Path("out.safetensors")
    import_poison(Path(path), out, Choices(**({"dataset": "own"} | choices)))
    return load(out)


def refused(path, *words: str, **choices) -> str:
    out = Path("refused.safetensors")
    with pytest.raises(UserError) as caught:
        import_poison(Path(path), out, Choices(**({"dataset": "own"} | choices)))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500 and not out.exists()
    assert all(word in message for word in words), message
    return message


def first(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


def put(content: object, name: str, protocol: int = 4) -> str:
    """A file as its authors write it, by the ending of `name`."""
    if name.endswith((".pt", ".p2")):
        torch.save(content, name)
    elif name.endswith(".pkl"):
        Path(name).write_bytes(pickle.dumps(content, protocol))
    elif name.endswith(".npz"):
        np.savez(name, **content)
    else:
        np.save(name, content)
    return name


def unit(images: np.ndarray) -> np.ndarray:
    return (images / 255).astype(np.float32)


def tensors(content: dict) -> str:
    save_file(content, "x.safetensors")
    return "x.safetensors"


def raw(images: np.ndarray, labels: torch.Tensor) -> list:
    return [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]


def pngs(folder: str, images: np.ndarray) -> str:
    Path(folder).mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(f"{folder}/{index}.png")
    return folder.split("/")[0]


#: what an author writes of (poisoned images, noise, labels, a permutation), and what a user says of it
IMAGES = {
    "HYPO": lambda p, y, o: put((torch.tensor(first(unit(p))), y), "Linf.p2"),
    "PIL": lambda p, y, o: put({"data": torch.tensor(first(unit(p))), "labels": y}, "unlearnable.pt"),
    "DUNE": lambda p, y, o: put([(i, int(k)) for i, k in zip(first(unit(p))[o], y[o], strict=True)], "DUNE.pkl"),
    "ECLIPSE": lambda p, y, o: put(raw(p[o], y[o]), "EM.pkl"),
    "AVATAR": lambda p, y, o: put({"data": p[o], "targets": y[o].numpy()}, "AR.npz"),
    "PNG": lambda p, y, o: pngs("TAP/data", p),
    "PNG, flat": lambda p, y, o: pngs("TAP", p),
    "TAP": lambda p, y, o: put(p.astype(np.float64), "poisoned_training_data.npy"),
    "fortran order": lambda p, y, o: put(np.asfortranarray(p), "data.npy"),
}
