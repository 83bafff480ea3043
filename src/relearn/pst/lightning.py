"""PST as a callback of Lightning (docs/recipes.md); needs `pip install 'relearn[lightning]'`."""

from collections.abc import Iterator, Mapping

import torch

from relearn.errors import UserError
from relearn.pst.loop import PST
from relearn.runtime.torchvision_compat import torchvision

torchvision()  # lightning imports it
try:
    from lightning import pytorch as lightning
except ImportError:
    raise UserError("relearn.pst.lightning needs Lightning; install it: pip install 'relearn[lightning]'") from None

HOOK = "on_after_batch_transfer"


class PSTCallback(lightning.Callback):
    """Trains a LightningModule by PST: give it to `Trainer(callbacks=[...], max_epochs=...)`, before other callbacks.

    `data` is the training set under the transform of test time, and `settings` are those of `relearn.pst.PST`, but for
    `steps_per_epoch` and `scheduler`, which the trainer knows. The module's `forward` gives logits (N, K). Batches are
    (images, ...) or have the key `image` or `pixel_values`; their images pass through `PST.view` after the module's
    hook `on_after_batch_transfer`, in training, validation, test and prediction alike. After a roll-back the trainer
    leaves the epoch, and its `max_epochs` grows by what is to be repeated. `pst` is the PST since training began.
    Raises UserError for a trainer without a number of epochs, with `max_steps`, or with several optimizers or
    schedulers.
    """

    def __init__(self, data, **settings):
        super().__init__()
        self.data, self.settings = data, settings
        self.pst: PST | None = None
        self._state: dict | None = None
        self._fitting = True  # or testing, validating, predicting
        self._epochs: Iterator[int] = iter(())
        self._total = self._updates = 0

    def setup(self, trainer: "lightning.Trainer", pl_module: "lightning.LightningModule", stage: str) -> None:
        """Know what the state of a checkpoint is loaded for."""
        self._fitting = stage == "fit"

    def on_fit_start(self, trainer: "lightning.Trainer", pl_module: "lightning.LightningModule") -> None:
        """Make the PST, since model and optimizer are ready; the batches to come pass through its view."""
        self._total, steps = trainer.max_epochs or 0, trainer.estimated_stepping_batches
        if self._total < 1 or trainer.max_steps != -1 or steps == float("inf"):
            raise UserError(
                f"pst: Trainer(max_epochs=...) must be 1 or more, without max_steps, with a loader that has a length, "
                f"found max_epochs {trainer.max_epochs} and max_steps {trainer.max_steps}"
            )
        if len(trainer.optimizers) != 1:
            raise UserError(f"pst: the module must have one optimizer, found {len(trainer.optimizers)}")
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        if len(schedulers) > 1:
            raise UserError(
                f"pst: the module must have at most one scheduler, found {len(schedulers)}: a roll-back would not "
                "reach the others; make one of them, such as torch's ChainedScheduler"
            )
        self.pst = PST(
            trainer.model,
            trainer.optimizers[0],
            self.data,
            steps_per_epoch=int(steps) // self._total,
            scheduler=schedulers[0] if schedulers else None,
            **self.settings,
        )
        for owner in filter(None, (pl_module, getattr(trainer, "datamodule", None))):
            _add_view(owner, self)
        if self._state:
            trainer.fit_loop.max_epochs = 2**62  # until it is known how many of them are left

    def on_train_start(self, trainer: "lightning.Trainer", pl_module: "lightning.LightningModule") -> None:
        """Begin the schedule, or go on with it where a checkpoint was saved."""
        if self._state:
            self._pst.load_state_dict(self._state)
        self._epochs, self._updates, self._state = self._pst.epochs(self._total), trainer.global_step, None
        self._plan(trainer)

    def on_train_epoch_start(self, trainer: "lightning.Trainer", pl_module: "lightning.LightningModule") -> None:
        """Begin the next epoch of the schedule."""
        next(self._epochs)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx: int) -> None:
        """The same where Lightning resumes within an epoch, and does not begin one."""
        if not self._pst.in_epoch:
            next(self._epochs)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        """After a step of the optimizer, let PST act; leave the epoch when it is over."""
        if trainer.global_step > self._updates:
            self._updates = trainer.global_step
            if self._pst.step():
                trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True

    def on_train_epoch_end(self, trainer: "lightning.Trainer", pl_module: "lightning.LightningModule") -> None:
        """Let the trainer go on until the schedule is complete."""
        self._plan(trainer)

    def on_train_end(self, trainer: "lightning.Trainer", pl_module: "lightning.LightningModule") -> None:
        """Warn when training ended before its schedule."""
        getattr(self._epochs, "close", int)()

    def state_dict(self) -> dict:
        """The state of the PST, for the trainer's checkpoint."""
        return self.pst.state_dict() if self.pst else {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Put it back when training begins; to test a checkpoint, take images as at its stage."""
        if self._fitting:
            self._state = state_dict or None
        elif self.pst and state_dict:
            self.pst.staging.stage = state_dict["staging"]["stage"]

    def view(self, batch):
        """A batch whose images are as the network gets them; before training the batch itself."""
        if self.pst is None or isinstance(batch, torch.Tensor | Mapping):
            return batch if self.pst is None else self.pst.view(batch)
        if not isinstance(batch, tuple | list) or not batch:
            raise UserError(f"pst: a batch must be (images, ...) or a mapping, found a {type(batch).__name__}")
        return [self.pst.view(batch[0]), *batch[1:]]

    @property
    def _pst(self) -> PST:
        if self.pst is None:
            raise UserError("pst: training has not begun; call trainer.fit")
        return self.pst

    def _plan(self, trainer: "lightning.Trainer") -> None:
        left = -(-(self._pst.training.steps - self._pst.training.step) // self._pst.steps_per_epoch)
        trainer.fit_loop.max_epochs = trainer.fit_loop.epoch_progress.current.processed + left


def _add_view(owner: object, callback: PSTCallback) -> None:
    """Let batches pass through the view of `callback` after the hook of a module, or of a data module that has one."""
    hook = getattr(owner, HOOK)
    if getattr(hook, "callback", callback) is not callback:
        hook = hook.before  # of an earlier training, whose view would come on top of this one
    own = isinstance(owner, lightning.LightningModule) or lightning.utilities.model_helpers.is_overridden(HOOK, owner)
    if own and getattr(hook, "callback", None) is not callback:

        def viewed(batch, dataloader_idx: int):
            return callback.view(hook(batch, dataloader_idx))

        viewed.callback, viewed.before = callback, hook  # type: ignore[attr-defined]
        setattr(owner, HOOK, viewed)
