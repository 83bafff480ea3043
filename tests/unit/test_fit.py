"""The training loop: what it draws, measures, freezes, takes back and resumes; and the state machine of PST."""

import copy
import math

import pytest
import torch
from conftest import drawn, same, stir

from relearn import augment, checkpoint, fit, models, params, probe
from relearn.errors import Fault
from relearn.methods.erm import ERM
from relearn.methods.pst import PST
from relearn.methods.random_frozen import RandomFrozen
from relearn.probe import Probe, Reading, acm_score, pooled
from relearn.seeding import Seeds

GROUPS = ["block1", "block2", "block3", "block4", "head"]
RECIPE = {setting.name: setting.default for setting in params.schema(params.Recipe)}
RECIPE |= {
    "epochs": 3,
    "batch": 16,
    "warmup_steps": 2,
    "crop_pad": 2,
    "checkpoint_epochs": 1,
}  # `tiny`: 5 steps an epoch, 15 in all


def model_of(train) -> models.Normalised:
    return models.build("cnn", {"width": 8}, images=train.images, classes=10, generator=drawn(), device="cpu")


def run_of(train, method=None, **recipe) -> fit.Run:
    model = model_of(train).train()
    method = method or ERM()
    return fit.Run(model, method, train, RECIPE | recipe, Seeds("test"), Probe.draw(train, 40, drawn()), "float32")


# The probe


def test_acm_of_separated_clusters_is_one():
    labels = torch.arange(8).repeat(10)
    corners = 10 * torch.eye(8)[labels]
    features = corners + 0.1 * torch.randn(80, 8, generator=drawn())
    assert acm_score(features, labels, torch.arange(80) // 8 % 2 == 0) == 1.0


def test_acm_of_labels_independent_of_the_features_is_chance():
    features = torch.randn(2000, 20, generator=drawn())
    labels = torch.randint(0, 10, (2000,), generator=drawn())
    assert acm_score(features, labels, torch.arange(2000) % 2 == 0) == pytest.approx(
        0.1, abs=0.04
    )  # four standard deviations


def test_acm_by_hand():
    # means of the reference rows: 0 for class 3, 10 for class 7; of 1, 9, 6, 4 the first two lie nearer to their own
    features = torch.tensor([0.0, 0.0, 10.0, 10.0, 1.0, 9.0, 6.0, 4.0])[:, None]
    labels = torch.tensor([3, 3, 7, 7, 3, 7, 3, 7])
    reference = torch.tensor([True] * 4 + [False] * 4)
    assert acm_score(features, labels, reference) == 0.5
    assert acm_score(-1e4 * features + 7, labels, reference) == 0.5


def test_acm_does_not_depend_on_the_scale_of_a_dimension():
    labels = torch.arange(2).repeat(100)
    telling = labels[:, None] + 0.05 * torch.randn(200, 1, generator=drawn())
    features = torch.cat(
        [telling, 1e4 * torch.randn(200, 1, generator=drawn()), torch.full((200, 1), 3.0)], 1
    )  # noise; a dead unit
    assert acm_score(features, labels, torch.arange(200) // 2 % 2 == 0) > 0.9


def test_pooled():
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(pooled(x), torch.nn.functional.avg_pool2d(x, 2).flatten(1))
    assert pooled(torch.zeros(5, 7, 10, 8)).shape == (5, 7 * 16)
    assert pooled(torch.zeros(5, 7, 4, 4)).shape == (5, 7 * 16) and pooled(torch.zeros(5, 7, 2, 2)).shape == (5, 7 * 4)
    assert pooled(torch.zeros(5, 9)).shape == (5, 9)


@pytest.mark.parametrize("size, per_class", [(40, 4), (9, 2), (10_000, 8)])
def test_probe_draws_as_many_of_each_class(size, per_class, tiny):
    found = Probe.draw(tiny, size, drawn())
    assert found.labels.bincount().tolist() == [per_class] * 10
    assert all(2 * found.reference[found.labels == label].sum() == per_class for label in range(10))
    assert len({image.numpy().tobytes() for image in found.images}) == 10 * per_class


def test_probe_takes_what_small_classes_have(odd):
    found = Probe.draw(odd, 80, drawn())
    assert found.labels.bincount().tolist() == [3, 10, 5, 9, 4, 10, 7, 10]


def test_measuring_changes_nothing(tiny):
    model = model_of(tiny).train()
    before = {name: tensor.clone() for name, tensor in models.weights(model).items()}
    found = Probe.draw(tiny, 40, drawn())
    reading = found.measure(model)
    assert model.training and same(before, models.weights(model))
    assert not any(group._forward_hooks for group in model.layer_groups().values())
    assert list(reading.acm) == GROUPS and all(0 <= value <= 1 for value in (*reading.acm.values(), reading.accuracy))
    assert found.measure(model) == reading
    assert found.measure(model, view=lambda x: torch.zeros_like(x)).acm["block1"] == pytest.approx(
        0.1
    )  # all alike: one class of ten


@pytest.mark.parametrize(
    "acm, accuracy, expected",
    [
        (0.6, 0.6, True),  # the group separates as well as all of the network
        (0.6, 0.8, False),  # 0.6 < 0.85 * 0.8: deeper layers add something
        (0.69, 0.8, True),
        (0.5, 0.1, False),  # not above the threshold
        (0.51, 0.1, True),
        (0.3, 0.1, False),  # better than the network, but both near chance
        (1.0, 1.0, True),
    ],
)
def test_trapped(acm, accuracy, expected):
    assert probe.trapped(Reading({"a": 0.9, "b": acm, "head": 1.0}, accuracy), "b") is expected


def test_trapped_by_other_thresholds():
    reading = Reading({"a": 0.6}, 0.9)
    assert not probe.trapped(reading, "a")
    assert probe.trapped(reading, "a", acm=0.5, ratio=0.6) and not probe.trapped(reading, "a", acm=0.7, ratio=0.6)


@pytest.mark.parametrize(
    "groups, expected",
    [
        (GROUPS, "block2"),
        (["stem", "layer1", "layer2", "layer3", "layer4", "head"], "layer2"),
        (["body", "head"], "body"),
    ],
)
def test_the_middle_group(groups, expected):
    assert probe.middle(Reading(dict.fromkeys(groups, 0.0), 0.0)) == expected


# One step


def test_rate_warms_up_and_falls_to_zero(tiny):
    run = run_of(tiny, lr=0.2, warmup_steps=4)
    found = []
    for _ in range(run.steps):
        run.advance()
        found.append(run.optimiser.param_groups[0]["lr"])
    cosine = [0.5 * (1 + math.cos(math.pi * step / 15)) for step in range(15)]
    assert found == pytest.approx([0.2 * min(1, (step + 1) / 4) * factor for step, factor in enumerate(cosine)])
    assert run.steps == 15 and found[-1] < 0.01


def test_one_step_is_sgd_on_the_batch(tiny):
    """The first step against torch used by hand: same batch, same gradient, same rule."""
    seen = []

    class Watching(ERM):
        def loss(self, model, x, y, generator):
            seen.append((x.clone(), y.clone()))
            return super().loss(model, x, y, generator)

    run, model = run_of(tiny, Watching(), warmup_steps=0, momentum=0.9), model_of(tiny).train()
    run.advance()
    x, y = seen[0]
    torch.nn.functional.cross_entropy(model(x), y).backward()
    for (name, ours), theirs in zip(run.model.named_parameters(), model.parameters()):
        gradient = theirs.grad + 5e-4 * theirs
        assert torch.allclose(ours, theirs - 0.1 * (1 + 0.9) * gradient, atol=1e-6), name  # nesterov from no momentum


def test_an_epoch_shows_no_image_twice(tiny):
    marked = tiny.with_images(torch.arange(80, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 32, 3).contiguous())
    seen = []

    class Watching(ERM):
        def loss(self, model, x, y, generator):
            seen.append((x[:, 0, 0, 0] * 255).round().long())
            assert torch.equal(tiny.labels[seen[-1]], y)
            return super().loss(model, x, y, generator)

    run = run_of(marked, Watching(), crop_pad=0, flip=False)
    for _ in range(10):
        run.advance()
    first, second = torch.cat(seen[:5]), torch.cat(seen[5:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(80))
    assert not torch.equal(first, second)


def test_fewer_images_than_a_batch(odd):
    few = odd.pick(torch.arange(10))
    model = models.build("cnn", {"width": 8}, images=few.images, classes=8, generator=drawn(), device="cpu")
    fitted = fit.fit(
        model,
        ERM(),
        few,
        odd,
        RECIPE | {"batch": 64},
        Seeds("test"),
        probe=Probe.draw(few, 20, drawn()),
        precision="float32",
        label="test",
    )
    assert fitted.steps == 3 and all(
        0 <= row["train_accuracy"] <= 100 and math.isfinite(row["train_loss"]) for row in fitted.history
    )


def test_history_says_what_was(tiny):
    """With next to no learning rate and no augmentation, loss and accuracy are those of one pass in training mode."""
    run = run_of(tiny, lr=1e-12, crop_pad=0, flip=False)
    order = torch.randperm(80, generator=run.seeds.generator("batches", 0)).split(16)
    model, losses, right = model_of(tiny).train(), [], 0
    with torch.no_grad():
        for part in order:
            scores = model(augment.to_float(tiny.images[part]))
            losses.append(torch.nn.functional.cross_entropy(scores, tiny.labels[part]).item())
            right += (scores.argmax(1) == tiny.labels[part]).sum().item()
    for _ in range(5):
        run.advance()
    run.end_epoch(tiny)
    (row,) = run.history
    assert row["train_loss"] == pytest.approx(sum(losses) / 5, rel=1e-4) and row["train_accuracy"] == pytest.approx(
        100 * right / 80
    )
    assert (row["epoch"], row["step"], row["iterations"], row["stage"]) == (1, 5, 5, "early")
    assert list(row)[-10:] == [f"acm_{name}" for name in GROUPS] + [f"rate_{name}" for name in GROUPS]


def test_an_architecture_refuses_what_a_method_leaves_of_the_images(tiny):
    size = ERM(shrink=5).seen(tiny.images.shape[1:3])
    with pytest.raises(Fault, match="cnn needs images of at least 8x8, found 6x6"):
        models.build("cnn", {"width": 8}, images=tiny.images, classes=10, generator=drawn(), device="cpu", size=size)


# Rates


def test_frozen_groups_keep_their_weights_and_not_their_statistics(tiny):
    run = run_of(tiny, RandomFrozen(keep=2))
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    for _ in range(3):
        run.advance()
    frozen = tuple(f"network.{name}." for name in GROUPS[:3])
    parameters = dict(run.model.named_parameters())
    for name, tensor in run.model.state_dict().items():
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
        run.set_rates(dict.fromkeys(GROUPS, 1.0) | {"block1": rate})
        before = [p.detach().clone() for p in run.model.parameters()]
        run.advance()
        steps.append([p.detach() - old for p, old in zip(run.model.parameters(), before)])
    assert torch.allclose(0.25 * steps[0][0], steps[1][0], atol=1e-7) and torch.equal(steps[0][-1], steps[1][-1])


@pytest.mark.parametrize("keep, expected", [(1, [0, 0, 0, 0, 1]), (2, [0, 0, 0, 1, 1]), (5, [1] * 5), (9, [1] * 5)])
def test_random_frozen_rates(keep, expected):
    assert RandomFrozen(keep=keep).rates(GROUPS) == dict(zip(GROUPS, map(float, expected)))


def test_erm_rates():
    assert ERM().rates(GROUPS) == dict.fromkeys(GROUPS, 1.0)


# Going back


def test_restore_brings_back_every_byte(tiny):
    run = run_of(tiny)
    for _ in range(7):  # in the middle of the second epoch
        run.advance()
        if run.step == 5:
            run.end_epoch(tiny)
    snapshot = run.snapshot()
    kept = copy.deepcopy(snapshot)
    assert kept["momentum"] and kept["sums"].sum() > 0
    run.set_rates(dict.fromkeys(GROUPS, 1.0) | {"block1": 0.0})
    run.stage = "stage 1"
    for _ in range(4):
        run.advance()
        if run.step == 10:
            run.end_epoch(tiny)
    assert same(snapshot, kept)  # training on does not reach into a snapshot
    assert [row["epoch"] for row in run.history] == [1, 2] and not same(run.snapshot(), kept)
    run.restore(snapshot)
    assert same(run.snapshot(), kept)
    assert (run.step, run.iterations, run.stage, set(run.rates.values())) == (7, 11, "early", {1.0})
    assert [row["epoch"] for row in run.history] == [1]  # what lies after it is struck out
    assert all(p.requires_grad for p in run.model.parameters())
    run.advance()
    assert same(snapshot, kept)  # nor does training on after a restore: it may be needed again


def test_a_restored_run_repeats_itself(tiny):
    run = run_of(tiny)
    for _ in range(3):
        run.advance()
    snapshot, ends = run.snapshot(), []
    for garbage in range(2):
        stir(garbage)
        for _ in range(6):  # over the end of an epoch
            run.advance()
            if run.step == 5:
                run.end_epoch(tiny)
        ends.append(
            (
                copy.deepcopy(run.snapshot()),
                [{k: v for k, v in row.items() if k != "iterations"} for row in run.history],
            )
        )
        run.restore(snapshot)
    assert same(*ends)
    assert run.iterations == 3 + 6 + 6


def test_a_reading_is_taken_anew_after_a_restore(tiny):
    """It is kept for the iteration, and a restore changes the model without one."""
    run = run_of(tiny, lr=1.0)
    snapshot, early = run.snapshot(), run.measure()
    for _ in range(8):
        run.advance()
    late = run.measure()
    assert late is run.measure() and late != early
    run.restore(snapshot)
    assert run.measure() == early


def test_clear_momentum(tiny):
    run = run_of(tiny)
    run.advance()
    assert run.snapshot()["momentum"]
    run.clear_momentum()
    assert run.snapshot()["momentum"] == {}


# PST


def looks(method: PST, steps: int, steps_per_epoch: int) -> list[int]:
    return [step for step in range(steps + 1) if method.ticks(step, steps_per_epoch)]


@pytest.mark.parametrize(
    "settings, steps_per_epoch, expected",
    [
        ({"tick_steps": 3, "dense_epochs": 1.0, "ticks_per_epoch": 2}, 10, [0, 3, 6, 9, 15, 20, 25, 30]),
        ({"tick_steps": 4, "dense_epochs": 1.5, "ticks_per_epoch": 1}, 10, [0, 4, 8, 12, 20, 30]),
        ({"tick_steps": 20, "dense_epochs": 2.0, "ticks_per_epoch": 2}, 10, [0, 20, 25, 30]),
        ({"tick_steps": 20, "dense_epochs": 0.0, "ticks_per_epoch": 3}, 10, [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30]),
        (
            {"tick_steps": 7, "dense_epochs": 2.0, "ticks_per_epoch": 5},
            2,
            [0, *range(5, 31)],
        ),  # more looks than steps: every step
    ],
)
def test_ticks(settings, steps_per_epoch, expected):
    assert looks(PST(**settings), 30, steps_per_epoch) == expected


def test_ticks_end_with_the_last_stage():
    method = PST(tick_steps=5, keep=[2, 1])
    method.staging.stage = 1
    assert looks(method, 20, 10) == [0, 5, 10, 15, 20]
    method.staging.stage = 2
    assert looks(method, 20, 10) == []


class Scripted:
    """A run whose readings of (ACM at the watched group, accuracy) are written beforehand, by step."""

    def __init__(self, watch: str = "block2"):
        self.watch, self.step, self.stage = watch, 0, "early"
        self.rates = dict.fromkeys(GROUPS, 1.0)
        self.said: list[str] = []

    def look(self, method: PST, step: int, acm: float, accuracy: float) -> None:
        self.step = step
        method.rates(GROUPS)
        self.reading = Reading(dict.fromkeys(GROUPS, 0.9) | {self.watch: acm}, accuracy)
        method.on_tick(self)

    def measure(self) -> Reading:
        return self.reading

    def snapshot(self) -> dict:
        return {"step": self.step, "rates": dict(self.rates), "stage": self.stage}

    def restore(self, snapshot: dict) -> None:
        self.said.append(f"restore {snapshot['step']}")
        self.step, self.rates, self.stage = snapshot["step"], dict(snapshot["rates"]), snapshot["stage"]

    def clear_momentum(self) -> None:
        self.said.append("clear")

    def set_rates(self, rates: dict[str, float]) -> None:
        self.said.append("rates")
        self.rates = dict(rates)


def test_pst_goes_back_to_the_newest_clean_snapshot_and_through_its_stages():
    method, run = PST(keep=[2, 1], rate=0.0, snapshots=2, confirm=1), Scripted()
    run.look(
        method, 0, 0.99, 0.1
    )  # untrained: high or not, there is nothing to go back to, and this is where one may go back to
    run.look(method, 20, 0.30, 0.3)  # clean
    run.look(method, 40, 0.45, 0.6)  # clean still
    run.look(method, 60, 0.48, 0.5)  # neither clean (0.46) nor trapped (0.5)
    assert [snapshot["step"] for snapshot in method.kept] == [20, 40] and run.said == []
    run.look(method, 80, 0.55, 0.7)  # above 0.5, but below 0.85 * 0.7: the network is better than its middle
    assert (run.stage, run.step, run.said) == ("early", 80, [])
    run.look(method, 100, 0.60, 0.7)  # 0.6 > 0.595: trapped
    assert (run.stage, run.step, run.said) == ("stage 1", 40, ["restore 40", "clear", "rates"])
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 1.0, 1.0]))
    run.look(method, 60, 0.40, 0.5)  # clean in stage 1
    run.look(method, 80, 0.90, 0.9)  # trapped again
    assert (run.stage, run.step, run.said[3:]) == ("stage 2", 60, ["restore 60", "clear", "rates"])
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 0.0, 1.0]))
    assert not method.ticks(100, 10)  # no stage is left, so no look is


def test_pst_asks_for_looks_in_a_row():
    method, run = PST(confirm=2), Scripted()
    for step, acm in (
        (0, 0.2),
        (20, 0.3),
        (40, 0.9),
        (60, 0.4),
        (80, 0.9),
    ):  # a moment, then clean again, then the trap
        run.look(method, step, acm, 0.9)
        assert run.said == []
    assert [snapshot["step"] for snapshot in method.kept] == [0, 20, 60]  # none is taken at a look that shows the trap
    state = method.state()
    run.look(method, 100, 0.9, 0.9)
    assert (run.stage, run.step) == ("stage 1", 60) and method.staging.hot == 0
    resumed = PST(confirm=2)
    resumed.load_state(state)
    assert resumed.staging.hot == 1


def test_pst_goes_back_to_the_start_when_nothing_later_was_clean():
    method, run = PST(rate=0.1, confirm=1), Scripted()
    run.look(method, 0, 0.2, 0.1)
    run.look(method, 20, 0.9, 0.9)
    assert (run.step, run.stage) == (0, "stage 1") and run.rates == dict(zip(GROUPS, [0.1, 0.1, 0.1, 1.0, 1.0]))


def test_pst_stays_early_on_clean_data():
    method, run = PST(), Scripted()
    for step in range(0, 200, 20):
        run.look(method, step, 0.47, 0.9)
    assert run.stage == "early" and run.said == [] and [snapshot["step"] for snapshot in method.kept] == [0]


def test_pst_watches_the_group_it_is_told():
    for watch, expected in (("block4", "stage 1"), ("block2", "early")):
        method, run = PST(watch=watch, confirm=1), Scripted(watch="block4")
        for run.step, acm in ((0, 0.2), (20, 0.9)):
            run.reading = Reading(dict.fromkeys(GROUPS, 0.2) | {"block4": acm}, 0.9)
            method.on_tick(run)
        assert run.stage == expected


def test_pst_watching_a_group_that_is_not_there(tiny):
    """A slip in params.yaml that only the architecture can tell; it must come as a fault with the choices, not as a KeyError."""
    with pytest.raises(Fault, match=r"block9.*known: block1, block2"):
        run_of(tiny, PST(watch="block9")).look()


def test_pst_without_snapshots_goes_on_from_where_it_is():
    method, run = PST(snapshots=0, confirm=1), Scripted()
    run.look(method, 0, 0.2, 0.1)
    run.look(method, 20, 0.9, 0.9)
    assert (run.step, run.stage, run.said) == (20, "stage 1", ["clear", "rates"])
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 1.0, 1.0]))


def test_pst_may_learn_slower_or_faster_before_the_first_stage():
    method, run = PST(early_rate=0.3, confirm=1), Scripted()
    assert method.rates(GROUPS) == dict.fromkeys(GROUPS, 0.3)
    run.look(method, 0, 0.2, 0.1)
    run.look(method, 20, 0.9, 0.9)
    assert run.rates == dict(zip(GROUPS, [0.0, 0.0, 0.0, 1.0, 1.0]))


def test_pst_may_keep_all_groups():
    method, run = PST(keep=[9], confirm=1), Scripted()
    run.look(method, 0, 0.2, 0.1)
    run.look(method, 20, 0.9, 0.9)
    assert set(run.rates.values()) == {1.0} and run.stage == "stage 1"


# From end to end, and after an interruption


class LatePST(PST):
    """Sees no trap before step 8."""

    def on_tick(self, run) -> None:
        self.staging.acm_trapped = 0.0 if run.step >= 8 else 1.0
        super().on_tick(run)


EAGER = {
    "confirm": 1,
    "acm_trapped": 0.0,
    "ratio_trapped": 1e-6,
    "acm_clean": 0.0,
    "dense_epochs": 9.0,
}  # every look but the first sees a trap
METHODS = {
    "erm": lambda: ERM(jitter=0.2, gray=0.5),
    "pst": lambda: PST(keep=[3, 2], tick_steps=4, **EAGER),  # back to the start at steps 4 and 4
    "late pst": lambda: LatePST(
        keep=[2], tick_steps=4, rate=0.5, **EAGER | {"acm_clean": 1.0}
    ),  # from step 8 back to step 4
}


def fitted(train, method, resume=None, **recipe) -> tuple[dict, fit.Fitted]:
    model, found = model_of(train), Probe.draw(train, 40, drawn())
    how = {"probe": found, "precision": "float32", "label": "test", "resume": resume}
    done = fit.fit(model, method, train, train, RECIPE | recipe, Seeds("test"), **how)
    return models.weights(model), done


def test_pst_from_end_to_end(tiny):
    _, done = fitted(tiny, METHODS["pst"]())
    assert [row["epoch"] for row in done.history] == [1, 2, 3] and done.steps == 15
    assert done.iterations == 15 + 4 + 4  # it went back twice
    assert [(row["step"], row["stage"], row["next_step"], row["next_stage"]) for row in done.ticks] == [
        (0, "early", 0, "early"),
        (4, "early", 0, "stage 1"),
        (4, "stage 1", 0, "stage 2"),
    ]
    assert [row["iterations"] for row in done.ticks] == [0, 4, 8]
    assert all(
        row["rate_block3"] == 0.0 and row["rate_block4"] == 1.0 and row["stage"] == "stage 2" for row in done.history
    )


def test_pst_goes_on_from_the_middle_of_an_epoch(tiny):
    _, done = fitted(tiny, METHODS["late pst"]())
    assert [(row["step"], row["next_step"], row["next_stage"]) for row in done.ticks] == [
        (0, 0, "early"),
        (4, 4, "early"),
        (8, 4, "stage 1"),
    ]
    assert done.iterations == 19 and [(row["epoch"], row["stage"]) for row in done.history] == [
        (1, "stage 1"),
        (2, "stage 1"),
        (3, "stage 1"),
    ]
    assert (
        done.history[0]["rate_block1"] == 0.5 and 0 < done.history[0]["train_loss"] < 10
    )  # the sums of step 4 and one step more


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("after", [3, 8, 14])
def test_a_resumed_run_ends_with_the_same_bytes(name, after, tiny, tmp_path, monkeypatch):
    """Killed after so many iterations: before, at and beyond the first checkpoint, and on both sides of a roll-back."""
    undisturbed = fitted(tiny, METHODS[name]())
    path, advance = tmp_path / "here" / "checkpoint", fit.Run.advance

    def failing(run):
        if run.iterations == after:
            raise Interrupted
        advance(run)

    monkeypatch.setattr(fit.Run, "advance", failing)
    stir(1)
    with pytest.raises(Interrupted):
        fitted(tiny, METHODS[name](), path)
    stir(2)
    taken = []
    monkeypatch.setattr(fit.Run, "advance", lambda run: taken.append(run.iterations) or advance(run))
    resumed = fitted(tiny, METHODS[name](), path)
    if name == "erm":
        assert taken == list(range(after // 5 * 5, 15))  # it went on from the last epoch's end, and did not begin anew
    assert same(resumed[0], undisturbed[0])
    assert same(vars(resumed[1]) | {"reading": None}, vars(undisturbed[1]) | {"reading": None})
    assert resumed[1].reading == undisturbed[1].reading
    assert list(tmp_path.glob("here/*")) == []


def test_checkpoints_come_as_often_as_told(tiny, tmp_path, monkeypatch):
    saved, save = [], checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda path, state: saved.append(state["step"]) or save(path, state))
    fitted(tiny, ERM(), tmp_path / "checkpoint", epochs=5, checkpoint_epochs=2)
    assert saved == [10, 20]


def test_checkpoint_keeps_every_kind_of_value(tmp_path):
    state = {
        **{
            "tensor": torch.tensor([[1.5, -2.0]]),
            "half": torch.tensor([1.0], dtype=torch.bfloat16),
            "count": torch.tensor(3),
        },
        **{
            "nested": [{"a": torch.arange(3)}, [], {}, None, True, "text"],
            "float": 0.1 + 0.2,
            "order": {"b": 1, "a": 2},
        },
    }
    checkpoint.save(tmp_path / "state", state)
    assert same(checkpoint.load(tmp_path / "state", "cpu"), state)
    content = (tmp_path / "state").read_bytes()
    (tmp_path / "state").write_bytes(content[:-1])
    with pytest.raises(Fault, match="broken or not ours"):
        checkpoint.load(tmp_path / "state", "cpu")
