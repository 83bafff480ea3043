"""Every setting of everything at the ends of its range: the thing runs, or a UserError says in one line why not."""

import inspect
from pathlib import Path

import pytest
import torch

from helpers.registered import CHEAP, EVERYTHING, cheap, cheap_method, named
from helpers.training import RECIPE, model_of
from relearn import params, registry
from relearn.crafting import perturbation as perturbations
from relearn.errors import UserError
from relearn.probing.probe_set import ProbeSet
from relearn.registry import settings as types
from relearn.runtime import memory
from relearn.runtime.seeding import Seeds
from relearn.training import models
from relearn.training.fit import fit

DECLARED = {"compute": params.Compute, "train": params.Recipe, "surrogates": params.Surrogate}
BEYOND = (1e300, -1e300, 10**30, -(10**30), 10**400, float("inf"), float("nan"), -1)
# so many of these take long, which nothing forbids
SLOW = {*CHEAP, "convolutions", "gap"} - {"batch", "block", "copies", "models", "validation", "width"}
WHOLE = ("PositiveInt", "NonNegativeInt", "Seed", "Channels", "Side", "Pad", "Threads", "GroupCount", "CheckpointCount")
NUMBERS = (*WHOLE, *types.FLOATS)


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    """A machine of 2 GB, whatever this one has."""
    monkeypatch.setattr(memory, "total", lambda device="cpu": 2 * 10**9)


def ends(setting: registry.Setting) -> list:
    """The least and the largest value that a setting of numbers accepts; only the least where many take long."""
    kind = setting.kind.removeprefix("list[").removesuffix("]")
    if kind not in NUMBERS:
        return []
    found = [value for value in (0, 1e-9, 1) if types.TYPES[kind][1](value)][:1]
    if setting.name not in SLOW:
        whole = [10**k for k in range(3, 7)] + [1024, 4096, 2**63 - 1]
        found += [max(v for v in (whole if kind in WHOLE else [1, 255, 1e9]) if types.TYPES[kind][1](v))]
    return [[value] for value in found] if setting.kind.startswith("list") else found


def attempt(run) -> str:
    """What running says: nothing, or the one line of a UserError. Anything else fails the test."""
    try:
        run()
    except UserError as error:
        assert "\n" not in str(error) and 20 < len(str(error)) < 400
        return str(error)
    return ""


@pytest.mark.parametrize("kind, name", [*EVERYTHING, *((section, "") for section in DECLARED)])
def test_values_beyond_all_bounds_are_refused_before_any_job(kind, name):
    declared = registry.entry(kind, name).settings if name else params.schema(DECLARED[kind])
    for setting in declared:
        if setting.kind in NUMBERS or setting.kind in ("int", "float"):
            bad = [value for value in BEYOND if value != -1 or setting.kind in NUMBERS]
            assert all(setting.error(value) for value in bad), setting
            assert all(len(setting.error(value)) < 200 for value in bad), setting


@named("poisons")
def test_poisons(name, tiny, craft, log):
    if name == "external":
        return
    make = registry.load("poisons", name)
    for setting in registry.entry("poisons", name).settings:
        for value in ends(setting):

            def run(setting=setting, value=value) -> None:
                perturbation = make(tiny, craft(name, tiny), **cheap("poisons", name) | {setting.name: value})
                perturbations.apply(tiny.images, perturbation)

            log(f"{setting.name}: {value}:", attempt(run) or "runs")


def trained(train, method, recipe: dict) -> None:
    for error in registry.consistency.errors(params.Params({"train": recipe, "grid": {}})):
        raise UserError(error)
    how = {"images": train.images, "classes": 10, "generator": torch.Generator(), "device": "cpu"}
    models.build("cnn", {"width": 8}, **how, size=method.input_size((32, 32)))
    model = model_of(train)
    weights = models.weights(model_of(train, seed=3))
    method.initialise(model, weights, weights)
    probe_set = ProbeSet.draw(train, recipe["probe_size"], Seeds("test").generator("probe"))
    fit(model.train(), method, train, train, recipe, Seeds("test"), probe_set=probe_set, label="t")


@named("methods")
def test_methods(name, tiny, log, tmp_path):
    own = cheap_method(name, models.weights(model_of(tiny, seed=3)), tmp_path)
    for setting in registry.entry("methods", name).settings:
        for value in ends(setting):

            def run(setting=setting, value=value) -> None:
                method = registry.load("methods", name)(**own | {setting.name: value})
                trained(tiny, method, RECIPE | {"epochs": 1, "probe_size": 40})

            log(f"{setting.name}: {value}:", attempt(run) or "runs")


@named("pretraining")
def test_pretrainings(name, tiny, log):
    for setting in registry.entry("pretraining", name).settings:
        for value in ends(setting):

            def run(setting=setting, value=value) -> None:
                stage = registry.load("pretraining", name)(**cheap("pretraining", name) | {setting.name: value})
                recipe = stage.recipe(RECIPE | {"probe_size": 40}, len(tiny))
                model = model_of(tiny)
                stage.attach(model, torch.Generator())
                how = {
                    "probe_set": ProbeSet.draw(tiny, 40, torch.Generator()),
                    "label": "p",
                    "section": "pretraining.p",
                }
                fit(model.train(), stage, tiny, None, recipe, Seeds("test"), **how)

            log(f"{setting.name}: {value}:", attempt(run) or "runs")


def test_recipe(tiny, log):
    for setting in params.schema(params.Recipe):
        for value in ends(setting):

            def run(setting=setting, value=value) -> None:
                trained(
                    tiny,
                    registry.load("methods", "erm")(),
                    RECIPE | {"epochs": 1, "probe_size": 40} | {setting.name: value},
                )

            log(f"{setting.name}: {value}:", attempt(run) or "runs")


@named("architectures")
def test_architectures(name, log):
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    for setting in registry.entry("architectures", name).settings:
        for value in ends(setting):

            def run(setting=setting, value=value) -> None:
                how = {"images": images, "classes": 4, "generator": torch.Generator(), "device": "cpu"}
                models.build(name, {setting.name: value}, **how)

            said = attempt(run)
            log(f"{setting.name}: {value}:", said or "runs")
            assert value == 1 or "GB of memory, and cpu has 2.0 GB; give a smaller width" in said


@named("datasets")
def test_datasets(name, log):
    if "root" not in inspect.signature(registry.load("datasets", name)).parameters or name != "digits":
        return  # those that are read are as large as they are
    for setting in registry.entry("datasets", name).settings:
        for value in ends(setting):

            def run(setting=setting, value=value) -> None:
                registry.load("datasets", name)(Path(), **{"copies": 1, "size": 10} | {setting.name: value})

            log(f"{setting.name}: {value}:", attempt(run) or "runs")


@named("architectures")
def test_architectures_declare_their_layer_groups(name):
    """By these `relearn check-params` checks what methods say of layer groups."""
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    how = {"images": images, "classes": 4, "generator": torch.Generator(), "device": "cpu"}
    model = models.build(name, cheap("architectures", name), **how)
    declared = registry.entry("architectures", name).groups
    # of timm they depend on the model, which no source text knows
    assert declared == tuple(model.layer_groups()) or (name == "timm" and not declared)
