"""Site: API pages. Each top module and each package of src/relearn gets a page; a new one appears by itself.

The hook also fills the stars of `nav` in mkdocs.yml: `reference/api/*` stands for the API pages, `results/*/README.md`
for the results.
"""

import ast
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "relearn"

shadow = tempfile.TemporaryDirectory(prefix="relearn-docs-")


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace each star of the navigation by the pages it stands for, and show mkdocstrings the sources."""
    _mirror(Path(shadow.name))
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [shadow.name]
    found = {
        "reference/api/*": [{name: f"reference/api/{name}.md"} for name in pages()],
        "results/*/README.md": [
            path.relative_to(ROOT / "docs").as_posix() for path in sorted(ROOT.glob("docs/results/*/README.md"))
        ],
    }
    config.nav = _filled(config.nav, found)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the API pages to the site."""
    for name, modules in pages().items():
        files.append(File.generated(config, f"reference/api/{name}.md", content=page(name, modules)))
    return files


def on_shutdown() -> None:
    """Remove what the build needed."""
    shadow.cleanup()


def pages() -> dict[str, list[Path]]:
    """The modules of every API page, by the name of the page: those of the package itself first, then all packages."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (len(path.relative_to(PACKAGE).parts) > 1, path)):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if path.stem != "__main__" and parts != ("__init__",):
            found.setdefault(parts[0], []).append(path)
    return found


def page(name: str, modules: list[Path]) -> str:
    """The Markdown of one page: mkdocstrings fills in the docstrings."""
    parts = [f"# relearn.{name}"]
    for path in modules:
        dotted = ".".join(("relearn", *path.relative_to(PACKAGE).with_suffix("").parts))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.stem != "__init__":
            parts.append(f"::: {dotted}")
        elif any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body):
            parts.append(f"::: {dotted.removesuffix('.__init__')}")
        else:  # what it imports is shown below, with the modules that define it
            parts.append(ast.get_docstring(tree) or "")
    return "\n\n".join(parts) + "\n"


def _mirror(root: Path) -> None:
    """Make links to all sources below `root`, and an empty `__init__.py` in each folder that has none.

    Without that file mkdocstrings does not find the modules of a folder.
    """
    for path in PACKAGE.rglob("*.py"):
        link = root / path.relative_to(PACKAGE.parent)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path)
    for folder in (root / PACKAGE.name, *(root / PACKAGE.name).rglob("*/")):
        if folder.is_dir() and not (folder / "__init__.py").exists():
            (folder / "__init__.py").touch()


def _filled(nav: list, found: dict[str, list]) -> list:
    filled = []
    for item in nav:
        if isinstance(item, dict):
            filled.append(
                {title: _filled(part, found) if isinstance(part, list) else part for title, part in item.items()}
            )
        else:
            filled.extend(found.get(item, [item]))
    return filled
