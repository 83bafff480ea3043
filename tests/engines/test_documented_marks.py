"""What the mark of a code block in the docs says, and that no block escapes for want of a fence."""

import re

import pytest

from helpers import documented

PAGE = """\
# A page
{}
```sh
relearn plan    # says why
```
"""
REPRODUCE = "tests/system/test_reproduce.py"


@pytest.mark.parametrize(
    "mark, how, lacks",
    [
        ("", "", None),
        ("<!-- run: a project -->", "run", None),
        ("<!-- not run: downloads -->", "not run", None),
        ("<!-- not run: downloads -->\n", "", None),  # a mark is on the line before
        ("<!-- run by .ci/run -->", "run by", ["relearn plan"]),
        (f"<!-- all run by {REPRODUCE}::test_the_commands_of_the_page -->\n\ntext", "run by", []),
        (
            f"<!-- run by {REPRODUCE}::test_nothing, tests/none.py -->",
            "run by",
            [f"{REPRODUCE}::test_nothing", "tests/none.py", "relearn plan"],
        ),
    ],
)
def test_what_a_mark_says_and_what_it_lacks(mark, how, lacks):
    (block,) = documented.of_page("page.md", PAGE.format(mark))
    assert (block.how, block.commands) == (how, ["relearn plan"])
    assert lacks is None or documented.lacking(block) == lacks


def test_no_command_hides_in_an_indented_block():
    """Without a fence a block would escape this test."""
    known = r"^(?: {4}|\t)(?:relearn|snakemake|dvc|python|pip|git|make|pytest) "
    for page, text in documented.pages().items():
        bare = documented.FENCE.sub("", text)
        assert not re.findall(known, bare, re.M), f"{page}: put a fence around the command"
