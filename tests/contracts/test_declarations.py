"""What everything registered declares: a new data set, poison, architecture or method is tested because it is there."""

import inspect

import pytest

from helpers.projects import ROOT
from helpers.registered import EVERYTHING
from relearn import grid, params, registry
from relearn.engines import dvc
from relearn.rules import plot

# Signatures


@pytest.mark.parametrize("kind, name", EVERYTHING)
def test_the_source_text_says_what_python_sees(kind, name):
    """The registry reads text, the steps call objects: both must have the same settings."""
    entry, thing = registry.entry(kind, name), registry.load(kind, name)
    # a class that passes **settings on has those of its base too
    owners = [base for base in inspect.getmro(thing) if "__init__" in vars(base)] if inspect.isclass(thing) else [thing]
    parameters, keywords = list(inspect.signature(thing).parameters.values()), {}
    for owner in owners:
        own = inspect.signature(owner).parameters.values()
        keywords |= {p.name: p.default for p in own if p.kind is p.KEYWORD_ONLY}
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    assert [p.name for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)] == list(entry.arguments)
    required = {s.name for s in entry.settings if s.default is registry.REQUIRED}
    assert keywords == {s.name: inspect.Parameter.empty if s.name in required else s.default for s in entry.settings}


@pytest.mark.parametrize("kind, name", EVERYTHING)
def test_arguments_are_those_the_steps_give(kind, name):
    given = {"datasets": ("root",), "poisons": ("train", "craft"), "architectures": ("num_classes", "image_size")}
    given |= {"methods": (), "tables": ("records",)}
    arguments = registry.entry(kind, name).arguments
    if kind == "figures":
        assert arguments and set(arguments) <= set(plot.GIVEN)
    else:
        assert arguments == given[kind]


@pytest.mark.parametrize("kind, name", EVERYTHING)
def test_documented(kind, name):
    first = registry.entry(kind, name).doc.split("\n")[0]
    assert len(first) > 20 and first.rstrip().endswith((".", ":", ",")) or len(first) > 80, first


@pytest.mark.parametrize("kind, name", EVERYTHING)
def test_defaults_pass_their_own_check(kind, name):
    faults = {
        s.name: s.fault(s.default) for s in registry.entry(kind, name).settings if s.default is not registry.REQUIRED
    }
    assert not {name: fault for name, fault in faults.items() if fault}
    # a value of no possible type must be refused by every annotation, or the check says nothing
    assert all(s.fault(object()) for s in registry.entry(kind, name).settings)


@pytest.mark.parametrize("declaration", [params.Compute, params.Recipe, params.Surrogate])
def test_declared_defaults_pass_their_own_check(declaration):
    for setting in params.schema(declaration):
        assert setting.fault(object())
        assert setting.default is registry.REQUIRED or setting.fault(setting.default) is None, setting.name


# Presets


@pytest.mark.parametrize("file", sorted((ROOT / "workflow/presets").glob("*.yaml")), ids=lambda file: file.stem)
def test_presets(file):
    preset = params.load(file)
    assert params.faults(preset.raw) == []
    jobs, cells = grid.jobs(preset), grid.cells(preset)
    assert cells and {node.argument for node in jobs if node.step == "train"} == set(map(str, cells))
    assert len({name for node in jobs for name in node.outputs}) == sum(len(node.outputs) for node in jobs)
    made = {name for node in jobs for name in node.outputs}
    assert all(name in made for node in jobs for name in node.inputs if name.startswith(grid.RESULTS))
    assert all((ROOT / name).is_file() for node in jobs for name in node.sources)
    looped = [node for node in jobs if node.step != "sources"]
    assert dvc.render(preset).count("command:") == len(looped)  # raises UserError where dvc.yaml has too few places
    assert all(f"results/sources/{node.step}.sha256" in node.inputs for node in looped)
