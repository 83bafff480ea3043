"""The training loop: what it draws, measures, freezes and restores."""

import copy
import math

import pytest
import torch

from helpers.compare import same, stir
from helpers.images import drawn
from helpers.training import GROUPS, model_of, run_of
from relearn.data import to_float
from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.methods.random_frozen import RandomFrozen
from relearn.training import models

# One step


def test_rate_warms_up_and_falls_to_zero(tiny):
    run = run_of(tiny, lr=0.2, warmup_steps=4)
    found = []
    for _ in range(run.training.steps):
        run.advance()
        found.append(run.training.optimizer.param_groups[0]["lr"])
    cosine = [0.5 * (1 + math.cos(math.pi * step / 15)) for step in range(15)]
    assert found == pytest.approx([0.2 * min(1, (step + 1) / 4) * factor for step, factor in enumerate(cosine)])
    assert run.training.steps == 15 and found[-1] < 0.01


def test_one_step_is_sgd_on_the_batch(tiny):
    """The first step against torch used by hand: same batch, same gradient, same rule."""
    seen = []

    class Watching(ERM):
        def loss(self, model, x, y, generator, criterion):
            seen.append((x.clone(), y.clone()))
            return super().loss(model, x, y, generator, criterion)

    run, model = run_of(tiny, Watching(), warmup_steps=0, momentum=0.9), model_of(tiny).train()
    run.advance()
    x, y = seen[0]
    torch.nn.functional.cross_entropy(model(x), y).backward()
    for (name, ours), theirs in zip(run.training.model.named_parameters(), model.parameters(), strict=True):
        gradient = theirs.grad + 5e-4 * theirs
        assert torch.allclose(ours, theirs - 0.1 * (1 + 0.9) * gradient, atol=1e-6), name  # nesterov from no momentum


def test_an_epoch_shows_no_image_twice(tiny):
    marked = tiny.with_images(torch.arange(80, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 32, 3).contiguous())
    seen = []

    class Watching(ERM):
        def loss(self, model, x, y, generator, criterion):
            seen.append((x[:, 0, 0, 0] * 255).round().long())
            assert torch.equal(tiny.labels[seen[-1]], y)
            return super().loss(model, x, y, generator, criterion)

    run = run_of(marked, Watching(), crop_pad=0, flip=False)
    for _ in range(10):
        run.advance()
    first, second = torch.cat(seen[:5]), torch.cat(seen[5:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(80))
    assert not torch.equal(first, second)


def test_fewer_images_than_a_batch(odd):
    """They would train in batches of another size than the record says."""
    with pytest.raises(UserError, match=r"train\.batch is 64, but the training set has 10 images"):
        run_of(odd.pick(torch.arange(10)), batch=64)
    few = odd.pick(torch.arange(40))
    assert run_of(few, batch=40).training.steps_per_epoch == 1


def test_history_says_what_was(tiny):
    """With next to no learning rate and no augmentation, loss and accuracy are those of one pass in training mode."""
    run = run_of(tiny, lr=1e-12, crop_pad=0, flip=False)
    order = torch.randperm(80, generator=run.seeds.generator("batches", 0)).split(16)
    model, losses, right = model_of(tiny).train(), [], 0
    with torch.no_grad():
        for part in order:
            scores = model(to_float(tiny.images[part]))
            losses.append(torch.nn.functional.cross_entropy(scores, tiny.labels[part]).item())
            right += (scores.argmax(1) == tiny.labels[part]).sum().item()
    for _ in range(5):
        run.advance()
    run.end_epoch(tiny)
    (row,) = run.history
    assert row["train_loss"] == pytest.approx(sum(losses) / 5, rel=1e-4) and row["train_accuracy"] == pytest.approx(
        100 * right / 80
    )
    assert (row["epoch"], row["step"], row["steps_taken"], row["stage"]) == (1, 5, 5, "early")
    assert list(row)[-10:] == [f"acm_{name}" for name in GROUPS] + [f"rate_{name}" for name in GROUPS]


def test_an_architecture_refuses_what_a_method_leaves_of_the_images(tiny):
    size = ERM(downsample=5).input_size(tiny.images.shape[1:3])
    with pytest.raises(UserError, match="cnn needs images of at least 8x8, found 6x6"):
        models.build("cnn", {"width": 8}, images=tiny.images, classes=10, generator=drawn(), device="cpu", size=size)


# Rates


def test_frozen_groups_keep_their_weights_and_not_their_statistics(tiny):
    run = run_of(tiny, RandomFrozen(full_rate_groups=2))
    before = {name: tensor.clone() for name, tensor in run.training.model.state_dict().items()}
    for _ in range(3):
        run.advance()
    frozen = tuple(f"network.{name}." for name in GROUPS[:3])
    parameters = dict(run.training.model.named_parameters())
    for name, tensor in run.training.model.state_dict().items():
        moved = not torch.equal(before[name], tensor)
        if name in parameters:
            assert moved != name.startswith(frozen), name
            assert (parameters[name].grad is None) == name.startswith(frozen), name
        elif name.endswith(("running_mean", "running_var")):
            assert moved, name


def test_a_smaller_rate_is_a_smaller_step(tiny):
    steps = []
    for rate in (1.0, 0.25):
        run = run_of(tiny)
        run.training.set_rates(dict.fromkeys(GROUPS, 1.0) | {"block1": rate})
        before = [p.detach().clone() for p in run.training.model.parameters()]
        run.advance()
        steps.append([p.detach() - old for p, old in zip(run.training.model.parameters(), before, strict=True)])
    assert torch.allclose(0.25 * steps[0][0], steps[1][0], atol=1e-7) and torch.equal(steps[0][-1], steps[1][-1])


@pytest.mark.parametrize(
    "full_rate_groups, expected", [(1, [0, 0, 0, 0, 1]), (2, [0, 0, 0, 1, 1]), (4, [0, 1, 1, 1, 1])]
)
def test_random_frozen_rates(full_rate_groups, expected):
    assert RandomFrozen(full_rate_groups=full_rate_groups).rates(GROUPS) == dict(
        zip(GROUPS, map(float, expected), strict=True)
    )


def test_erm_rates():
    assert ERM().rates(GROUPS) == dict.fromkeys(GROUPS, 1.0)


# Going back


def test_restore_brings_back_every_byte(tiny):
    run = run_of(tiny)
    training = run.training
    for _ in range(7):  # in the middle of the second epoch
        run.advance()
        if training.step == 5:
            run.end_epoch(tiny)
    snapshot = training.snapshot()
    stored = copy.deepcopy(snapshot)
    assert stored["optimizer"]["state"] and stored["extra"]["sums"].sum() > 0
    training.set_rates(dict.fromkeys(GROUPS, 1.0) | {"block1": 0.0})
    training.stage = "stage 1"
    for _ in range(4):
        run.advance()
        if training.step == 10:
            run.end_epoch(tiny)
    assert same(snapshot, stored)  # training on does not write into a snapshot
    assert [row["epoch"] for row in run.history] == [1, 2] and not same(training.snapshot(), stored)
    run.method.on_probe = lambda state: state.restore(snapshot)
    run.take_probe()
    assert same(training.snapshot(), stored)
    assert (training.step, training.steps_taken, training.stage) == (7, 11, "early")
    assert set(training.rates.values()) == {1.0}
    assert [row["epoch"] for row in run.history] == [1] and [row["epoch"] for row in run.rolled_back] == [2]
    assert all(p.requires_grad for p in training.model.parameters())
    run.advance()
    assert same(snapshot, stored)  # nor does training on after a restore: it may be needed again


def test_a_restored_run_repeats_itself(tiny):
    run = run_of(tiny)
    for _ in range(3):
        run.advance()
    snapshot, ends = run.training.snapshot(), []
    run.method.on_probe = lambda state: state.restore(snapshot)
    for garbage in range(2):
        stir(garbage)
        for _ in range(6):  # over the end of an epoch
            run.advance()
            if run.training.step == 5:
                run.end_epoch(tiny)
        rows = [{key: value for key, value in row.items() if key != "steps_taken"} for row in run.history]
        ends.append((copy.deepcopy(run.training.snapshot()), rows))
        run.take_probe()
    assert len(ends[0][1]) == 1 and same(*ends)
    assert run.training.steps_taken == 3 + 6 + 6


def test_a_probe_is_taken_anew_after_a_restore(tiny):
    """The result of a probe is stored for the step, and a restore changes the model without one."""
    run = run_of(tiny, lr=1.0)
    snapshot, early = run.training.snapshot(), run.training.measure()
    for _ in range(8):
        run.advance()
    late = run.training.measure()
    assert late is run.training.measure() and late != early
    run.training.restore(snapshot)
    assert run.training.measure() == early


@pytest.mark.parametrize("steps", [0, 3])
def test_a_restore_brings_back_the_momentum_of_the_snapshot(steps, tiny):
    run = run_of(tiny)

    def momentum() -> list[torch.Tensor]:
        state = run.training.optimizer.state_dict()["state"]
        return [entry["momentum_buffer"].clone() for entry in state.values()]

    for _ in range(steps):
        run.advance()
    snapshot, before = run.training.snapshot(), momentum()
    assert len(before) == (len(list(run.training.model.parameters())) if steps else 0)  # none before the first step
    for _ in range(4):
        run.advance()
    assert not same(momentum(), before)
    run.training.restore(snapshot)
    assert same(momentum(), before)


# What the recipe asks for


def test_linear_decay_after_the_warm_up(tiny):
    run = run_of(tiny, lr=0.2, warmup_steps=4, schedule="linear")
    found = []
    for _ in range(run.training.steps):
        run.advance()
        found.append(run.training.optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([0.2 * min(1, (step + 1) / 4) * (1 - step / 15) for step in range(15)])


def test_micro_batches_add_up_to_the_gradient_of_the_batch(tiny):
    """Batch norm sees a part at a time, so torch by hand does the same; 16 images in parts of 6, 6 and 4."""
    seen = []

    class Watching(ERM):
        def loss(self, model, x, y, generator, criterion):
            seen.append((x.clone(), y.clone()))
            return super().loss(model, x, y, generator, criterion)

    run, model = run_of(tiny, Watching(), warmup_steps=0, micro_batch=6), model_of(tiny).train()
    run.advance()
    assert [len(y) for _, y in seen] == [6, 6, 4]
    for x, y in seen:
        (torch.nn.functional.cross_entropy(model(x), y, reduction="sum") / 16).backward()
    for (name, ours), theirs in zip(run.training.model.named_parameters(), model.parameters(), strict=True):
        gradient = theirs.grad + 5e-4 * theirs
        assert torch.allclose(ours, theirs - 0.1 * (1 + 0.9) * gradient, atol=1e-6), name
    assert same(dict(run.training.model.named_buffers()), dict(model.named_buffers()))


def test_a_micro_batch_of_the_whole_batch_changes_nothing(tiny):
    plain, parts = run_of(tiny), run_of(tiny, micro_batch=16)
    for run in (plain, parts):
        for _ in range(3):
            run.advance()
    assert same(plain.training.model.state_dict(), parts.training.model.state_dict())


def test_label_smoothing_gives_a_share_of_each_label_to_all_classes(tiny):
    run = run_of(tiny, label_smoothing=0.3)
    logits, labels = torch.randn(4, 10, generator=drawn()), torch.tensor([0, 3, 3, 9])
    target = 0.7 * torch.nn.functional.one_hot(labels, 10) + 0.3 / 10
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    assert run.criterion(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [1, 2, 4, 5]), (3, [1, 3, 5]), (9, [1, 5])])
def test_only_some_epochs_are_tested(tiny, every, epochs):
    run = run_of(tiny, epochs=5, test_epochs=every)
    while run.training.step < run.training.steps:
        run.advance()
        if run.training.step % 5 == 0:
            run.end_epoch(tiny)
    assert [row["epoch"] for row in run.history] == epochs
    assert [row["step"] for row in run.history] == [5 * epoch for epoch in epochs]
    # loss and accuracy are those of one epoch, not of all since the last row
    assert all(0 < row["train_loss"] < 5 and row["train_accuracy"] <= 100 for row in run.history)
    assert {row["epoch"] for row in run.embeddings} == {1, 5}
