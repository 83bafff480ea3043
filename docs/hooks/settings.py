"""Site: the page of all settings. It is made from the registry at build time, so it cannot differ from the code."""

import inspect
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))  # the site builds where relearn is not installed

from relearn import params, registry  # noqa: E402  (needs the line above; all import no torch)
from relearn.registry import listing  # noqa: E402

PAGE = "reference/settings.md"
INTRODUCTION = """# Settings

Every setting that `params.yaml` can contain, with what it accepts and its default. This page is made from the source
code when the site is built. `relearn check-params` checks a file against the same declarations.

An entry of `params.yaml` has the name of a registered thing, or names one with `use`:

```yaml
poisons:
  em: {epsilon: 8}
  em_weak: {use: em, epsilon: 4}
```
"""
SECTIONS = {"compute": params.Compute, "train": params.Recipe, "surrogates": params.Surrogate}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site."""
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """The Markdown of the whole page."""
    parts = [INTRODUCTION]
    for section, declaration in SECTIONS.items():
        settings = params.schema(declaration)
        parts += [f"## {section} {{#{section}}}", inspect.cleandoc(declaration.__doc__ or ""), _table(settings)]
    for kind in registry.KINDS:
        entries = registry.entries(kind)
        parts.append(f"## {kind} {{#{kind}}}")
        if kind in params.COMMON:
            parts += ["Every entry of this section also accepts:", _table(params.COMMON[kind])]
        rows = [f"| [`{name}`](#{kind}-{name}) | {_cell(text)} |" for name, text in listing.summaries(kind).items()]
        parts.append("\n".join(["| name | what it is |", "| :-- | :-- |", *rows]))
        for name, entry in entries.items():
            table = _table(entry.settings, listing.meanings(kind, entry))
            parts += [f"### {name} {{#{kind}-{name}}}", *filter(None, listing.split(entry.doc)), table]
    return "\n\n".join(parts) + "\n"


def _table(settings: tuple[registry.Setting, ...], meanings: dict[str, str] | None = None) -> str:
    """The settings as a table; with a column of meanings where they are given."""
    if not settings:
        return "No settings."
    heads = ["setting", "accepts", "default", *(["meaning"] if meanings else [])]
    rows = []
    for setting in settings:
        cells = [f"`{setting.name}`", _cell(listing.accepts(setting.annotation)), _default(setting)]
        rows.append(f"| {' | '.join(cells + ([_cell(meanings[setting.name])] if meanings else []))} |")
    return "\n".join([f"| {' | '.join(heads)} |", f"|{' :-- |' * len(heads)}", *rows])


def _default(setting: registry.Setting) -> str:
    text = listing.default(setting)
    return "none; required" if text is None else f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
