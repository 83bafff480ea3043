"""Files made to harm: nothing in them runs, and none takes more memory than the machine has."""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relearn.crafting.exchange import containers, layouts
from relearn.crafting.exchange.pickles import read_pickle
from relearn.errors import UserError
from relearn.runtime import memory

CANARY = "canary"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(CANARY).exists()


def refused(name: str, content: bytes | None = None) -> str:
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        layouts.recognise(Path(name))
    message = str(caught.value)
    assert "\n" not in message and name in message
    return message


class Harm:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


CALLS = {
    "system": Harm(os.system, (f"touch {CANARY}",)),
    "eval": Harm(eval, (f"open('{CANARY}', 'w')",)),
    "open": Harm(io.open, (CANARY, "w")),
    "getattr": Harm(getattr, ("text", "upper")),
    "in a list": [(b"abc", Harm(os.mkdir, (CANARY,)))],
    "numpy load": Harm(np.load, ("x.npy", None, True)),
    "numpy fromfile": Harm(np.fromfile, ("/dev/zero",)),
    "an array of objects": np.array([Harm(os.mkdir, (CANARY,))], dtype=object),
    "a tensor": torch.ones(3),
}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("call", CALLS)
def test_a_pickle_calls_nothing(call, protocol):
    assert "since a pickle can run code" in refused("x.pkl", pickle.dumps(CALLS[call], protocol))


def test_a_set_is_no_poison():
    for protocol in range(2, 6):
        refused("x.pkl", pickle.dumps([{1, 2}], protocol))


def test_the_canary_would_sing():
    pickle.loads(pickle.dumps(CALLS["system"]))
    assert Path(CANARY).exists()
    Path(CANARY).unlink()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
OPCODES = {
    "a function gets attributes": b"\x80\x02" + RECONSTRUCT + b"}(X\x08\x00\x00\x00__code__K\x01ub.",
    "a function gets slots": b"\x80\x02" + RECONSTRUCT + b"N}(X\x09\x00\x00\x00__class__K\x01u\x86b.",
    "an instance by its class": b"\x80\x02(ios\nsystem\n.",
    "an instance by new": b"\x80\x02cnumpy\nndarray\n(K\x05t\x81.",
    "an array is called": b"\x80\x02cnumpy\nndarray\n(K\x05tR.",
    "a persistent id": b"\x80\x02Pabc\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "a memo of 2^31": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
    "bytes of 2^62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.fill\x93.",
    "no end": b"\x80\x02K\x01",
    "pops nothing": b"\x80\x020.",
}


@pytest.mark.parametrize("name", OPCODES)
def test_opcodes_made_by_hand_are_refused(name):
    refused("x.pkl", OPCODES[name])


def test_an_array_cannot_promise_what_it_lacks():
    state = (1, (2**39,), None, False, b"")
    made = pickle.dumps(np.zeros(3, np.int8), 2)
    assert made.count(b"K\x03\x85") == 1
    assert "has 3 values" in refused("x.pkl", made.replace(b"K\x03\x85", b"K\x09\x85"))
    for code in ("O", "V8", "U9", "M8[s]", "c16"):
        assert "since a pickle can run code" in refused("x.pkl", pickle.dumps(np.zeros(3, code), 2)), state


@given(st.data())
def test_a_damaged_pickle_is_read_or_refused(data):
    whole = pickle.dumps([(np.arange(12, dtype="f4").reshape(3, 2, 2), 1), (b"abc", np.int64(3))], 4)
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = Path("damaged.pkl")
    path.write_bytes(bytes(content))
    try:
        read_pickle(path)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("call", ["system", "eval", "in a list", "an array of objects"])
def test_a_torch_file_calls_nothing(call, zipped):
    torch.save({"data": CALLS[call]}, "x.pt", _use_new_zipfile_serialization=zipped)
    message = refused("x.pt")
    assert "since a torch file can run code" in message and "weights_only" not in message


def test_a_torch_tensor_that_repeats_a_value_is_refused():
    torch.save(torch.zeros(1).expand(10**6, 3, 32, 32), "x.pt")
    assert "repeats fewer values" in refused("x.pt")
    torch.save(torch.zeros(2, 3, 4, 4).to_sparse(), "x.pt")
    refused("x.pt")
    torch.save(torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16), "x.pt")
    assert "save it as float32" in refused("x.pt")


def test_a_npz_with_objects_is_refused():
    np.savez("x.npz", data=np.array([Harm(os.mkdir, (CANARY,))], dtype=object), targets=np.zeros(1, int))
    assert "damaged or no plain npz" in refused("x.npz")
    np.save("x.npy", np.array([Harm(os.mkdir, (CANARY,))], dtype=object))
    assert "Python objects" in refused("x.npy")


def test_what_unpacks_to_more_than_the_memory_is_refused(monkeypatch):
    np.savez_compressed("x.npz", data=np.zeros((2000, 32, 32, 3), np.uint8), targets=np.zeros(2000, int))
    assert Path("x.npz").stat().st_size < 100_000
    layouts.recognise(Path("x.npz"))
    monkeypatch.setattr(memory, "total", lambda device: 2_000_000)
    assert "needs about" in refused("x.npz")
    Path("x.pkl").write_bytes(pickle.dumps([b"a" * 2_000_000]))
    assert "needs about" in refused("x.pkl")


def test_a_npy_in_a_zip_cannot_promise_more_than_the_memory():
    with zipfile.ZipFile("x.npz", "w") as archive:
        header = io.BytesIO()
        shape = {"descr": "|u1", "fortran_order": False, "shape": (10**13, 4, 4, 3)}
        np.lib.format.write_array_header_1_0(header, shape)
        archive.writestr("data.npy", header.getvalue())
    assert "needs about" in refused("x.npz")


def test_a_zip_of_anything_else_is_refused():
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("../../evil.png", b"")
    assert "unpack it" in refused("x.zip")
    assert "damaged zip" in refused("y.zip", b"PK\x03\x04 and nothing more")


def test_an_image_that_unpacks_huge_is_refused():
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + b"\0\0\0\0"

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    Path("folder").mkdir()
    Path("folder/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
    assert "0.png cannot be read" in refused("folder")


def test_nested_and_shared_lists_end():
    value: list = []
    for _ in range(60):
        value = [value] * 10
    refused("x.pkl", pickle.dumps(value))
    assert containers.array(value) is None
