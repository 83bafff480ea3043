"""Checkpoints that no training begins with: files of another kind, of other content, with code."""

import pickle

import pytest
import torch

from helpers.compare import same
from helpers.training import model_of, pretrained_of, saved
from relearn import registry
from relearn.errors import UserError
from relearn.methods.pretrained import Pretrained
from relearn.runtime.hashing import file_digest
from relearn.training import models


class Code:
    """What a file can run when it is read."""

    def __reduce__(self):
        return print, ("run",)


REFUSED = {
    "nothing fits": ({"x": torch.zeros(3)}, "nothing in .* fits the network"),
    "code": ({"x": Code()}, "more than tensors, lists, dicts and numbers"),
    "no state dict": ([torch.zeros(3)], "holds no state dict but list"),
    "empty": ({}, "holds no state dict"),
    "no tensor": ({"x": 3}, "holds more than tensors by name, at 'x'"),
    "not finite": ({"x": torch.tensor([1.0, float("nan")])}, "NaN or infinite values in 'x'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, tiny, tmp_path, capsys):
    content, words = REFUSED[case]
    model = model_of(tiny)
    with pytest.raises(UserError, match=words):
        Pretrained(**saved(content, tmp_path / "x.pth")).initialise(model, {}, {})
    assert same(models.weights(model), models.weights(model_of(tiny))) and "run" not in capsys.readouterr().out


def test_a_file_of_another_kind(tiny, tmp_path):
    def refused(name: str, content: bytes, words: str) -> None:
        (tmp_path / name).write_bytes(content)
        own = {"path": str(tmp_path / name), "sha256": file_digest(tmp_path / name, "sha256")}
        with pytest.raises(UserError, match=words):
            Pretrained(**own).initialise(model_of(tiny), {}, {})

    refused("x.bin", b"x", r"ends in '\.bin'; known: \.pt, \.pth, \.safetensors")
    refused("x.safetensors", b"x", "is damaged or no .safetensors file")
    refused("x.pth", b"x", "is not read")
    refused("y.pth", pickle.dumps(Code()), "is not read")
    refused("z.pth", b"", "is not read")


def test_another_file_than_expected(tiny, tmp_path):
    own = saved(pretrained_of(tiny), tmp_path / "x.pth")
    found = own["sha256"]
    Pretrained(path=own["path"], sha256=found[:8].upper()).initialise(
        model_of(tiny), {}, {}
    )  # as in torchvision's names
    for expected in ("f37072fd", "0" * 64):
        with pytest.raises(UserError, match=rf"x.pth is another file .*: its SHA-256 is {found}, expected {expected}"):
            Pretrained(path=own["path"], sha256=expected).initialise(model_of(tiny), {}, {})
    with pytest.raises(UserError, match="its SHA-256 is that of no file, expected f37072fd...; fetch the file again"):
        Pretrained(path=str(tmp_path / "none.pth"), sha256="f37072fd").initialise(model_of(tiny), {}, {})


@pytest.mark.parametrize("value", ["f37072f", "g" * 8, "0" * 65, 12345678, "", None])
def test_a_checksum_is_hexadecimal_digits(value):
    (setting,) = [s for s in registry.entry("methods", "pretrained").settings if s.kind == "Checksum"]
    assert setting.error("f37072fd") is None
    assert "must be the first 8 to 64 hexadecimal digits of a SHA-256, in quotes, found" in setting.error(value)
