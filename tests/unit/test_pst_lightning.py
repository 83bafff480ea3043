"""PST in the loop of Lightning is PST in a loop of one's own."""

import importlib.util
import sys

import pytest
import torch
import torch.nn.functional as F

from helpers.compare import same
from helpers.frameworks import (
    BATCH,
    EPOCHS,
    MEAN,
    STD,
    STEPS,
    by_hand,
    loader_of,
    made,
    network,
    normalised,
    settings_of,
    weights,
)
from relearn.errors import UserError
from relearn.pst.views import Normalisation, Views

# pytest-xdist would import Lightning, and with it torchvision, in its own process to show a warning of its classes
pytestmark = pytest.mark.filterwarnings("ignore")
needs_lightning = pytest.mark.skipif(
    importlib.util.find_spec("lightning") is None, reason="lightning is not installed (make extras)"
)


def module_of(mapping: bool = False, optimizers: int = 1):
    """A LightningModule around the network of the runs that are compared."""
    from relearn.pst.lightning import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network()
            self.seen = []

        def forward(self, x):
            return self.network(x)

        def training_step(self, batch, _):
            images, labels = batch.values() if mapping else batch
            self.seen.append(images)
            return F.cross_entropy(self(images), labels)

        def validation_step(self, batch, _):
            images, labels = batch.values() if mapping else batch
            self.log("accuracy", (self(images).argmax(1) == labels).double().mean())

        def configure_optimizers(self):
            found = [made(self.network) for _ in range(optimizers)]
            if optimizers > 1:
                self.automatic_optimization = False
                return [optimizer for optimizer, _ in found]
            return {"optimizer": found[0][0], "lr_scheduler": {"scheduler": found[0][1], "interval": "step"}}

    return Module()


def trainer_of(*callbacks, **how):
    from relearn.pst.lightning import lightning

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    own = {"max_epochs": EPOCHS, "accelerator": "cpu", "devices": 1, "enable_checkpointing": False, **quiet}
    return lightning.Trainer(callbacks=list(callbacks), **own | how)


def fitted(data, settings: dict, micro: int = 1, **how):
    from relearn.pst.lightning import PSTCallback

    data, module = normalised(data), module_of()
    callback = PSTCallback(data, **settings)
    trainer = trainer_of(callback, accumulate_grad_batches=micro, **how)
    trainer.fit(module, loader_of(data, BATCH // micro), loader_of(data))
    return callback, module, trainer


def rows(pst) -> list[tuple]:
    return [(row["steps_taken"], row["step"], row["next_step"], row["next_stage"]) for row in pst.probes]


@needs_lightning
@pytest.mark.usefixtures("decided_by_limit")
@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("name", ["anew", "slowed"])
def test_the_same_weights_and_probes_to_the_last_bit(name, micro, data):
    plain, expected = by_hand(data, settings_of(name), micro)
    callback, module, trainer = fitted(data, settings_of(name), micro)
    assert callback.pst.stage == plain.stage == "stage 2"
    assert callback.pst.training.steps_taken == plain.training.steps_taken == trainer.global_step > EPOCHS * STEPS
    assert rows(callback.pst) == rows(plain)
    assert same(weights(module.network), expected)
    assert [row["probe_accuracy"] for row in callback.pst.probes] == [row["probe_accuracy"] for row in plain.probes]


@needs_lightning
@pytest.mark.usefixtures("decided_by_limit")
def test_every_batch_passes_through_the_view(data):
    callback, module, _ = fitted(data, settings_of("anew"))
    images = normalised(data).tensors[0][:BATCH]
    assert torch.equal(module.seen[0], images)  # plain at first
    later = module.seen[-STEPS]
    assert later.shape == images.shape and not torch.equal(later, images)
    trainer, seen = trainer_of(), []
    module.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trainer.validate(module, loader_of(normalised(data)), verbose=False)
    module.eval()
    assert torch.equal(seen[0], callback.pst.view(images)) and not torch.equal(seen[0], images)


@needs_lightning
@pytest.mark.usefixtures("decided_by_limit")
def test_a_checkpoint_is_tested_as_its_stage_takes_images(data, tmp_path):
    """That of a network trained on plain images, after a training that has ended on grayscale ones."""
    from relearn.pst.lightning import PSTCallback, lightning

    class Save(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 1:
                trainer.save_checkpoint(tmp_path / "first.ckpt")

    images, module = normalised(data), module_of()
    callback = PSTCallback(images, **settings_of("anew"))
    trainer = trainer_of(callback, Save())
    trainer.fit(module, loader_of(images))
    assert callback.pst.stage == "stage 2"
    seen = []
    module.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    trainer.validate(module, loader_of(images), ckpt_path=tmp_path / "first.ckpt", verbose=False)
    assert torch.equal(seen[0], images.tensors[0][:BATCH]) and callback.pst.stage == "early"
    trainer_of(callback, max_epochs=1).fit(module, loader_of(images))  # begins anew, not where the checkpoint was
    assert [row["steps_taken"] for row in callback.pst.probes][:2] == [0, 4]


@needs_lightning
def test_a_module_that_was_trained_before_is_seen_through_one_view_alone(data):
    """The view of the first training does not come on top of that of the second: no image is augmented twice."""
    from relearn.pst.lightning import PSTCallback

    images, module = normalised(data), module_of()
    for _ in range(2):
        callback = PSTCallback(images, convolve=0.5, mean=MEAN, std=STD, probe_size=40)
        module.seen.clear()
        trainer_of(callback, max_epochs=1).fit(module, loader_of(images))
        views = Views(callback.pst.method, Normalisation(MEAN, STD), seed=0)
        batch = images.tensors[0][:BATCH]
        assert torch.equal(module.seen[0], views.training(batch, 0, 0)) and not torch.equal(module.seen[0], batch)


@needs_lightning
@pytest.mark.usefixtures("decided_by_limit")
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_goes_on_from_a_checkpoint(epochs, data, tmp_path):
    """Taken after so many epochs of the trainer: the first and the second end by a roll-back."""
    from relearn.pst.lightning import PSTCallback, lightning

    whole, expected, _ = fitted(data, settings_of("anew"))
    path, images = tmp_path / "state.ckpt", normalised(data)

    class Stop(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.fit_loop.epoch_progress.current.processed == epochs:
                trainer.save_checkpoint(path)
                trainer.should_stop = True

    trainer_of(PSTCallback(images, **settings_of("anew")), Stop()).fit(module_of(), loader_of(images))
    callback, module = PSTCallback(images, **settings_of("anew")), module_of()
    trainer_of(callback).fit(module, loader_of(images), ckpt_path=path)
    assert callback.pst.probes == whole.pst.probes
    assert same(weights(module.network), weights(expected.network))


@needs_lightning
@pytest.mark.usefixtures("decided_by_limit")
@pytest.mark.parametrize("own", [False, True])
def test_batches_of_a_data_module_that_are_mappings(own, data):
    """Whether the hook after which the view comes is of the data module or of the module."""
    from relearn.pst.lightning import PSTCallback, lightning

    class Batches(lightning.LightningDataModule):
        def train_dataloader(self):
            rows = normalised(data)
            return loader_of([{"image": image, "label": int(label)} for image, label in rows])

    class Doubled(Batches):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return {**batch, "label": batch["label"] + 0}

    plain, expected = by_hand(data, settings_of("anew"))
    callback, module = PSTCallback(normalised(data), **settings_of("anew")), module_of(mapping=True)
    trainer_of(callback).fit(module, datamodule=Doubled() if own else Batches())
    assert rows(callback.pst) == rows(plain) and same(weights(module.network), expected)


@needs_lightning
def test_batches_of_other_kinds(data):
    from relearn.pst.lightning import PSTCallback

    callback = PSTCallback(data)
    assert callback.view(data) is data  # before training
    callback.pst = type("Double", (), {"view": staticmethod(lambda x: 2 * x)})
    assert callback.view((1, 2, 3)) == [2, 2, 3]
    with pytest.raises(UserError, match=r"a batch must be \(images, ...\) or a mapping, found a str"):
        callback.view("images")


@needs_lightning
@pytest.mark.parametrize(
    "how, optimizers, message",
    [
        ({"max_steps": 4}, 1, r"without max_steps, .* found max_epochs 3 and max_steps 4"),
        ({"max_epochs": -1}, 1, r"max_epochs=...\) must be 1 or more, .* found max_epochs -1"),
        ({}, 2, r"must have one optimizer, found 2"),
    ],
)
def test_what_is_refused(how, optimizers, message, data):
    from relearn.pst.lightning import PSTCallback

    module = module_of(optimizers=optimizers)
    with pytest.raises(UserError, match=message):
        trainer_of(PSTCallback(data), **how).fit(module, loader_of(data))


@needs_lightning
def test_several_schedulers_are_refused(data):
    from relearn.pst.lightning import PSTCallback

    module = module_of()
    optimizer, scheduler = made(module.network)
    both = [scheduler, torch.optim.lr_scheduler.ConstantLR(optimizer)]
    module.configure_optimizers = lambda: ([optimizer], both)
    with pytest.raises(UserError, match="at most one scheduler, found 2: a roll-back would not reach the others"):
        trainer_of(PSTCallback(data)).fit(module, loader_of(data))


def test_without_lightning(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.delitem(sys.modules, "relearn.pst.lightning", raising=False)
    with pytest.raises(UserError, match=r"needs Lightning; install it: pip install 'relearn\[lightning\]'$"):
        importlib.import_module("relearn.pst.lightning")
