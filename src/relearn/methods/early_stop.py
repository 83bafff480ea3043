"""Early stopping without clean images: the epoch is chosen on a part of the poisoned training images."""

import torch

from relearn.data import Split, draw_share
from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.probing import metrics
from relearn.registry import PositiveFraction, register
from relearn.training.state import TrainingState


@register
class EarlyStop(ERM):
    """Plain training that ends with the weights of the epoch that is best on held-out training images.

    A share `held_out` of every class, drawn by seed, is not trained on. Other training images take their places, so
    that epochs have as many steps as in plain training. The accuracy on the held-out images is measured after every
    epoch; at the end the weights of the epoch with the highest accuracy (the first of equal ones) are restored.
    Held-out images are poisoned like the others, so this is what a user without clean images can do; the oracle, which
    chooses by test images, is in every record. Raises UserError when
    nothing of a class is left to train on.
    """

    def __init__(self, *, held_out: PositiveFraction = 0.1, **augmentation):
        super().__init__(**augmentation)
        self.held_out = held_out
        self.kept: Split | None = None  # the images that are held out
        self.accuracy, self.epoch = -1.0, 0  # of the best epoch so far, in percent
        self.weights: dict[str, torch.Tensor] = {}

    def hold_out(self, train: Split, generator: torch.Generator) -> Split:
        """Keep a share of the images, and put others in their places; `generator` is on the CPU."""
        held = draw_share(train.labels.cpu(), self.held_out, generator)
        others = torch.nonzero(~held).flatten()
        if len(train.labels.cpu()[others].unique()) < len(train.labels.unique()):
            raise UserError(f"early_stop: with held_out: {self.held_out:g} a class has no image to train on; give less")
        self.kept = train.pick(torch.nonzero(held).flatten())
        rows = torch.arange(len(train))
        rows[held] = others[torch.randint(0, len(others), (int(held.sum()),), generator=generator)]
        return Split(train.images[rows], train.labels[rows], train.index[rows], train.originals or len(train))

    def on_epoch(self, training: TrainingState) -> None:
        """Measure, remember the best weights, and put them back at the end."""
        assert self.kept is not None
        logits = metrics.logits(training.model, self.kept.images, training.eval_transform)
        accuracy = metrics.accuracy(logits, self.kept.labels)
        if accuracy > self.accuracy:
            self.accuracy, self.epoch = accuracy, training.step // training.steps_per_epoch
            self.weights = {name: tensor.detach().clone() for name, tensor in training.tensors()}
        if training.step == training.steps:
            with torch.no_grad():
                for name, tensor in training.tensors():
                    tensor.copy_(self.weights[name])
            training.forget_measurement()

    def outcome(self) -> dict[str, float]:
        """The epoch that was chosen, and its accuracy on held-out images."""
        return {"epoch": self.epoch, "held_out_accuracy": self.accuracy}

    def state(self) -> dict:
        """The best weights so far, and their epoch."""
        return {"weights": self.weights, "accuracy": self.accuracy, "epoch": self.epoch}

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
        self.weights, self.accuracy, self.epoch = state["weights"], state["accuracy"], state["epoch"]
