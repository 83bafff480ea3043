"""Site: files of the top folder become pages, and links work on the site as they do on a git host.

A link between pages stays as it is. A link to a file outside docs/ leads to the repository, if mkdocs.yml has a
`repo_url`, and becomes plain text otherwise. A link to a file that does not exist is a warning, which --strict makes
an error.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
SOURCES = {page: source for source, page in PAGES.items()}
BRANCH = "main"

# Code comes first in this pattern, so that what looks like a link within code stays code.
TOKEN = re.compile(
    r"^(?P<fence>[ ]*(?:```+|~~~+))[^\n]*\n.*?^(?P=fence)[ ]*$"
    r"|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
    r"|(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)",
    re.DOTALL | re.MULTILINE,
)
log = logging.getLogger("mkdocs.hooks.links")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are files of the top folder."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page that would not work on the site."""
    uri = page.file.src_uri
    source = SOURCES.get(uri, f"docs/{uri}")

    def rewritten(match: re.Match) -> str:
        target = match["target"]
        if target is None or re.match(r"[a-z][a-z0-9+.-]*:|#|/", target):
            return match[0]  # code, another site, this page
        name, _, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
        inside = PAGES.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
        if inside and files.get_file_from_path(inside):
            link = posixpath.relpath(inside, posixpath.dirname(uri) or ".") + (f"#{anchor}" if anchor else "")
            return f"{match['image']}[{match['text']}]({link})"
        if uri.startswith("reference/"):
            return match[0]  # made from docstrings; mkdocs checks it
        if not (ROOT / file).exists():
            log.warning("%s has a link to '%s', which does not exist", source, target)
            return match[0]
        if config.repo_url and not match["image"]:
            kind = "tree" if (ROOT / file).is_dir() else "blob"
            return f"[{match['text']}]({config.repo_url.rstrip('/')}/{kind}/{BRANCH}/{file})"
        return _plain(match["text"], file)

    return TOKEN.sub(rewritten, markdown)


def _plain(text: str, file: str) -> str:
    """The text of a link that cannot be one, and the file it led to where the text does not say it."""
    bare = text.strip("`")
    if file.endswith(bare.rstrip("/").removeprefix("../")):
        return f"`{bare}`"
    return f"{text} (`{file}`)"
