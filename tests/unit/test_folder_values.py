"""A folder of the user's own images, with values of more than 8 bits."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.folders import wrong
from relearn.datasets.folder import folder


def tiff(
    path: Path, values: np.ndarray, kind: int = 1, photometric: int = 1, packed: bytes = b"", bits: int = 0
) -> None:
    """A grey TIFF of integers or floats as they are: `kind` 1 unsigned, 2 signed, 3 floating-point."""
    data, bits = packed or values.tobytes(), bits or values.dtype.itemsize * 8
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(data)}
    tags |= {339: kind}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)


def png(path: Path, colour_type: int, values: np.ndarray) -> None:
    """A PNG of 16 bits: colour type 2 RGB, 4 grey with alpha; `values` (H, W, C)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


GREY = np.full((8, 8), 1000)


def emptied(own: Path) -> Path:
    """The folder train/a without its images."""
    for file in (own / "train" / "a").glob("[1-9]*.png"):
        file.unlink()
    return own / "train" / "a"


@pytest.mark.parametrize(
    "name, write",
    {
        "int32": lambda path: tiff(path, GREY.astype("<i4"), kind=2),
        "uint32": lambda path: tiff(path, GREY.astype("<u4")),
        "int16": lambda path: tiff(path, GREY.astype("<i2"), kind=2),
        "int8": lambda path: tiff(path, (GREY % 100).astype("i1"), kind=2),
        "float32": lambda path: tiff(path, GREY.astype("<f4"), kind=3),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_folder_refuses_values_without_a_known_range(name, write, own):
    write(emptied(own) / "0.tif")
    assert "values have no known range" in wrong(own)


@pytest.mark.parametrize(
    "suffix, write",
    {
        "grey png": lambda path: Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(f"{path}.png"),
        "rgb png": lambda path: png(Path(f"{path}.png"), 2, np.full((8, 8, 3), 4095)),
        "alpha png": lambda path: png(Path(f"{path}.png"), 4, np.full((8, 8, 2), 4095) | [0, 65535]),
        "grey tif": lambda path: tiff(Path(f"{path}.tif"), np.full((8, 8), 4095, "<u2")),
        "ppm": lambda path: Path(f"{path}.ppm").write_bytes(b"P6 8 8 65535\n" + b"\x0f\xff" * 192),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_folder_refuses_16_bits_that_hold_12(suffix, write, own):
    for number in range(3):
        write(emptied(own) / f"0{number}")
    assert "train/a: its 16-bit images reach only" in wrong(own)


def test_folder_accepts_a_dark_image_of_16_bits_beside_bright_ones(own):
    for number, value in enumerate((0, 300, 65535)):
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(emptied(own) / f"0{number}.png")
    assert folder(None, path=str(own), size=8).train.images[:3, 4, 4, 0].tolist() == [0, 1, 255]


def test_folder_scales_what_says_its_range(own):
    path = emptied(own)
    tiff(path / "00.tif", np.zeros((8, 8), "u1"), packed=b"\xff\xff\xff" * 32, bits=12)
    tiff(path / "01.tif", np.full((8, 8), 65535, "<u2"), photometric=0)
    (path / "02.pgm").write_bytes(b"P5 8 8 4095\n" + b"\x0f\xff" * 64)
    assert folder(None, path=str(own), size=8).train.images[:3, 4, 4, 0].tolist() == [255, 0, 255]


def test_folder_takes_the_first_frame_but_not_the_first_page(own):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ((9, 0, 0), (90, 0, 0)))
    for suffix in ("gif", "png", "webp"):
        options = {"lossless": True} if suffix == "webp" else {}
        first.save(emptied(own) / f"0.{suffix}", save_all=True, append_images=[second], **options)
        assert folder(None, path=str(own), size=8).train.images[0, 4, 4].tolist() == [9, 0, 0]
        (own / "train" / "a" / f"0.{suffix}").unlink()
    first.save(own / "train" / "a" / "0.tif", save_all=True, append_images=[second])
    assert "several pages" in wrong(own)
