"""The source files behind a job: what a file imports, from the text alone."""

import ast

import pytest

from relearn import grid, registry
from relearn.registry import PACKAGE, sources


def importing(tmp_path, text: str) -> set[str]:
    """What a file of this text imports, named from the folder of the package."""
    file = tmp_path / "importing.py"
    file.write_text(text)
    registry.imports.cache_clear()
    return {path.relative_to(PACKAGE).as_posix() for path in registry.imports(file)}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("from relearn.training import augment", {"training/__init__.py", "training/augment.py"}),
        ("from relearn.training.augment import gray", {"training/__init__.py", "training/augment.py"}),
        ("import relearn.training.augment", {"training/__init__.py", "training/augment.py"}),
        ("from relearn.registry import register", {"registry/__init__.py"}),
        ("from relearn import registry", {"registry/__init__.py"}),
        ("from relearn import params, grid", {"params.py", "grid/__init__.py"}),
        (
            "def f():\n    from relearn.runtime import cpu",
            {"runtime/__init__.py", "runtime/cpu.py"},
        ),  # inside a function
        ("import relearn", set()),  # the version alone runs nothing again
        ("import torch\nfrom pathlib import Path\nfrom relearnings import x", set()),
        ("'from relearn import params'", set()),  # a text is not an import
    ],
)
def test_imports(text, expected, tmp_path):
    assert importing(tmp_path, text) == expected


def test_what_imports_import_belongs_to_the_sources(tmp_path):
    file = tmp_path / "importing.py"
    file.write_text("from relearn.training import checkpoint")
    registry.imports.cache_clear()
    found = {path.relative_to(PACKAGE).as_posix() for path in sources(file) if path != file}
    # checkpoint imports data, which imports errors, and runtime: files, their structures, hashing, memory
    expected = {"training/__init__.py", "training/checkpoint.py", "data.py", "errors.py"}
    assert found == expected | {
        f"runtime/{name}.py" for name in ("__init__", "files", "hashing", "memory", "structures")
    }


@pytest.mark.parametrize("rule", grid.RULES)
def test_sources_of_a_rule_are_closed_and_leave_out_the_version(rule):
    found = registry.rule_sources(rule)
    assert PACKAGE / "rules" / f"{rule}.py" in found and list(found) == sorted(found)
    assert PACKAGE / "__init__.py" not in found
    for path in found:
        assert set(registry.imports(path)) <= set(found), path
        for statement in ast.walk(ast.parse(path.read_text())):
            if isinstance(statement, ast.ImportFrom):
                assert statement.level == 0, f"{path} has a relative import, which the registry does not follow"


def test_names_of_sources_begin_at_the_root_of_the_project():
    assert registry.relative(PACKAGE / "training" / "fit.py") == "src/relearn/training/fit.py"
