"""Site: the page of all settings. It is made from the registry at build time, so it cannot differ from the code."""

import ast
import json
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))  # the site builds where relearn is not installed

from relearn import params, registry  # noqa: E402  (needs the line above; both import no torch)

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
        parts += [f"## {section} {{#{section}}}", (declaration.__doc__ or "").strip(), _table(settings)]
    for kind in registry.KINDS:
        entries = registry.entries(kind)
        parts.append(f"## {kind} {{#{kind}}}")
        if kind in params.COMMON:
            parts += ["Every entry of this section also accepts:", _table(params.COMMON[kind])]
        rows = [f"| [`{name}`](#{kind}-{name}) | {_cell(split(entry.doc)[0])} |" for name, entry in entries.items()]
        parts.append("\n".join(["| name | what it is |", "| :-- | :-- |", *rows]))
        for name, entry in entries.items():
            parts += [f"### {name} {{#{kind}-{name}}}", *filter(None, split(entry.doc)), _table(entry.settings)]
    return "\n\n".join(parts) + "\n"


def split(doc: str) -> tuple[str, str]:
    """The first sentence of a docstring, and the rest."""
    first = re.match(r"(.+?[.!?])(?=\s|$)(?<!e\.g\.)(?<!i\.e\.)(?<!al\.)", doc, flags=re.DOTALL)
    end = first.end() if first else len(doc)
    return " ".join(doc[:end].split()), doc[end:].strip()


def words(annotation: ast.expr) -> str:
    """What a setting with this annotation accepts, in words."""
    if isinstance(annotation, ast.BinOp):  # X | None
        return f"{words(annotation.left)}, or `null`"
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        choices = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return " or ".join(f"`{ast.literal_eval(choice)}`" for choice in choices)
    if isinstance(annotation, ast.Subscript):  # list[X]
        return f"a list; each item: {words(annotation.slice)}"
    return registry.TYPES[ast.unparse(annotation)][0]


def _table(settings: tuple[registry.Setting, ...]) -> str:
    if not settings:
        return "No settings."
    rows = []
    for setting in settings:
        accepts = words(ast.parse(setting.annotation, mode="eval").body)
        rows.append(f"| `{setting.name}` | {_cell(accepts)} | {_default(setting.default)} |")
    return "\n".join(["| setting | accepts | default |", "| :-- | :-- | :-- |", *rows])


def _default(value: object) -> str:
    if value is registry.REQUIRED:
        return "none; required"
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
