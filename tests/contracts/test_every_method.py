"""What holds for every method."""

import math

import torch

from helpers.compare import same, stir
from helpers.images import DEVICE
from helpers.registered import cheap, cheap_method, named
from relearn import params, registry
from relearn.probing.probe_set import ProbeSet
from relearn.runtime.seeding import Seeds
from relearn.training import checkpoint, models
from relearn.training.fit import Run, fit

RECIPE = {setting.name: setting.default for setting in params.schema(params.Recipe)}
RECIPE |= {"epochs": 2, "batch": 16, "warmup_steps": 2, "crop_pad": 2}


def methods_model(train, purpose: str = "init") -> models.Normalised:
    generator = Seeds("test").generator(purpose)
    return models.build("cnn", {"width": 4}, images=train.images, classes=10, generator=generator, device=DEVICE)


def methods_fit(name: str, train, folder):
    train = train.to(DEVICE)
    weights = models.weights(methods_model(train, "surrogate"))
    method = registry.load("methods", name)(**cheap_method(name, weights, folder))
    train = train.with_images(method.prepare(train.images, train.labels))
    model = methods_model(train)
    method.initialise(model, weights, weights)
    probe_set = ProbeSet.draw(train, 40, Seeds("test").generator("probe"))
    how = {"probe_set": probe_set, "label": "test"}
    fitted = fit(model, method, train, train, RECIPE, Seeds("test", 0), **how)
    return fitted, models.weights(model), method


@named("methods")
def test_methods(name, tiny, tmp_path):
    stir(1)
    fitted, weights, _ = methods_fit(name, tiny, tmp_path)
    stir(2)
    again, weights_again, _ = methods_fit(name, tiny, tmp_path)
    assert [row["epoch"] for row in fitted.history] == [1, 2] and fitted.steps == 10 <= fitted.steps_taken
    assert all(math.isfinite(value) for row in fitted.history for value in row.values() if isinstance(value, float))
    assert all(row["train_loss"] > 0 for row in fitted.history)
    assert not same(weights, models.weights(methods_model(tiny)))  # it did train
    assert same(weights, weights_again) and same(vars(fitted.last_probe), vars(again.last_probe))
    assert (
        same(fitted.history, again.history)
        and same(fitted.probes, again.probes)
        and same(fitted.embeddings, again.embeddings)
    )


@named("methods")
def test_methods_keep_their_state_in_a_checkpoint(name, tiny, tmp_path):
    _, _, method = methods_fit(name, tiny, tmp_path)
    checkpoint.save(tmp_path / "state", {"method": method.state(), "settings_hash": "0"})
    other = registry.load("methods", name)(**cheap("methods", name))
    other.load_state(checkpoint.load(tmp_path / "state", DEVICE)["method"])
    assert same(other.state(), method.state())


@named("methods")
def test_methods_give_a_rate_to_each_group(name, tiny):
    tiny = tiny.to(DEVICE)
    method, model = registry.load("methods", name)(**cheap("methods", name)), methods_model(tiny)
    rates = method.rates(list(model.layer_groups()))
    assert list(rates) == list(model.layer_groups())
    assert all(rate >= 0 for rate in rates.values()) and max(rates.values()) > 0
    probe_set = ProbeSet.draw(tiny, 40, Seeds("test").generator("probe"))
    run = Run(model, method, tiny, RECIPE, Seeds("test"), probe_set)
    assert run.training.rates == rates


@named("methods")
def test_methods_change_images_within_their_range(name, tiny):
    method = registry.load("methods", name)(**cheap("methods", name))
    original = tiny.to(DEVICE)
    images = original.images.clone()
    prepared = method.prepare(images, original.labels)
    assert torch.equal(images, original.images)  # others read them too
    assert torch.equal(prepared, method.prepare(images, original.labels))
    assert prepared.shape == tiny.images.shape and prepared.dtype == torch.uint8
    x = prepared[:16].permute(0, 3, 1, 2).float() / 255
    first, second = (method.augment(x.clone(), torch.Generator(DEVICE).manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    for changed in (first, method.eval_transform(x.clone())):
        assert changed.shape == x.shape and changed.dtype == torch.float32 and changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(method.eval_transform(x.clone()), method.eval_transform(x.clone()))
