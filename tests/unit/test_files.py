"""Writing files."""

import errno

import pytest

from relearn.runtime import files


def test_trouble_while_writing_names_the_file_and_leaves_nothing(tmp_path):
    for trouble, named in (
        (OSError(errno.ENOSPC, "full"), tmp_path / "a"),
        (OSError(errno.EIO, "broken", "elsewhere"), "elsewhere"),
    ):
        with pytest.raises(OSError) as caught, files.atomic(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise trouble
        assert caught.value.filename == str(named) and list(tmp_path.iterdir()) == []
