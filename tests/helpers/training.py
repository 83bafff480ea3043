"""Small models and runs of the training loop."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from helpers.images import drawn
from relearn import params
from relearn.methods.erm import ERM
from relearn.probing.probe_set import ProbeResult, ProbeSet
from relearn.probing.verdict import KEPT, NOT_TRAPPED, TRAPPED, Verdict, judge
from relearn.runtime.hashing import file_digest
from relearn.runtime.seeding import Seeds
from relearn.training import fit, models
from relearn.training.divergence import FiniteGuard

GROUPS = ["block1", "block2", "block3", "block4", "head"]
RECIPE = {setting.name: setting.default for setting in params.schema(params.Recipe)}
# `tiny`: 5 steps an epoch, 15 in all
RECIPE |= {"epochs": 3, "batch": 16, "warmup_steps": 2, "crop_pad": 2, "checkpoint_epochs": 1}

GUARD = FiniteGuard("test", "no remedy")


def model_of(train, seed: int = 2, width: int = 8) -> models.Normalised:
    """A cnn for these images, always the same one of a seed."""
    own = {"images": train.images, "classes": 10, "generator": drawn(seed), "device": str(train.images.device)}
    return models.build("cnn", {"width": width}, **own)


def pretrained_of(train, width: int = 8) -> dict[str, torch.Tensor]:
    """Weights of another model, whose batch-norm statistics have moved too."""
    model = model_of(train, seed=9, width=width).train()
    model(train.images.permute(0, 3, 1, 2).float() / 255)
    return models.weights(model)


def run_of(train, method=None, model=None, **recipe) -> fit.Run:
    """A run of 15 steps at its beginning; plain training of a cnn if nothing else is named."""
    model = (model or model_of(train)).train()
    method = method or ERM()
    return fit.Run(model, method, train, RECIPE | recipe, Seeds("test"), ProbeSet.draw(train, 40, drawn()))


def probe_result(kept: float, accuracy: float = 0.91, acm: float = 0.3, groups=GROUPS, images: int = 10_000):
    """What a probe of ten classes finds in a network that keeps this share of its accuracy above chance."""
    return ProbeResult(dict.fromkeys(groups, acm), accuracy, 0.1 + kept * (accuracy - 0.1), 0.1, images)


ALWAYS_TRAPPED = {"confirm": 1, "kept_trapped": 1e9}  # with `by_limit`
NEVER_TRAPPED = {"kept_trapped": 1e-9}


def by_limit(result: ProbeResult, limit: float = KEPT, clustered_limit: float = 0.0) -> Verdict:
    """In place of `judge` for networks that have learned nothing: an absurd limit decides alone."""
    if limit == KEPT:
        return judge(result)
    return Verdict(TRAPPED if limit > 1 else NOT_TRAPPED, "by the limit", 0.5, 0.0)


def saved(weights: dict, file: Path) -> dict:
    """The settings of a method that begins with these weights, kept in `file`."""
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)
    else:
        torch.save(weights, file)
    return {"path": str(file), "sha256": file_digest(file, "sha256")}
