"""Folders of images as a user has them."""

from pathlib import Path

import pytest
from PIL import Image

from relearn.datasets.folder import folder
from relearn.errors import UserError


def paint(path: Path, colour=(200, 100, 50), size=(8, 8), mode="RGB", **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def wrong(path: Path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        folder(path, path=str(path), size=8, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)
