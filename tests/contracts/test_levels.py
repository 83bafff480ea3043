"""The order of the packages: imports go down only, what engines import stays light, nothing grows too large."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from relearn import registry

LEVELS = (
    ("errors",),
    ("registry", "runtime"),
    ("params",),
    ("grid", "data"),
    ("engines", "probing", "reporting"),
    ("training",),
    ("crafting",),
    registry.KINDS,
    ("pst", "rules"),
    ("__main__",),
)
# what Snakemake imports, and what answers on the command line before a job begins
LIGHT = ("engines", "errors", "grid", "params", "registry")
LIGHT_FILES = (
    "__main__.py",
    "crafting/exchange/commands.py",
    "rules/planning/commands.py",
    "rules/planning/estimates.py",
    "rules/results.py",
    "runtime/cpu.py",
    "runtime/files.py",
    "runtime/hashing.py",
    "runtime/memory.py",
    "runtime/yaml_loader.py",
)
# files of registered things stand alone, but for these
SHARED = {
    "methods": ["methods/erm.py"],
    "pretraining": ["methods/__init__.py", "methods/erm.py", "pretraining/two_views.py"],
    "poisons/em_ops.py": ["poisons/em.py", "poisons/ops.py"],
}
FILES = sorted(path for path in registry.PACKAGE.rglob("*.py") if path != registry.PACKAGE / "__init__.py")


def name(path: Path) -> str:
    """A file as SHARED spells it."""
    return path.relative_to(registry.PACKAGE).as_posix()


every_file = pytest.mark.parametrize("path", FILES, ids=name)


def part(path: Path) -> str:
    """The module, or the package, that a file belongs to."""
    return path.relative_to(registry.PACKAGE).parts[0].removesuffix(".py")


def dotted(path: Path) -> str:
    """What an import calls a file."""
    parts = path.relative_to(registry.PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level(path: Path) -> int:
    found = [number for number, names in enumerate(LEVELS) if part(path) in names]
    assert len(found) == 1, f"{path.name} needs a level in {Path(__file__).name}"
    return found[0]


def imports(path: Path) -> list[Path]:
    """What a file imports, without the packages it lies in: those Python runs before it."""
    return [file for file in registry.imports(path) if not is_around(file, path)]


def is_around(file: Path, path: Path) -> bool:
    return file.name == "__init__.py" and path.is_relative_to(file.parent)


def imported_by(code: str, *heavy: str) -> set[str]:
    """Which of the packages `heavy` are there after running `code` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*[name for name in {heavy} if name in sys.modules])"
    environment = {"PYTHONPATH": str(registry.PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_there_are_files():
    assert len(FILES) > 70 and {part(path) for path in FILES} == {name for names in LEVELS for name in names}


def test_the_package_can_be_taken_in_at_a_glance():
    entries = [
        path.name for path in registry.PACKAGE.iterdir() if path.name != "__pycache__" and not path.name.startswith(".")
    ]
    assert len(entries) <= 24, sorted(entries)


@every_file
def test_imports_go_down_only(path):
    shared = SHARED.get(part(path), []) + SHARED.get(name(path), [])
    for target in imports(path):
        lower = level(target) < level(path)
        within = part(target) == part(path) and part(path) not in registry.KINDS
        assert lower or within or name(target) in shared, f"{name(path)} imports {name(target)}"


def test_no_cycles():
    done: set[Path] = set()

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, " > ".join(map(name, (*above, path)))
        if path not in done:
            for target in imports(path):
                visit(target, (*above, path))
            done.add(path)

    for path in FILES:
        visit(path, ())
    assert done >= set(FILES)


@every_file
def test_a_file_takes_nothing_but_modules_from_the_packages_it_lies_in(path):
    """They are only half imported when the file runs: a cycle that the test above does not see."""
    around = [dotted(folder / "__init__.py") for folder in path.parents if folder.is_relative_to(registry.PACKAGE)]
    files = {dotted(file) for file in FILES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in around and path.name != "__init__.py":
            assert {f"{node.module}.{alias.name}" for alias in node.names} <= files, f"line {node.lineno}"


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
    grab_bags = {"utils", "util", "helpers", "common", "misc"}
    assert not grab_bags & {path.stem, *path.relative_to(registry.PACKAGE).parts}


def test_what_the_engines_import_is_light():
    modules = [dotted(path) for path in FILES if part(path) in LIGHT or name(path) in LIGHT_FILES]
    assert set(LIGHT_FILES) <= set(map(name, FILES)) and len(modules) >= 20
    heavy = ("torch", "torchvision", "numpy", "pandas", "matplotlib", "sklearn")
    assert imported_by(f"import {', '.join(modules)}", *heavy) == set()


def test_tables_and_figures_need_no_torch():
    modules = [dotted(path) for path in FILES if part(path) in ("tables", "figures")]
    assert len(modules) >= 7
    heavy = ("torch", "torchvision", "pandas", "matplotlib")
    assert imported_by(f"import {', '.join(modules)}", *heavy) == {"pandas", "matplotlib"}


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
