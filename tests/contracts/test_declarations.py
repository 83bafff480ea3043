"""What everything registered declares: a new dataset, poison, architecture or method is tested because it is there."""

import inspect

import pytest
import yaml

from helpers.projects import ROOT
from helpers.registered import EVERYTHING
from relearn import grid, params, registry
from relearn.engines import dvc
from relearn.rules import plot

# Signatures


@pytest.mark.parametrize("kind, name", EVERYTHING)
def test_the_source_text_says_what_python_sees(kind, name):
    """The registry reads text, the rules call objects: both must have the same settings."""
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
def test_arguments_are_those_the_rules_give(kind, name):
    given = {"datasets": ("root",), "poisons": ("train", "craft"), "architectures": ("num_classes", "image_size")}
    given |= {"purifications": ("train", "craft")}
    given |= {"pretraining": (), "methods": (), "tables": ("records",)}
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
    errors = {
        s.name: s.error(s.default) for s in registry.entry(kind, name).settings if s.default is not registry.REQUIRED
    }
    assert not {name: error for name, error in errors.items() if error}
    # a value of no possible type must be refused by every annotation, or the check says nothing
    assert all(s.error(object()) for s in registry.entry(kind, name).settings)


@pytest.mark.parametrize("declaration", [params.Compute, params.Recipe, params.Surrogate])
def test_declared_defaults_pass_their_own_check(declaration):
    for setting in params.schema(declaration):
        assert setting.error(object())
        assert setting.default is registry.REQUIRED or setting.error(setting.default) is None, setting.name


# Presets


presets = pytest.mark.parametrize(
    "file", sorted((ROOT / "workflow/presets").glob("*.yaml")), ids=lambda file: file.stem
)


@presets
def test_presets(file):
    preset = params.load(file)
    assert params.errors(preset.raw) == []
    jobs, cells = grid.jobs(preset), grid.cells(preset)
    assert cells and {job.argument for job in jobs if job.rule == "train"} == set(map(str, cells))
    assert len({name for job in jobs for name in job.outputs}) == sum(len(job.outputs) for job in jobs)
    made: set[str] = set()
    for job in jobs:  # in an order in which they could run
        assert all(name in made for name in job.inputs if name.startswith(grid.RESULTS)), job.command
        made |= set(job.outputs)
    assert all((ROOT / name).is_file() for job in jobs for name in job.sources)
    assert all(
        f"results/sources/{job.rule}.sha256" in job.inputs for job in jobs if job.rule not in ("sources", "inputs")
    )


@presets
def test_no_preset_pretrains_by_adamw_at_a_rate_of_sgd(file):
    """A pretraining has its own rate, and the optimizer of the architecture."""
    preset = params.load(file)
    for found in filter(None, (grid.pretrained(preset, cell) for cell in grid.cells(preset))):
        rate = preset.settings("pretraining", found["pretraining"])["lr"]
        assert rate <= 0.01 or preset.recipe_of(found["arch"])["optimizer"] != "adamw", found


@presets
def test_every_job_of_a_preset_is_a_stage_of_its_dvc_yaml(file):
    preset = params.load(file)
    jobs = grid.jobs(preset)
    content = yaml.safe_load(dvc.render(preset))
    stages = content["stages"]
    sources = sorted({source for job in jobs for source in job.sources})
    assert stages.pop("check") == {"cmd": "relearn check-params", "deps": ["params.yaml", *sources]}
    assert list(stages) == [dvc.stage_name(job) for job in jobs] and len(stages) == len(set(stages))
    for job in jobs:
        stage = stages[dvc.stage_name(job)]
        assert stage == {
            "cmd": job.command,
            "deps": sorted(set(job.inputs) | set(job.sources)),
            **({"params": list(job.keys)} if job.keys else {}),
            **({"always_changed": True} if job.rule == "inputs" else {}),
            "outs": list(job.outputs),
        }
    assert content["metrics"] == ["results/summary/metrics.json"]
    curves, *pictures = content["plots"]
    assert list(curves) == ["results/summary/histories.csv"]
    assert pictures == [f"results/figures/{name}.png" for name in preset.names("figures")]
