"""The code blocks of README.md and docs/*.md, and who runs each.

A comment on the line before a block says so, `<!-- run: SCENE -->`, `<!-- run by .ci/run, tests/x.py::test_y -->` or
`<!-- not run: REASON -->`; a comment `<!-- all run by ... -->` speaks for the other blocks of its page. A block of YAML
needs none: it is checked as a part of params.yaml.
"""

import re
from dataclasses import dataclass

from helpers.projects import ROOT

COMMANDS = ("sh", "bash", "shell", "console", "python", "diff", "yaml")  # languages whose blocks somebody may run
REASONS = ("needs a GPU", "needs a cluster", "needs Docker or Apptainer", "downloads")
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<language>[^\n`]*)\n(?P<text>.*?)^ *(?P=fence) *$", re.M | re.S
)
MARK = re.compile(r"<!-- (run: |run by |not run: )([^\n]*) -->\n *\Z")
ALL = re.compile(r"^<!-- all run by ([^\n]*) -->$", re.M)


@dataclass(frozen=True)
class Block:
    """A block of a page: its first line there, its language, the mark before it, and its text."""

    page: str
    line: int
    language: str
    how: str  # "run", "run by", "not run", or nothing
    mark: str  # a scene, runners, or a reason
    text: str
    before: str  # the text of the page before it

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines without comments and empty ones."""
        lines = (re.sub(r"(^|\s+)# .*$", "", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line]


def pages() -> dict[str, str]:
    """The text of every page by its path."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in found}


def blocks() -> list[Block]:
    """All blocks of all pages, in order."""
    return [block for page, text in pages().items() for block in of_page(page, text)]


def of_page(page: str, text: str) -> list[Block]:
    """The blocks of a page."""
    for_all = ALL.search(text)
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        own = MARK.search(before)
        how, mark = (own[1].strip(": "), own[2]) if own else ("run by", for_all[1]) if for_all else ("", "")
        language = match["language"].strip().partition(" ")[0]
        found.append(Block(page, before.count("\n") + 1, language, how, mark, match["text"], before))
    return found


def runners(block: Block) -> list[str]:
    """What a block says that runs it: files, or tests as FILE::NAME."""
    return [name.strip() for name in block.mark.split(",")]


def lacking(block: Block) -> list[str]:
    """What the runners of a block do not have: themselves, or a command of the block. Nothing is as it should be."""
    texts, missing = "", []
    for runner in runners(block):
        name, _, test = runner.partition("::")
        path = ROOT / name
        if not path.is_file() or (test and f"\ndef {test}(" not in path.read_text(encoding="utf-8")):
            missing.append(runner)
            continue
        texts += path.read_text(encoding="utf-8") + ("" if test else (ROOT / "Makefile").read_text(encoding="utf-8"))
    # a test that reads a page runs what that page has
    texts += "".join(text for page, text in pages().items() if page != "README.md" and page in texts)
    if block.language == "sh":
        said = _words(texts)
        heads = {" ".join(_words(command).split()[:2]) for line in block.commands for command in line.split("&&")}
        missing += sorted(head for head in heads if head not in said and head.split()[0] not in ("source", "cd"))
    return missing


def _words(text: str) -> str:
    """A text without the signs between the words of a command, in which a tuple of words is as the command."""
    return " ".join(re.sub(r"[\"',()\[\]{}]", " ", text).split())
