"""PST in the Trainer of Hugging Face, and with Accelerate, is PST in a loop of one's own."""

import importlib.util
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.compare import same
from helpers.frameworks import BATCH, EPOCHS, STEPS, by_hand, loader_of, made, network, normalised, settings_of, weights
from relearn.errors import UserError
from relearn.pst import PST

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None or importlib.util.find_spec("accelerate") is None,
    reason="transformers and accelerate are not installed (make extras)",
)
CLIP = 0.5


class Classifier(nn.Module):
    """The network of the runs that are compared, called as the Trainer calls models."""

    def __init__(self):
        super().__init__()
        self.network = network()
        self.seen = []

    def forward(self, pixel_values, labels=None):
        self.seen.append(pixel_values)
        logits = self.network(pixel_values)
        found = {"logits": logits}
        return found if labels is None else {"loss": F.cross_entropy(logits, labels), **found}


class Items(torch.utils.data.Dataset):
    """Items as those of Hugging Face's datasets."""

    def __init__(self, data):
        self.images, self.labels = data.tensors

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return {"pixel_values": self.images[row], "labels": int(self.labels[row])}


def trainer_of(data, folder, settings: dict, micro: int = 1, callbacks=(), **how):
    from transformers import TrainingArguments

    from relearn.pst.transformers import PSTTrainer

    own = {"num_train_epochs": EPOCHS, "gradient_accumulation_steps": micro, "max_grad_norm": CLIP, "use_cpu": True}
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}
    batches = {"per_device_train_batch_size": BATCH // micro, "train_sampling_strategy": "sequential"}
    arguments = TrainingArguments(str(folder), **own | quiet | batches | how)
    model, items = Classifier(), Items(normalised(data))
    return PSTTrainer(
        model,
        arguments,
        train_dataset=items,
        eval_dataset=items,
        probe_dataset=items,
        settings=settings,
        optimizers=made(model.network),
        callbacks=list(callbacks),
    )


def rows(pst) -> list[tuple]:
    return [(row["steps_taken"], row["step"], row["next_step"], row["next_stage"]) for row in pst.probes]


@needs_transformers
@pytest.mark.usefixtures("decided_by_limit")
@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("name", ["anew", "slowed"])
def test_the_same_weights_and_probes_to_the_last_bit(name, micro, data, tmp_path):
    plain, expected = by_hand(data, settings_of(name), micro, CLIP)
    trainer = trainer_of(data, tmp_path, settings_of(name), micro)
    trainer.train()
    pst = trainer.pst
    assert pst.stage == plain.stage == "stage 2" and rows(pst) == rows(plain)
    assert pst.training.steps_taken == plain.training.steps_taken == trainer.state.global_step > EPOCHS * STEPS
    assert same(weights(trainer.model.network), expected)


@needs_transformers
@pytest.mark.usefixtures("decided_by_limit")
def test_every_batch_passes_through_the_view(data, tmp_path):
    trainer = trainer_of(data, tmp_path, settings_of("anew"))
    trainer.train()
    images = normalised(data).tensors[0][:8]  # of an evaluation batch
    trainer.model.seen.clear()
    trainer.evaluate()
    trainer.model.eval()
    assert torch.equal(trainer.model.seen[0], trainer.pst.view(images))
    assert not torch.equal(trainer.model.seen[0], images)


@needs_transformers
@pytest.mark.usefixtures("decided_by_limit")
def test_the_best_model_is_evaluated_as_its_stage_takes_images(data, tmp_path):
    """A network trained on plain images, after a training that has ended on grayscale ones."""
    from transformers import TrainerCallback

    class First(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_save = state.global_step == 1

    trainer = trainer_of(data, tmp_path, settings_of("anew"), callbacks=[First()])
    trainer.train()
    assert trainer.pst.stage == "stage 2"
    trainer.state.best_model_checkpoint = str(tmp_path / "checkpoint-1")
    trainer._load_best_model()  # as train does with load_best_model_at_end
    trainer.model.seen.clear()
    trainer.evaluate()
    assert torch.equal(trainer.model.seen[0], normalised(data).tensors[0][:8]) and trainer.pst.stage == "early"


@needs_transformers
@pytest.mark.usefixtures("decided_by_limit")
@pytest.mark.parametrize("steps", [4, 6, 8, 13])
def test_a_run_goes_on_from_a_checkpoint(steps, data, tmp_path):
    """Taken after so many steps, twice by a roll-back."""
    from transformers import TrainerCallback

    whole = trainer_of(data, tmp_path, settings_of("anew"))
    whole.train()

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_save = control.should_training_stop = state.global_step == steps

    first = trainer_of(data, tmp_path, settings_of("anew"))
    first.add_callback(Stop())  # after PST's own
    if steps == 6:
        with pytest.warns(UserWarning, match="training ended at step 2 of 15"):
            first.train()
    else:
        first.train()
    again = trainer_of(data, tmp_path, settings_of("anew"))
    again.train(resume_from_checkpoint=True)
    assert again.pst.probes == whole.pst.probes and again.state.global_step == whole.state.global_step
    assert same(weights(again.model.network), weights(whole.model.network))


@needs_transformers
@pytest.mark.parametrize(
    "how, message",
    [
        ({"num_train_epochs": 1.5}, r"num_train_epochs must be whole, without max_steps, found 1.5 and -1"),
        ({"max_steps": 4}, r"num_train_epochs must be whole, without max_steps, found 3.* and 4"),
    ],
)
def test_what_is_refused(how, message, data, tmp_path):
    with pytest.raises(UserError, match=message):
        trainer_of(data, tmp_path, settings_of("slowed"), **how).train()


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "relearn.pst.transformers", raising=False)
    with pytest.raises(UserError, match=r"install them: pip install 'relearn\[transformers\]'$"):
        importlib.import_module("relearn.pst.transformers")


# Accelerate


def with_accelerate(data, settings: dict, micro: int) -> tuple[PST, dict]:
    """The library where Accelerate has wrapped all that it wraps."""
    from accelerate import Accelerator

    data, accelerator = normalised(data), Accelerator(cpu=True, gradient_accumulation_steps=micro)
    model = network()
    optimizer, scheduler = made(model)
    model, optimizer, scheduler, loader = accelerator.prepare(
        model, optimizer, scheduler, loader_of(data, BATCH // micro)
    )
    pst = PST(model, optimizer, data, steps_per_epoch=STEPS, scheduler=scheduler, **settings)
    for epoch in pst.epochs(EPOCHS):
        loader.set_epoch(epoch)
        model.train()
        for images, labels in loader:
            with accelerator.accumulate(model):
                loss = F.cross_entropy(model(pst.view(images)), labels)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients and pst.step():
                break
    return pst, weights(accelerator.unwrap_model(model))


@needs_transformers
@pytest.mark.usefixtures("decided_by_limit")
@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("name", ["anew", "slowed"])
def test_accelerate(name, micro, data):
    (plain, expected), (pst, found) = (
        by_hand(data, settings_of(name), micro, CLIP),
        with_accelerate(data, settings_of(name), micro),
    )
    assert pst.stage == plain.stage == "stage 2" and rows(pst) == rows(plain)
    assert same(found, expected)
