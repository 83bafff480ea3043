"""PST as a library: augmented batches, and shallow groups that a copy of the network has learned without labels."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from helpers.compare import same, stir
from helpers.pst_loop import BATCHES, CLEAN, GROUPS, OPTIMIZERS, TRAPPED, Net, Training, batch, everything
from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.pst import PST, Contrastive
from relearn.pst.pretrain import Pretraining
from relearn.runtime.seeding import Seeds

MEAN, STD = [0.4, 0.5, 0.6], (0.2, 0.25, 0.3)
PLAIN = {"mean": [0, 0, 0], "std": torch.ones(3)}  # not normalised at all
VIEW = {"gray": 1.0, "convolve": 0.5, "degrade": 0.5, "contrast": 0.2, "jitter": 0.3, "mix": 0.3}
EARLY_TRAPS = {"script": {0: CLEAN, 4: TRAPPED, 8: TRAPPED}, "probe_steps": 4, "dense_epochs": 9.0, "confirm": 1}


def anew(**settings) -> dict:
    """Settings with which stage 1 begins after 4 steps, stage 2 with pretrained groups after 8."""
    stages = {"plain_first": True, "augmented_first": True, "pretraining": Contrastive(epochs=1, batch=16)}
    return EARLY_TRAPS | PLAIN | VIEW | stages | settings


@pytest.fixture(scope="module")
def whole(data) -> Training:
    """A run to the end of stage 2."""
    training = Training(data, **anew())
    training.run()
    return training


# Augmented batches


def test_views_depend_on_seed_and_step_alone(data):
    images = batch(data, 0)[0]
    training = Training(data, **PLAIN, **VIEW)
    pst = training.pst
    first = pst.view(images)
    assert torch.equal(first, ERM(**VIEW).augment(images.clone(), Seeds("pst", 0).generator("augment", 0)))
    assert not torch.equal(pst.view(images), first)  # of another part of the batch, perhaps: it draws on
    pst.training.step, pst.training.steps_taken = 1, 1
    assert not torch.equal(pst.view(images), first)
    pst.training.step, pst.training.steps_taken = 0, 2  # gone back
    stir(5)
    assert torch.equal(pst.view(images), first)
    assert not torch.equal(Training(data, seed=1, **PLAIN, **VIEW).pst.view(images), first)
    pst.load_state_dict(Training(data, **PLAIN, **VIEW).pst.state_dict())
    assert torch.equal(pst.view(images), first) and images.equal(batch(data, 0)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_outside_training_images_are_gray_where_all_are(data, dtype):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    raw = batch(data, 0)[0]
    images = ((raw - mean) / std).to(dtype)
    normalised = TensorDataset((data.tensors[0] - mean) / std, data.tensors[1])
    for gray, expected in ((1.0, (ERM(gray=1.0).eval_transform(raw) - mean) / std), (0.5, images)):
        pst = Training(normalised, mean=MEAN, std=STD, gray=gray).pst
        pst.training.model.eval()
        with torch.autocast("cpu", torch.bfloat16):
            found = pst.view(images)
        assert found.dtype == dtype and (found is images) == (gray < 1)
        assert torch.allclose(found.float(), expected.float(), atol=1e-5 if dtype == torch.float32 else 1e-2)
        assert pst.training.eval_transform(images).equal(found)  # what probes see
    assert pst.training.model.training is False


def test_before_the_first_stage_nothing_changes_if_so_set(data):
    training = Training(data, plain_first=True, **PLAIN, **VIEW)
    images = batch(data, 0)[0]
    for mode in (True, False):
        training.model.train(mode)
        assert training.pst.view(images) is images
    training.pst.staging.stage = 1
    assert not torch.equal(training.pst.view(images), images)
    assert Training(data).pst.view(images) is images


# Pretrained groups


def test_stopped_groups_are_the_pretrained_ones_to_the_end(whole):
    """With their batch-norm statistics, although the loop sets the mode of training before every step."""
    pst, learned = whole.pst, whole.pst._pretraining.learned
    assert pst.stage == "stage 2" and whole.steps_taken == 4 + 4 + 3 * BATCHES
    for name, tensor in (*whole.model.named_parameters(), *whole.model.named_buffers()):
        if name != "calls":  # which the network counts itself
            stopped = name.startswith(("blocks.0", "blocks.1", "blocks.2", "scale"))
            assert torch.equal(tensor, learned[name]) == stopped, name
    stir(0)
    fresh = Net()
    assert not torch.equal(fresh.blocks[0][0].weight, learned["blocks.0.0.weight"])
    assert not torch.equal(fresh.blocks[0][1].running_mean, learned["blocks.0.1.running_mean"])


@pytest.mark.parametrize("after", [6, 8, 11])
def test_a_run_resumed_in_any_stage_goes_on_as_if_nothing_had_been(data, whole, after, tmp_path):
    first = Training(data, **anew())
    first.run(until=after)
    torch.save(first.state(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    resumed = Training(data, **anew())
    stir(9)
    for name in ("pst", "model", "optimizer"):
        getattr(resumed, name).load_state_dict(state[name])
    resumed.model.calls.fill_(first.model.calls.item())  # outside the state_dict by its maker's wish
    resumed.run()
    assert same(everything(resumed), everything(whole)) and resumed.pst.probes == whole.pst.probes


def test_nothing_is_trained_when_no_trap_shows(data, monkeypatch):
    monkeypatch.setattr(Pretraining, "_learn", lambda self: pytest.fail("trained"))
    training = Training(data, **anew(script={0: CLEAN}))
    plain = Training(data, script={0: CLEAN})
    training.run()
    plain.run()
    assert training.pst.stage == "early" and same(everything(training), everything(plain))


def test_pretraining_changes_no_global_state_and_reads_at_most_so_many_images(data):
    read: set[int] = set()

    class Noted(TensorDataset):
        def __getitem__(self, row):
            if noting:
                read.add(row)
            return super().__getitem__(row)

    noting = False
    training = Training(Noted(*data.tensors), **anew(augmented_first=False, pretraining_images=24))
    before, noting = torch.random.get_rng_state(), True
    frozen = copy.deepcopy(training.model.state_dict())
    learned = training.pst._pretraining._learn()
    assert len(read) == 24 and torch.equal(torch.random.get_rng_state(), before)
    assert same(training.model.state_dict(), frozen) and training.model.training
    assert learned.keys() == {name for name, _ in training.pst.training.tensors()}  # no projector
    stir(7)
    assert same(training.pst._pretraining._learn(), learned)
    other = Training(data, **anew(seed=1, pretraining_images=24)).pst._pretraining._learn()
    assert not torch.equal(other["blocks.0.0.weight"], learned["blocks.0.0.weight"])


# What is refused


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"gray": 1.0}, r"gray needs both mean and std, .*found no mean and no std"),
        ({"pretraining": Contrastive()}, r"pretraining needs both mean and std"),
        ({"mean": MEAN}, r"give both mean and std, .* found no std"),
        ({"mean": MEAN, "std": [0.2, 0.0, 0.2]}, r"std must be above 0"),
        ({"mean": 0.5, "std": STD}, r"mean must be 3 numbers, one for each channel of the images, found 0.5"),
        ({"mean": [0.5, float("nan"), 0.5], "std": STD}, r"mean must be 3 numbers"),
        ({"mean": MEAN, "std": [2.0] * 3}, r"without mean and std the images go from .* to 2.*, not from 0 to 1"),
        ({**PLAIN, "pretraining": "contrastive"}, r"an object such as Contrastive\(epochs=2\), found a str"),
        ({**PLAIN, "pretraining": Contrastive}, r"found the class Contrastive"),
        ({**PLAIN, "pretraining": Contrastive(epochs=0)}, r"pretraining: epochs: must be .*found 0"),
        ({**PLAIN, "pretraining": Contrastive(batch=16, gray=0.3, mix=-1)}, r"pretraining: mix: must be .*found -1"),
        ({**PLAIN, "pretraining": Contrastive()}, r"its batch is 256, but there are 80 images"),
        ({**PLAIN, "pretraining": Contrastive(batch=16), "pretraining_images": 9}, r"16, but there are 9 images"),
        ({**PLAIN, "convolutions": 3}, r"3 convolutions of width 0 change nothing"),
    ],
)
def test_what_is_refused(data, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        Training(data, **settings)
    assert "\n" not in str(caught.value)


def test_images_that_are_not_rgb(data):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    gray = TensorDataset(data.tensors[0][:, :1], data.tensors[1])
    with pytest.raises(UserError, match=r"float images \(N, 3, H, W\), found torch.float32 \(40, 1, 32, 32\)"):
        PST(model, OPTIMIZERS["sgd"](model.parameters()), gray, steps_per_epoch=5, probe_size=40, gray=0.5, **PLAIN)
    pst = Training(data, gray=0.5, **PLAIN).pst
    for wrong in (torch.zeros(2, 1, 8, 8), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(UserError, match=r"float images \(N, 3, H, W\), found"):
            pst.view(wrong)


def test_networks_that_cannot_be_pretrained_are_refused_at_once(data):
    convolutions = (nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 2), nn.Conv2d(8, 8, 3, 2), nn.Conv2d(8, 10, 1))
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    held = Net()
    held.computed = held.scale * 2  # no leaf, which cannot be copied
    for network, message in ((model, "has no linear layer"), (held, r"pretraining: this Net cannot be copied \(")):
        optimizer = OPTIMIZERS["sgd"](network.parameters())
        with pytest.raises(UserError, match=message):
            PST(network, optimizer, data, steps_per_epoch=5, probe_size=40, pretraining=Contrastive(batch=16), **PLAIN)


# A network that PST has trained before


def stopped(data) -> Training:
    """A training that is in its last stage, in which the head alone learns."""
    training = Training(data, **anew())
    training.pst.training.set_rates({group: float(group == "head") for group in GROUPS})
    return training


def test_what_an_earlier_pst_had_stopped_learns_again(data):
    model = nn.Sequential(stopped(data).model)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    PST(model, optimizer, data, steps_per_epoch=5, probe_size=40)
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    model.train()
    F.cross_entropy(model(batch(data, 0)[0]), batch(data, 0)[1]).backward()
    optimizer.step()
    assert not [name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])]


def test_an_optimizer_without_what_an_earlier_pst_had_stopped_is_refused(data):
    model = stopped(data).model
    few = OPTIMIZERS["sgd"]([parameter for parameter in model.parameters() if parameter.requires_grad])
    with pytest.raises(
        UserError, match="the optimizer lacks 17 parameters .* had stopped; .* build the optimizer anew$"
    ):
        PST(model, few, data, steps_per_epoch=5, probe_size=40)
    PST(model, OPTIMIZERS["sgd"](model.parameters()), data, steps_per_epoch=5, probe_size=40)
