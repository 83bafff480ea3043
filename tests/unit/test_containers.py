"""The container recipes of envs/: the same Python and versions as elsewhere, no root, and files that are enough."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from helpers.projects import ROOT

REQUIREMENTS = "envs/requirements.txt"
IMAGE = re.compile(r"python:(?P<version>\d+\.\d+)-slim")


@dataclass(frozen=True)
class Recipe:
    """What both formats say: base image, copied files (source: target), commands that build, commands that test."""

    image: str
    files: dict[str, str]
    commands: list[str]
    tests: list[str]
    environment: dict[str, str]


def commands(text: str) -> list[str]:
    """Shell commands one by one, without comments."""
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [part.strip() for line in lines if line and line[0] != "#" for part in line.split("&&")]


def dockerfile() -> Recipe:
    text = (ROOT / "envs/Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(None, 1) for line in text.splitlines() if line and line[0] != "#"]
    images = [words for step, words in steps if step == "FROM"]
    files, folder = {}, "/"
    for step, words in steps:
        if step == "WORKDIR":
            folder = words
        if step == "COPY":
            *sources, target = words.split()
            for source in sources:
                files[source] = f"{folder}/{source if target == './' else target}"
    ran = [command for step, words in steps if step == "RUN" for command in commands(words)]
    environment = dict(pair.split("=") for step, words in steps if step == "ENV" for pair in words.split())
    (image,) = images
    return Recipe(image, files, ran, [one for one in ran if one.startswith("relearn ")], environment)


def definition() -> Recipe:
    text = (ROOT / "envs/relearn.def").read_text()
    head, *parts = re.split(r"^%", text, flags=re.MULTILINE)
    sections = {part.split("\n", 1)[0]: part.split("\n", 1)[1] for part in parts}
    fields = dict(re.findall(r"^(\w+): (.+)$", head, re.MULTILINE))
    assert fields["Bootstrap"] == "docker"
    files = dict(line.split() for line in sections["files"].splitlines() if line.strip())
    exported = [line.removeprefix("export ") for line in commands(sections["environment"])]
    environment = dict(pair.split("=") for pair in exported)
    return Recipe(fields["From"], files, commands(sections["post"]), commands(sections["test"]), environment)


both = pytest.mark.parametrize("recipe", [dockerfile(), definition()], ids=["Dockerfile", "relearn.def"])


@both
def test_python_is_one_that_the_project_allows_and_conda_has(recipe):
    version = IMAGE.fullmatch(recipe.image)["version"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"{version}.0" in SpecifierSet(project["requires-python"])
    assert f"python={version}" in yaml.safe_load((ROOT / "envs/relearn.yaml").read_text())["dependencies"]


@both
def test_versions_are_those_of_the_requirements_and_nothing_else(recipe):
    installs = [command for command in recipe.commands if command.startswith("pip ")]
    words = [" ".join(word for word in command.split() if word != "--no-cache-dir") for command in installs]
    assert words == [
        f"""pip install "$(grep '^torch==' {REQUIREMENTS})\"""",
        f"pip install --requirement {REQUIREMENTS}",
        "pip install --no-deps --no-build-isolation .",
    ]
    pinned = [line.split("#")[0].strip() for line in (ROOT / REQUIREMENTS).read_text().splitlines() if line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)


@both
def test_the_command_is_tried_and_a_clone_runs_its_own_code(recipe):
    assert recipe.tests == ["relearn --version"] and recipe.environment["PYTHONPATH"] == "src"


def test_both_are_the_same():
    one, other = dockerfile(), definition()
    assert (one.image, one.files) == (other.image, other.files)


def test_docker_does_not_run_as_root():
    lines = (ROOT / "envs/Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER relearn"]
    assert lines.index("USER relearn") < lines.index("RUN relearn --version")


@pytest.mark.parametrize("name", ["Dockerfile", "relearn.def"])
def test_no_address_is_in_a_recipe(name):
    assert re.findall(r"://|\b[\w-]+\.(?:io|com|org|net)\b", (ROOT / "envs" / name).read_text()) == []


def test_the_files_that_are_copied_are_enough_to_build(tmp_path):
    for source, target in definition().files.items():
        place = tmp_path / target.removeprefix("/opt/relearn/")
        place.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / source, place, ignore=ignored) if (ROOT / source).is_dir() else shutil.copy(
            ROOT / source, place
        )
    build = "from setuptools import build_meta as b; b.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {"relearn/__main__.py", "relearn/py.typed", "relearn/presets/quickstart.yaml"} <= set(archive.namelist())
