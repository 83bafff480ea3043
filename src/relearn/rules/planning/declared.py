"""What a registered thing costs at its defaults, as its file declares it; `relearn list KIND NAME` shows it."""

from collections.abc import Callable

from relearn import params, registry
from relearn.rules.planning import cost

IMAGES = 50_000  # of the training set that is spoken of, as in CIFAR-10
ARCH = "resnet18"  # any; the recipe is that of all


def declared_cost(kind: str, name: str) -> tuple[float, str] | None:
    """The cost of a thing with its default settings: a number, and what it counts; None for a kind that trains nothing.

    Of poisons, purifications and pretrainings forward and backward passes per image, of methods the passes in units of
    those of plain training. Raises UserError for an unknown name; imports the file of the thing, and torch.
    """
    return _COSTS[kind](name) if kind in _COSTS else None


def _poison(name: str) -> tuple[float, str]:
    passes = cost.passes(_alone("poisons", name), "poisons", name, IMAGES)
    return passes, f"forward and backward passes per image, at most, for {IMAGES:,} images"


def _purification(name: str) -> tuple[float, str]:
    passes = cost.passes(_alone("purifications", name), "purifications", name, IMAGES)
    return passes, "forward and backward passes per image through a network of its own"


def _pretraining(name: str) -> tuple[float, str]:
    epochs = _alone("pretraining", name).settings("pretraining", name)["epochs"]
    return 2.0 * epochs, "forward and backward passes per image: two views in each epoch"


def _method(name: str) -> tuple[float, str]:
    alone = _alone("methods", name)
    epochs, plain = cost.epochs(alone, ARCH, name), alone.recipe_of(ARCH)["epochs"]
    times = epochs / plain * cost.passes_per_step(alone, ARCH, name)
    return times, "times the passes of plain training, at most; a pretraining comes on top where one is named"


def _alone(section: str, name: str) -> params.Params:
    """A params file in which everything has its defaults, with this one entry."""
    registry.entry(section, name)
    return params.Params({"architectures": {ARCH: {}}, section: {name: {}}})


_COSTS: dict[str, Callable[[str], tuple[float, str]]] = {
    "poisons": _poison,
    "purifications": _purification,
    "pretraining": _pretraining,
    "methods": _method,
}
