"""`relearn list` and the help: every thing has a sentence, every setting a meaning, every command an example."""

import argparse
import json
import re
import shlex
import subprocess
import sys

import pytest

from helpers.projects import ROOT
from helpers.registered import EVERYTHING
from relearn import __main__, registry
from relearn.engines import presets
from relearn.errors import UserError
from relearn.params import COMMON
from relearn.registry import listing
from relearn.rules.planning.declared import declared_cost

SIZE = re.compile(r"(\d+) cells, (\d+) jobs")


def setting(kind: str, name: str, of: str) -> dict:
    (found,) = [entry for entry in listing.described(kind, name)["settings"] if entry["name"] == of]
    return found


@pytest.mark.parametrize("kind, name", EVERYTHING)
def test_every_thing_has_a_sentence_and_every_setting_a_meaning(kind, name):
    """A setting that nothing explains: name it in the docstring, as `setting`."""
    found = listing.described(kind, name)
    assert found["summary"][0].upper() == found["summary"][0] and found["summary"].endswith(".")
    names = [entry["name"] for entry in found["settings"]]
    assert len(set(names)) == len(names)  # of a class and its base both may declare it
    assert set(names) == {s.name for s in registry.entry(kind, name).settings + COMMON.get(kind, ())}
    assert [entry["name"] for entry in found["settings"] if not entry["meaning"] or not entry["accepts"]] == []
    assert (ROOT / found["file"]).is_file() and found["source"]


def test_what_is_said_of_a_setting():
    assert setting("poisons", "em", "epsilon") == {
        "name": "epsilon",
        "type": "LinfBudget",
        "accepts": "a number from 1 to 255",
        "required": False,
        "default": 8.0,
        "meaning": "Sample-wise min-min noise, L-inf `epsilon` (1/255).",
    }
    path = setting("purifications", "file", "path")
    assert path["required"] and path["default"] is None
    assert setting("poisons", "em", "stop_error")["accepts"] == "a number from 0 to 1, or null"
    assert setting("poisons", "em", "through")["accepts"] == "crops or gray or views or coarse or jpeg"
    assert (
        setting("methods", "pst", "full_rate_groups")["accepts"] == "a list; each item: a whole number from 1 to 1,000"
    )


@pytest.mark.parametrize(
    "kind, name, of, words",
    [
        ("methods", "at", "gray", "turns that share of the training images to grayscale"),  # of the base class
        ("poisons", "em_ops", "stop_error", "Rounds end when the surrogate's error"),  # of the file it builds on
        ("poisons", "tap_untargeted", "restarts", "runs over the whole set"),  # of its sibling in the file
        ("poisons", "lsp", "seed", "What random draws derive from."),  # of the type
        ("figures", "embedding", "cells", "A cell of the grid, DATASET/POISON/ARCH/METHOD/SEED"),
        ("poisons", "em", "batch", "Images per step."),  # of the name
        ("poisons", "em", "ratio", "The share of the training images that is poisoned."),  # of the section
        ("poisons", "em", "rounding", "without negative noise"),  # named with a value
    ],
)
def test_where_a_meaning_comes_from(kind, name, of, words):
    assert words in setting(kind, name, of)["meaning"]


def test_sentences():
    doc = "As in e.g. A. It is\nso, after Qin et al. (2023). `x` is 1.5; no end"
    assert listing.sentences(doc) == ["As in e.g. A.", "It is so, after Qin et al. (2023).", "`x` is 1.5; no end"]
    assert listing.split("") == ("", "")


@pytest.mark.parametrize(
    "kind, name, number",
    [
        ("poisons", "em", 10 * (20 + 10 * 512 / 50_000)),  # rounds x (steps + training of the surrogate)
        ("poisons", "tap", 8 * 250),  # restarts x steps
        ("poisons", "lsp", 0),
        ("purifications", "dvae", 2 * 60),  # two autoencoders
        ("pretraining", "contrastive", 2 * 2),  # two views
        ("methods", "erm", 1),
        ("methods", "at", 11),  # ten steps of the attack, and one of training
        ("methods", "ueraser_max", 5),  # copies
    ],
)
def test_the_cost_at_defaults(kind, name, number):
    assert declared_cost(kind, name)[0] == pytest.approx(number)


def test_what_trains_nothing_has_no_cost_and_an_unknown_name_is_an_error():
    assert declared_cost("tables", "accuracy") is None
    with pytest.raises(UserError, match="unknown method 'ermm'.*did you mean 'erm'"):
        declared_cost("methods", "ermm")


def ran(capsys, *arguments: str) -> str:
    assert __main__.main(list(arguments)) == 0
    return capsys.readouterr().out


def test_lists_name_everything(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it needs no project
    lines = ran(capsys, "list").splitlines()
    named = {line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "}
    assert named == {name for _, name in EVERYTHING} | set(presets.names())
    assert max(map(len, lines)) <= 120
    as_json = json.loads(ran(capsys, "list", "--json"))
    assert {(kind, name) for kind in registry.KINDS for name in as_json[kind]} == set(EVERYTHING)
    assert as_json["presets"]["paper"].startswith("The grid of the paper (arXiv 2306.02064)")


def test_one_thing_as_text_and_as_json(capsys):
    text = ran(capsys, "list", "poisons", "em")
    assert text.startswith("em: Sample-wise min-min noise, L-inf `epsilon` (1/255).\n")
    assert "  epsilon: a number from 1 to 255; default 8.0\n" in text
    assert "Cost with these defaults: 201 forward and backward passes per image, at most" in text
    assert "Huang et al., 2021" in " ".join(text.split())
    assert json.loads(ran(capsys, "list", "poisons", "em", "--json"))["cost"]["number"] == pytest.approx(201.024)
    assert "file: " not in text and "path: a path; required" in ran(capsys, "list", "purifications", "file")
    assert "it declares no passes through a network" in ran(capsys, "list", "poisons", "lsp")
    assert "360 cells, 803 jobs" in ran(capsys, "list", "presets", "paper")


def test_a_list_needs_no_torch():
    script = "from relearn.__main__ import main; import sys; main(['list']); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, check=False
    )
    assert done.returncode == 0 and b"em_classwise" in done.stdout


# Help


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in __main__._parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


def test_the_version(capsys):
    with pytest.raises(SystemExit) as done:
        __main__.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"relearn {sys.modules['relearn'].__version__}\n"


def test_help_has_what_is_for_people_first():
    text = __main__._parser().format_help()
    order = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2].isalpha()]
    assert set(order) == set(commands()) and len(order) == len(set(order))
    assert order[:6] == ["check", "protect", "import", "export", "list", "preset"]
    assert order[-2:] == ["sources", "inputs"] and order.index("plan") < order.index("prepare")


@pytest.mark.parametrize("name", commands())
def test_help_of_a_command_is_in_sentences_and_its_example_can_be_run(name):
    parser = commands()[name]
    assert parser.description[0].isupper() and parser.description.endswith(".")
    example = parser.format_help().rstrip().splitlines()[-1].strip()
    assert example.startswith(f"relearn {name}")
    options = __main__._parser().parse_args(shlex.split(example)[1:])
    assert callable(options.run)
    assert [action.dest for action in parser._actions if not action.help] == []


# Presets


def test_presets_say_what_they_are():
    summaries = presets.summaries()
    assert list(summaries) == presets.names() and len(summaries) > 10
    assert [name for name, text in summaries.items() if len(text) < 20 or text[-1] not in ".!?"] == []


def test_sizes_in_comments_are_right():
    found = {name: SIZE.search(presets.described(name)["description"]) for name in presets.names()}
    said = {name: match.groups() for name, match in found.items() if match}
    assert {"quickstart", "evidence"} <= set(said)
    for name, (cells, jobs) in said.items():
        assert (presets.described(name)["cells"], presets.described(name)["jobs"]) == (int(cells), int(jobs)), name


def test_without_a_snakefile_a_preset_is_params_yaml_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = ran(capsys, "preset", "quickstart")
    assert "Wrote params.yaml, the preset quickstart: 24 cells, 71 jobs." in out and "needs a clone" in out
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_presets_of_the_project_come_before_those_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert presets.names() == sorted(path.stem for path in (ROOT / "workflow/presets").glob("*.yaml"))
    (tmp_path / "workflow/presets").mkdir(parents=True)
    (tmp_path / "workflow/presets/mine.yaml").write_text("# My own grid. It is small.\n\ngrid: {}\n")
    assert presets.summaries() == {"mine": "My own grid."}
