"""What holds for everything registered: a new data set, poison, architecture or method is tested because it is there."""

import inspect
import math
from pathlib import Path

import numpy
import pytest
import torch
from conftest import same, stir
from PIL import Image

from relearn import checkpoint, grid, models, params, quantise, registry, stages
from relearn.errors import Fault
from relearn.fit import Run, fit
from relearn.probe import Probe
from relearn.seeding import Seeds
from relearn.steps import plot

ROOT = Path(__file__).resolve().parents[1]
EVERYTHING = [(kind, name) for kind in registry.KINDS for name in registry.entries(kind)]
DOWNLOADED = {
    "cifar10": 10,
    "cifar100": 100,
}  # their archives are faked in test_datasets_files.py; here only what they promise

# What is given for settings that cost time, wherever a registered thing has one of these names. A width below 8 would do,
# but torch 2.13 on a CPU corrupts memory in the backward pass of a 1x1 convolution of stride 2 with fewer input channels.
CHEAP = {"copies": 1, "width": 8, "rounds": 2, "steps": 2, "batches": 3, "batch": 16, "epochs": 1, "tick_steps": 2}
CHEAP |= {
    "restarts": 2,
    "models": 3,
    "iterations": 3,
    "samples": 2,
    "attack_steps": 2,
    "block": 24,
    "validation": 16,
    "particles": 3,
    "searches": 2,
    "sample": 4,
}
NAMES = {"ArchitectureName": "cnn", "SurrogateName": "surrogate"}
RECIPE = {setting.name: setting.default for setting in params.schema(params.Recipe)}
RECIPE |= {"epochs": 2, "batch": 16, "warmup_steps": 2, "crop_pad": 2}


def named(kind):
    return pytest.mark.parametrize("name", registry.entries(kind))


def cheap(kind: str, name: str, path: str = "") -> dict:
    """Settings under which a registered thing runs in a moment; `path` is what its InputPath gets."""
    found = {}
    for setting in registry.entry(kind, name).settings:
        if setting.kind == "InputPath":
            found[setting.name] = path
        elif setting.kind in NAMES:
            found[setting.name] = NAMES[setting.kind]
        elif setting.name in CHEAP:
            found[setting.name] = CHEAP[setting.name]
    return found


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
    nodes, cells = grid.nodes(preset), grid.cells(preset)
    assert cells and {node.argument for node in nodes if node.step == "train"} == set(map(str, cells))
    assert len({name for node in nodes for name in node.outputs}) == sum(len(node.outputs) for node in nodes)
    made = {name for node in nodes for name in node.outputs}
    assert all(name in made for node in nodes for name in node.inputs if name.startswith(grid.RESULTS))
    assert all((ROOT / name).is_file() for node in nodes for name in node.sources)
    looped = [node for node in nodes if node.step != "sources"]
    assert stages.render(preset).count("command:") == len(looped)  # raises Fault where dvc.yaml has too few places
    assert all(f"results/sources/{node.step}.sha256" in node.inputs for node in looped)


# Data sets


@pytest.fixture
def pictures(tmp_path) -> str:
    """A folder of images: two classes, six for training and four for testing of each."""
    generator = numpy.random.default_rng(0)
    for part, count in (("train", 6), ("test", 4)):
        for label in ("cat", "dog"):
            (tmp_path / "pictures" / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (40, 50, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / part / label / f"{number}.png")
    return str(tmp_path / "pictures")


def check_split(part, classes: int) -> None:
    assert (
        part.images.dtype == torch.uint8
        and part.images.ndim == 4
        and part.images.shape[3] == 3
        and part.images.is_contiguous()
    )
    assert part.labels.dtype == part.index.dtype == torch.int64
    assert len(part.images) == len(part.labels) == len(part.index) == len(part.index.unique())
    assert part.labels.unique().tolist() == list(range(classes))
    assert part.images.float().std() > 1  # not a constant


@named("datasets")
def test_datasets(name, tmp_path, pictures):
    settings = {s.name: s for s in registry.entry("datasets", name).settings}
    if name in DOWNLOADED:
        subsets = {"train_per_class", "test_per_class", "seed"}
        assert set(settings) == subsets and settings["train_per_class"].default is None
        return
    make, own = registry.load("datasets", name), cheap("datasets", name, pictures)
    stir(1)
    one = make(tmp_path / "root", **own)
    stir(2)
    again = make(tmp_path / "root", **own)
    assert len(one.classes) == len(set(one.classes)) > 1 and all(isinstance(word, str) for word in one.classes)
    for part in (one.train, one.test):
        check_split(part, len(one.classes))
    assert one.train.images.shape[1:] == one.test.images.shape[1:]
    assert (
        same(vars(one.train), vars(again.train))
        and same(vars(one.test), vars(again.test))
        and one.classes == again.classes
    )
    # no image in both splits: training on the test images is the one fault nothing later would show
    tests = {image.numpy().tobytes() for image in one.test.images}
    assert not any(image.numpy().tobytes() in tests for image in one.train.images)
    if "train_per_class" in settings:  # without a subset there may be nothing to draw
        own |= {"train_per_class": 3}
        one = make(tmp_path / "root", **own)
    if "seed" in settings:
        assert not same(vars(one.train), vars(make(tmp_path / "root", **own, seed=1).train))


# Architectures


@named("architectures")
@pytest.mark.parametrize("size", [(32, 32), (40, 32)])
def test_architectures(name, size):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (6, *size, 3), generator=generator, dtype=torch.uint8)
    model = models.build(
        name, cheap("architectures", name), images=images, classes=7, generator=generator, device="cpu"
    )
    scores = model(images.permute(0, 3, 1, 2).float() / 255)
    assert scores.shape == (6, 7) and scores.isfinite().all()
    groups = model.layer_groups()
    assert len(groups) >= 3  # PST slows some and keeps some
    parts = [id(p) for group in groups.values() for p in group.parameters()]
    assert parts == [id(p) for p in model.parameters()]  # all, once, shallow to deep
    scores.square().sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), label
        assert parameter.ndim == 1 or parameter.grad.abs().sum() > 0, label


@named("architectures")
def test_architectures_call_their_groups_in_order(name):
    """ACM is measured on the groups' outputs, and PST freezes from the front: the order must be that of the forward pass."""
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    model = models.build(
        name, cheap("architectures", name), images=images, classes=4, generator=torch.Generator(), device="cpu"
    )
    called = []
    for label, group in model.layer_groups().items():
        group.register_forward_hook(lambda *_, label=label: called.append(label))
    model(torch.zeros(2, 3, 32, 32))
    assert called == list(model.layer_groups())


@named("architectures")
def test_architectures_take_all_weights_from_the_generator(name):
    images = torch.randint(0, 256, (4, 32, 32, 3), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)

    def weights(seed: int) -> dict:
        generator = torch.Generator().manual_seed(seed)
        return models.weights(
            models.build(
                name, cheap("architectures", name), images=images, classes=5, generator=generator, device="cpu"
            )
        )

    stir(1)
    one = weights(0)
    stir(2)
    before = torch.random.get_rng_state()
    assert same(one, weights(0))
    assert torch.equal(torch.random.get_rng_state(), before)
    other = weights(1)
    drawn = [key for key, tensor in one.items() if tensor.ndim > 1 and key.startswith("network.")]
    assert drawn and not any(torch.equal(one[key], other[key]) for key in drawn)


@named("architectures")
def test_architectures_refuse_images_that_are_too_small(name):
    images = torch.zeros(1, 2, 32, 3, dtype=torch.uint8)
    with pytest.raises(Fault, match=r"2x32"):
        models.build(
            name, cheap("architectures", name), images=images, classes=2, generator=torch.Generator(), device="cpu"
        )


@named("architectures")
def test_architectures_are_rebuilt_from_their_weights(name):
    images = torch.randint(0, 256, (4, 32, 32, 3), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    own, generator = cheap("architectures", name), torch.Generator().manual_seed(6)
    model = models.build(name, own, images=images, classes=5, generator=generator, device="cpu").eval()
    copy = models.rebuild(name, own, models.weights(model), classes=5, size=(32, 32), device="cpu").eval()
    x = images.permute(0, 3, 1, 2).float() / 255
    assert torch.equal(model(x), copy(x))
    with pytest.raises(Fault, match=f"not of {name}"):
        models.rebuild(name, own, models.weights(model), classes=6, size=(32, 32), device="cpu")


# Poisons


@pytest.fixture(params=["tiny", "odd"])
def train(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def foreign(train, tmp_path) -> str:
    """A perturbation made elsewhere."""
    noise = numpy.random.default_rng(0).integers(-4, 5, tuple(train.images.shape)).astype(numpy.int8)
    numpy.save(tmp_path / "foreign.npy", noise)
    return str(tmp_path / "foreign.npy")


@named("poisons")
def test_poisons(name, train, craft, foreign):
    make, own = registry.load("poisons", name), cheap("poisons", name, foreign)
    images, labels = train.images.clone(), train.labels.clone()

    def crafted(**more) -> tuple[quantise.Perturbation, torch.Tensor]:
        perturbation = make(train, craft(name, train), **own | more)
        return perturbation, quantise.apply(train.images, perturbation)[0]

    stir(1)
    perturbation, poisoned = crafted()
    assert torch.equal(train.images, images) and torch.equal(
        train.labels, labels
    )  # it may not write on what it is given
    assert perturbation.delta.isfinite().all() and perturbation.delta.shape[1:] == images.shape[1:]
    assert not perturbation.delta.requires_grad and perturbation.delta.is_contiguous()
    assert poisoned.shape == images.shape and poisoned.dtype == torch.uint8
    assert torch.equal(poisoned, images) == (perturbation.budget.value == 0)
    stir(2)
    again, poisoned_again = crafted()
    assert torch.equal(again.delta, perturbation.delta) and again.budget == perturbation.budget
    assert torch.equal(poisoned_again, poisoned)
    settings = {s.name: s.default for s in registry.entry("poisons", name).settings}
    if "seed" in settings:
        assert not torch.equal(crafted(seed=1)[1], poisoned)
    if (
        "epsilon" in settings and perturbation.budget.norm != "none" and name != "external"
    ):  # the foreign noise is what it is
        smaller = crafted(epsilon=settings["epsilon"] / 2)[0].budget
        assert smaller.value < perturbation.budget.value and smaller.norm == perturbation.budget.norm


@named("poisons")
def test_poisons_that_train_or_attack_a_model_say_what_it_costs(name):
    """`relearn plan` would call such a poison free of charge otherwise."""
    entry = registry.entry("poisons", name)
    declared = getattr(registry.module("poisons", name), "PASSES", {})
    uses_a_model = any(setting.kind in NAMES for setting in entry.settings)
    assert (name in declared) == uses_a_model
    if uses_a_model:
        defaults = {s.name: NAMES.get(s.kind) if s.default is registry.REQUIRED else s.default for s in entry.settings}
        assert 0 < declared[name](defaults, 50_000) < 100_000  # DeepConfuse alone makes 80,000


# Methods


def methods_model(train, purpose: str = "init") -> models.Normalised:
    generator = Seeds("test").generator(purpose)
    return models.build("cnn", {"width": 4}, images=train.images, classes=10, generator=generator, device="cpu")


def methods_fit(name: str, train):
    model, method = methods_model(train), registry.load("methods", name)(**cheap("methods", name))
    method.initialise(model, models.weights(methods_model(train, "surrogate")))
    probe = Probe.draw(train, 40, Seeds("test").generator("probe"))
    fitted = fit(model, method, train, train, RECIPE, Seeds("test", 0), probe=probe, precision="float32", label="test")
    return fitted, models.weights(model), method


@named("methods")
def test_methods(name, tiny):
    stir(1)
    fitted, weights, _ = methods_fit(name, tiny)
    stir(2)
    again, weights_again, _ = methods_fit(name, tiny)
    assert [row["epoch"] for row in fitted.history] == [1, 2] and fitted.steps == 10 <= fitted.iterations
    assert all(math.isfinite(value) for row in fitted.history for value in row.values() if isinstance(value, float))
    assert all(row["train_loss"] > 0 for row in fitted.history)
    assert not same(weights, models.weights(methods_model(tiny)))  # it did train
    assert same(weights, weights_again) and same(vars(fitted.reading), vars(again.reading))
    assert (
        same(fitted.history, again.history)
        and same(fitted.ticks, again.ticks)
        and same(fitted.embeddings, again.embeddings)
    )


@named("methods")
def test_methods_keep_their_state_in_a_checkpoint(name, tiny, tmp_path):
    _, _, method = methods_fit(name, tiny)
    checkpoint.save(tmp_path / "state", method.state())
    other = registry.load("methods", name)(**cheap("methods", name))
    other.load_state(checkpoint.load(tmp_path / "state", "cpu"))
    assert same(other.state(), method.state())


@named("methods")
def test_methods_give_a_rate_to_each_group(name, tiny):
    method, model = registry.load("methods", name)(**cheap("methods", name)), methods_model(tiny)
    rates = method.rates(list(model.layer_groups()))
    assert list(rates) == list(model.layer_groups())
    assert all(rate >= 0 for rate in rates.values()) and max(rates.values()) > 0
    run = Run(
        model, method, tiny, RECIPE, Seeds("test"), Probe.draw(tiny, 40, Seeds("test").generator("probe")), "float32"
    )
    assert run.rates == rates


@named("methods")
def test_methods_change_images_within_their_range(name, tiny):
    method = registry.load("methods", name)(**cheap("methods", name))
    prepared = method.prepare(tiny.images.clone())
    assert prepared.shape == tiny.images.shape and prepared.dtype == torch.uint8
    x = prepared[:16].permute(0, 3, 1, 2).float() / 255
    first, second = (method.augment(x.clone(), torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    for changed in (first, method.view(x.clone())):
        assert changed.shape == x.shape and changed.dtype == torch.float32 and 0 <= changed.min() and changed.max() <= 1
    assert torch.equal(method.view(x.clone()), method.view(x.clone()))
