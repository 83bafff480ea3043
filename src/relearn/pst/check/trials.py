"""The trainings of a check, by the methods and the loop of the workflow: plain, and by PST."""

import dataclasses
import time
from dataclasses import dataclass

import torch

from relearn.data import Split
from relearn.params import Params
from relearn.probing import metrics
from relearn.probing.hiding import blurred, hidden
from relearn.probing.probe_set import ProbeSet
from relearn.probing.verdict import Verdict, judge
from relearn.pst.check.inputs import weights_like
from relearn.pst.check.sizing import Sizes, Speed
from relearn.runtime.seeding import Seeds
from relearn.training import models
from relearn.training.fit import Fitted, Run, fit

PLAIN, PST, PRETRAINING = "erm", "pst", "contrastive"
#: the recipe of the preset cifar10_fast, without what follows from the sizes
RECIPE = {"optimizer": "muon", "lr": 0.12, "schedule": "linear", "momentum": 0.7, "label_smoothing": 0.1, "crop_pad": 2}
IMAGES = {"gray": 1.0, "convolve": 0.7, "degrade": 0.6, "contrast": 0.4}
#: the method pst of the preset pst, without staged_epochs
STAGES = {"pretraining": PRETRAINING, "plain_first": True, "augmented_first": True, "full_rate_groups": [3]} | IMAGES
TIMED, LEAST = 4, 1.5  # steps of each kind, again until so many seconds have passed: shorter bursts run faster
WARM = 2  # steps before them
UNENDING = 10_000  # epochs, so that the schedule does not end while steps are timed
LARGEST, FEWER = 256, 4  # images of a step that is timed, and how many times fewer those of a second one are


@dataclass(frozen=True)
class Material:
    """What trainings share: the images to train on and those held out, clean test images if there are any, the rest.

    All splits lie on `device`.
    """

    train: Split
    held_out: Split
    clean: Split | None
    classes: int
    seed: int
    device: str
    precision: str


@dataclass(frozen=True)
class Trial:
    """What a training leaves. Accuracies in 0..1: of held-out images as given, hidden and blurred, and of clean ones.

    That of clean images is an average with the class shares of the held-out ones (`weights_like`).
    `verdict` is that of the network at the end (relearn.probing.verdict), `stage` the one it ended in.
    """

    stage: str
    steps: int
    verdict: Verdict
    held_out: float
    held_out_hidden: float
    held_out_blurred: float
    clean: float | None
    history: list[dict]


def parameters(chosen: Sizes) -> Params:
    """The settings of all trainings, as params.yaml would have them."""
    train = RECIPE | {"epochs": chosen.epochs, "batch": chosen.batch, "warmup_steps": chosen.warmup_steps}
    return Params(
        {
            "train": train | {"probe_size": chosen.probe_size},
            "architectures": {"speednet": {"width": chosen.width}},
            "pretraining": {PRETRAINING: {"batch": chosen.batch}},
            "methods": {PLAIN: {}, PST: STAGES | {"staged_epochs": chosen.staged_epochs}, "view": _VIEW},
        }
    )


_VIEW = {"use": PLAIN} | IMAGES  # what a step of a stage of PST costs


def by_pst(material: Material, chosen: Sizes) -> Trial:
    """Train by PST. The pretraining runs when the first stage asks for it that slows groups, if one does."""
    params = parameters(chosen)
    method = params.build("methods", PST)
    model = _model(material, params, method, Seeds("check", material.seed))
    learned: dict[str, torch.Tensor] = {}
    method.initialise(model, {}, learned)
    copy = method.staging.start

    def start(trained: torch.nn.Module) -> None:
        if not learned:
            learned.update(_pretrained(material, params))
        copy(trained)

    method.staging.start = start
    return _trial(material, params, model, method, "check: PST")


def plainly(material: Material, chosen: Sizes) -> Trial:
    """Train plainly. Weights, batches and probe set are those of `by_pst`: until the trap both are the same."""
    params = parameters(chosen)
    method = params.build("methods", PLAIN)
    model = _model(material, params, method, Seeds("check", material.seed))
    return _trial(material, params, model, method, "check: plain training")


def speed(material: Material, chosen: Sizes) -> Speed:
    """How fast this device trains and evaluates, by a few steps of each kind, of `LARGEST` images where there are."""
    many = min(LARGEST, len(material.train))
    few = max(1, many // FEWER)
    plain = step_seconds(material, chosen, PLAIN, many)
    # a step costs something whatever its batch, so that small batches cost more an image
    step = min(plain, max(0.0, (FEWER * step_seconds(material, chosen, PLAIN, few) - plain) / (FEWER - 1)))
    images = material.train.images[: metrics.BATCH]
    model = _model(material, parameters(chosen), parameters(chosen).build("methods", PLAIN), Seeds("check", "timing"))
    metrics.logits(model, images)
    return Speed(
        plain=(plain - step) / many,
        staged=max(0.0, step_seconds(material, chosen, "view", many) - step) / many,
        pretraining=max(0.0, step_seconds(material, chosen, PRETRAINING, many) - step) / many,
        evaluated=_timed(material.device, lambda: metrics.logits(model, images)) / len(images),
        step=step,
    )


def step_seconds(material: Material, chosen: Sizes, name: str, batch: int) -> float:
    """Seconds of a step of plain training, of a stage of PST ("view") or of the pretraining."""
    params = parameters(dataclasses.replace(chosen, batch=batch))
    pretraining = name == PRETRAINING
    method = params.build("pretraining" if pretraining else "methods", name)
    recipe = method.recipe(params.recipe, len(material.train)) if pretraining else params.recipe
    recipe = recipe | {"epochs": UNENDING, "warmup_steps": 0}
    seeds = Seeds("check", "timing", name)
    model = _model(material, params, method, seeds)
    if pretraining:
        method.attach(model, seeds.generator("projector"))
    model.train()
    probe_set = ProbeSet.draw(material.train, 2 * material.classes, seeds.generator("probe"))
    run = Run(model, method, material.train, recipe, seeds, probe_set, "check: timing")

    def steps(count: int) -> None:
        for _ in range(count):
            run.advance()

    steps(WARM)
    taken = [_timed(material.device, lambda: steps(TIMED))]
    while sum(taken) < LEAST:
        taken.append(_timed(material.device, lambda: steps(TIMED)))
    return sum(taken) / (TIMED * len(taken))


def _timed(device: str, action) -> float:
    """Seconds of an action, with what the device still has to do."""
    begin = time.perf_counter()
    action()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def _model(material: Material, params: Params, method, seeds: Seeds) -> models.Normalised:
    return models.build(
        *params.architectures["speednet"],
        images=material.train.images,
        classes=material.classes,
        generator=seeds.generator("init"),
        device=material.device,
        transform=method.eval_transform,
        precision=material.precision,
    )


def _fit(material: Material, model: models.Normalised, method, recipe: dict, seeds: Seeds, test, label: str) -> Fitted:
    probe_set = ProbeSet.draw(material.train, recipe["probe_size"], seeds.generator("probe"))
    return fit(model, method, material.train, test, recipe, seeds, probe_set=probe_set, label=label, section="check")


def _trial(material: Material, params: Params, model: models.Normalised, method, label: str) -> Trial:
    seeds = Seeds("check", material.seed)
    fitted = _fit(material, model, method, params.recipe, seeds, material.held_out, label)

    def share(images: Split, view=lambda x: x, batch_statistics: bool = False) -> float:
        scores = metrics.logits(model, images.images, lambda x: method.eval_transform(view(x)), batch_statistics)
        weights = weights_like(images.labels.cpu(), material.held_out.labels.cpu())  # 1 for held-out images themselves
        return float(((scores.argmax(1) == images.labels).cpu() * weights).mean())

    return Trial(
        stage=fitted.history[-1]["stage"],
        steps=fitted.steps_taken,
        verdict=judge(fitted.last_probe),
        held_out=share(material.held_out),
        held_out_hidden=share(material.held_out, hidden, batch_statistics=True),
        held_out_blurred=share(material.held_out, blurred, batch_statistics=True),
        clean=None if material.clean is None else share(material.clean),
        history=fitted.history,
    )


def _pretrained(material: Material, params: Params) -> dict[str, torch.Tensor]:
    """The weights that the slowed groups begin with: learned from the same images, without labels."""
    stage = params.build("pretraining", PRETRAINING)
    seeds = Seeds("check", material.seed, "pretraining")
    model = _model(material, params, stage, Seeds("check", material.seed))
    stage.attach(model, seeds.generator("projector"))
    _fit(material, model, stage, stage.recipe(params.recipe, len(material.train)), seeds, None, "check: pretraining")
    stage.detach(model)
    return {name: tensor.to(material.device) for name, tensor in models.weights(model).items()}
