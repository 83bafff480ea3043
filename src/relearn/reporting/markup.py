"""HTML pages that stand alone: escaped text, lists, tables, images, and the page with its style and script inside."""

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping
from pathlib import Path

STYLE = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("page.js")


def text(value: object) -> str:
    """Any value as text of a page or in quotes of an attribute; what is no Unicode becomes a number."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode())


def paragraph(value: object, kind: str = "") -> str:
    """A paragraph of plain text, of a class of the style."""
    return f"<p{_class(kind)}>{text(value)}</p>"


def bullets(sentences: Iterable[object]) -> str:
    """A list of plain texts; of none, nothing."""
    entries = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
    return f"<ul>{entries}</ul>" if entries else ""


def pairs(rows: Mapping) -> str:
    """A table of two columns of plain text, without a head."""
    cells = (f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>' for name, value in rows.items())
    return f'<div class="wide"><table class="pairs">{"".join(cells)}</table></div>'


def image(png: bytes, words: str, kind: str = "") -> str:
    """A PNG inside the page, with words for those who cannot see it."""
    data = base64.b64encode(png).decode()
    return f'<img{_class(kind)} alt="{text(words)}" src="data:image/png;base64,{data}">'


def folded(summary: str, inside: str, anchor: str = "") -> str:
    """HTML that a click on its plain `summary` shows."""
    place = f' id="{text(anchor)}"' if anchor else ""
    return f"<details{place}><summary>{text(summary)}</summary>{inside}</details>"


def document(title: str, parts: Iterable[str], kind: str = "", script: bool = False) -> str:
    """The whole page. Its policy forbids to load anything, and any script but `page.js`, which is in it if wanted.

    `parts` is HTML, one after the other; `kind` is a class of the style for the page.
    """
    style, code = STYLE.read_text(encoding="utf-8"), SCRIPT.read_text(encoding="utf-8")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}"
    policy += f"; script-src {_hash(code)}" if script else ""
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{text(title)}</title>",
        f"<style>{style}</style>",
    ]
    end = [f"<script>{code}</script>"] if script else []
    body = [f"<body{_class(kind)}>", f"<h1>{text(title)}</h1>", *parts, *end, "</body>"]
    return "\n".join(['<!DOCTYPE html>\n<html lang="en"><head>', *head, "</head>", *body, "</html>\n"])


def _class(kind: str) -> str:
    return f' class="{text(kind)}"' if kind else ""


def _hash(code: str) -> str:
    """A style or script as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
