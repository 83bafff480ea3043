"""What holds for every poison."""

import numpy
import pytest
import torch

from helpers.compare import stir
from helpers.registered import NAMES, cheap, named
from relearn import registry
from relearn.crafting import perturbation as perturbations


def uses_a_model(name: str) -> bool:
    return any(setting.kind in NAMES for setting in registry.entry("poisons", name).settings)


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

    def crafted(**more) -> tuple[perturbations.Perturbation, torch.Tensor]:
        perturbation = make(train, craft(name, train), **own | more)
        return perturbation, perturbations.apply(train.images, perturbation)[0]

    stir(1)
    perturbation, poisoned = crafted()
    # it may not write on what it is given
    assert torch.equal(train.images, images) and torch.equal(train.labels, labels)
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
    # the foreign noise is what it is
    if "epsilon" in settings and perturbation.budget.norm != "none" and name != "external":
        smaller = crafted(epsilon=settings["epsilon"] / 2)[0].budget
        assert smaller.value < perturbation.budget.value and smaller.norm == perturbation.budget.norm


@pytest.mark.parametrize("name", [name for name in registry.entries("poisons") if uses_a_model(name)])
def test_poisons_are_crafted_in_bfloat16_too(name, tiny, craft):
    """The noise is not that of float32, but as large, and the same every time."""
    make, own = registry.load("poisons", name), cheap("poisons", name)

    def crafted(precision: str) -> torch.Tensor:
        context = craft(name, tiny)
        context.precision = precision
        if context.surrogate is not None:
            context.surrogate.precision = precision
        perturbation = make(tiny, context, **own)
        perturbations.apply(tiny.images, perturbation)
        return perturbation.delta

    one, plain = crafted("bfloat16"), crafted("float32")
    assert torch.equal(one, crafted("bfloat16")) and not torch.equal(one, plain)
    assert one.abs().mean().item() == pytest.approx(plain.abs().mean().item(), rel=0.2)


@named("poisons")
def test_poisons_that_train_or_attack_a_model_say_what_it_costs(name):
    """`relearn plan` would call such a poison free of charge otherwise."""
    entry = registry.entry("poisons", name)
    declared = getattr(registry.module("poisons", name), "PASSES", {})
    assert (name in declared) == uses_a_model(name)
    if uses_a_model(name):
        defaults = {s.name: NAMES.get(s.kind) if s.default is registry.REQUIRED else s.default for s in entry.settings}
        assert 0 < declared[name](defaults, 50_000) < 100_000  # DeepConfuse alone makes 80,000
