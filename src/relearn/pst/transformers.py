"""PST in the Trainer of Hugging Face (docs/recipes.md); needs `pip install 'relearn[transformers]'`."""

from collections.abc import Iterator
from pathlib import Path

import torch

from relearn.errors import UserError
from relearn.pst.loop import PST
from relearn.runtime.torchvision_compat import torchvision

torchvision()  # transformers imports it
try:
    from transformers import Trainer, TrainerCallback
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
except ImportError:
    raise UserError(
        "relearn.pst.transformers needs transformers and accelerate; install them: pip install 'relearn[transformers]'"
    ) from None

STATE = "pst.pt"  # in the folder of a checkpoint


class PSTTrainer(Trainer):
    """A `transformers.Trainer` that trains by PST.

    `probe_dataset` is the training set under the transform of test time, and `settings` are those of
    `relearn.pst.PST`, but for `steps_per_epoch` and `scheduler`, which the trainer knows. Batches have the key
    `pixel_values` or `image`; their images pass through `PST.view`, in training, evaluation and prediction alike. After
    a roll-back the trainer leaves the epoch, and the state's `max_steps` grows by what is to be repeated. `pst` is the
    PST since training began. Raises UserError unless `num_train_epochs` is whole, or when `max_steps` is given.
    """

    def __init__(self, *arguments, probe_dataset, settings: dict | None = None, **named):
        self.probe_dataset, self.settings = probe_dataset, dict(settings or {})
        self.pst: PST | None = None
        self.steps_per_epoch, self.checkpoint = 0, ""
        super().__init__(*arguments, **named)
        self.add_callback(_Watch(self))

    def set_initial_training_values(self, args, dataloader):
        """Those of the trainer, with room for the epochs that roll-backs repeat."""
        epochs, steps_per_epoch, *rest = super().set_initial_training_values(args, dataloader)
        if args.max_steps > 0 or args.num_train_epochs != int(args.num_train_epochs):
            raise UserError(
                f"pst: num_train_epochs must be whole, without max_steps, found {args.num_train_epochs} "
                f"and {args.max_steps}"
            )
        self.steps_per_epoch = steps_per_epoch
        stages = len(self.settings.get("full_rate_groups", [2])) + 1
        return (epochs * (stages + 1) + stages, steps_per_epoch, *rest)

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        return inputs if self.pst is None else self.pst.view(inputs)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        self.checkpoint = checkpoint or ""

    def _load_best_model(self):
        """The best model, whose checkpoint may be of an earlier stage; images are taken as at that."""
        super()._load_best_model()
        if (saved := _saved(self.state.best_model_checkpoint)) and self.pst:
            self.pst.staging.stage = saved["staging"]["stage"]

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, trial):
        """Where a checkpoint stands by the schedule: the steps taken may be more."""
        found = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, checkpoint, trial)
        if state := _saved(checkpoint):
            epochs, steps = divmod(state["step"], num_update_steps_per_epoch)
            skipped = 0 if self.args.ignore_data_skip else steps * self.args.gradient_accumulation_steps
            return epochs, skipped
        return found


class _Watch(TrainerCallback):
    """What PST does at the events of the training of `trainer`."""

    def __init__(self, trainer: PSTTrainer):
        self.trainer = trainer
        self.epochs: Iterator[int] = iter(())

    @property
    def pst(self) -> PST:
        assert self.trainer.pst is not None, "training has begun"
        return self.trainer.pst

    def on_train_begin(self, args, state, control, **_) -> None:
        """Make the PST, since model and optimizer are ready, and put back its state from a checkpoint."""
        trainer = self.trainer
        trainer.pst = PST(
            trainer.model_wrapped,
            trainer.optimizer,
            trainer.probe_dataset,
            steps_per_epoch=trainer.steps_per_epoch,
            scheduler=trainer.lr_scheduler,
            **trainer.settings,
        )
        if saved := _saved(trainer.checkpoint):
            self.pst.load_state_dict(saved)
        trainer.checkpoint = ""
        self.epochs = self.pst.epochs(int(args.num_train_epochs))
        state.num_train_epochs = int(args.num_train_epochs)

    def on_epoch_begin(self, args, state, control, **_) -> None:
        """Begin the next epoch of the schedule."""
        next(self.epochs)

    def on_step_end(self, args, state, control, **_) -> None:
        """Let PST act on a step; leave the epoch when it is over, and training with the schedule."""
        over = self.pst.step()
        left = self.pst.training.steps - self.pst.training.step
        if left and state.global_step >= state.max_steps:  # a roll-back at the last step
            control.should_training_stop = False
        state.max_steps = state.global_step + left
        control.should_epoch_stop = control.should_epoch_stop or over

    def on_save(self, args, state, control, **_) -> None:
        """Save the state of PST in the checkpoint."""
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            torch.save(self.pst.state_dict(), folder / STATE)

    def on_train_end(self, args, state, control, **_) -> None:
        """Warn when training ended before its schedule."""
        getattr(self.epochs, "close", int)()


def _saved(checkpoint: str | None) -> dict | None:
    """The state of PST in the folder of a checkpoint, if there is one."""
    path = Path(checkpoint or "") / STATE
    return torch.load(path, weights_only=True, map_location="cpu") if checkpoint and path.is_file() else None
