"""The order of the modules: imports go down only, what engines import stays light, nothing grows too large."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from relearn import registry

LEVELS = (
    ("errors",),
    ("registry", "records"),
    ("params",),
    ("adopt", "estimates", "grid", "isa", "locks", "presets", "stages", "verify"),
    (
        *(
            "seeding",
            "data",
            "device",
            "progress",
            "augment",
            "vision",
            "downloads",
            "rendering",
            "statistics",
            "schedule",
        ),
        *("quantise", "pgd", "metrics", "probe", "staging", "groups", "models", "checkpoint"),
    ),
    ("fit", "craft", "pst", "cost"),
    registry.KINDS,  # folders
    ("steps", "plan"),
    ("__main__",),
)
PURE = 3  # the last level that Snakemake imports; above it torch is allowed
# what a folder or file may import beside lower levels
SHARED = {"methods": ["methods/erm.py"], "poisons/em_ops.py": ["poisons/em.py", "poisons/ops.py"]}
FILES = sorted(path for path in registry.PACKAGE.rglob("*.py") if path.name != "__init__.py")
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(registry.PACKAGE).as_posix())


def part(path: Path) -> str:
    """The module, or the folder, that a file belongs to."""
    return path.relative_to(registry.PACKAGE).parts[0].removesuffix(".py")


def level(path: Path) -> int:
    found = [number for number, names in enumerate(LEVELS) if part(path) in names]
    assert len(found) == 1, f"{path.name} needs a level in {Path(__file__).name}"
    return found[0]


def imported_by(code: str, *heavy: str) -> set[str]:
    """Which of the packages `heavy` are there after running `code` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(registry.PACKAGE.parent)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_there_are_files():
    assert len(FILES) > 40 and {part(path) for path in FILES} == {name for names in LEVELS for name in names}


@every_file
def test_imports_go_down_only(path):
    own = level(path)
    shared = SHARED.get(part(path), []) + SHARED.get(path.relative_to(registry.PACKAGE).as_posix(), [])
    for target in registry.imports(path):
        if target.relative_to(registry.PACKAGE).as_posix() in shared:
            continue
        lower = level(target) < own
        beside = level(target) == own and own in (3, 4, 5) and target != path
        assert lower or beside, f"{part(path)}/{path.name} imports {target.relative_to(registry.PACKAGE)}"


def test_no_cycles():
    edges = {path: registry.imports(path) for path in FILES}
    done: set[Path] = set()

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, " > ".join(item.stem for item in (*above, path))
        if path not in done:
            for target in edges[path]:
                visit(target, (*above, path))
            done.add(path)

    for path in FILES:
        visit(path, ())


@every_file
def test_imports_can_be_seen(path):
    """The registry walks absolute imports by name; what it cannot see both engines would not depend on."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"line {node.lineno}: star import"
        if isinstance(node, ast.Import):
            assert all(not alias.name.startswith("relearn") for alias in node.names), (
                f"line {node.lineno}: say `from relearn import ...`"
            )


@every_file
def test_no_grab_bag(path):
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")


def test_what_the_engines_import_is_light():
    modules = [f"relearn.{name}" for names in LEVELS[: PURE + 1] for name in names] + ["relearn.__main__"]
    heavy = ("torch", "torchvision", "numpy", "pandas", "matplotlib", "sklearn")
    assert imported_by(f"import {', '.join(modules)}", *heavy) == set()


def test_tables_and_figures_need_no_torch():
    modules = [f"relearn.{path.parent.name}.{path.stem}" for path in FILES if part(path) in ("tables", "figures")]
    assert len(modules) >= 7
    assert imported_by(f"import {', '.join(modules)}", "torch", "torchvision", "pandas", "matplotlib") == {
        "pandas",
        "matplotlib",
    }


@every_file
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno - node.lineno >= 60}
    assert not long


@every_file
def test_files_and_public_functions_are_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the file has no docstring"
    public = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []
