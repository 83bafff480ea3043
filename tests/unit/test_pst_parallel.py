"""PST where a batch is computed in parts: in several processes, or one after the other with gradients accumulated."""

import warnings

import pytest
import torch
from torch import nn

from helpers import parallel
from helpers.parallel import EPOCHS, STAGES, STEPS, images_and_labels, network, train
from relearn.errors import UserError
from relearn.pst import PST

WORLD = 2


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict]:
    """What each of two processes saved of its tasks."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(parallel.in_process, (WORLD, str(folder)), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def close(one: dict, other: dict) -> bool:
    """Whether both trained the same stages, to the same weights up to rounding in float64."""
    rows = [
        [(row["steps_taken"], row["step"], row["next_step"], row["next_stage"]) for row in run["probes"]]
        for run in (one, other)
    ]
    assert rows[0] == rows[1] and one["stage"] == other["stage"]
    assert torch.allclose(torch.tensor(one["norms"]), torch.tensor(other["norms"]), rtol=1e-6)
    return all(torch.allclose(one["weights"][name], other["weights"][name], atol=1e-9) for name in one["weights"])


@pytest.fixture
def alone(decided_by_limit) -> dict:
    """A run in one process, of whole batches."""
    return train()


@pytest.mark.parametrize("task", ["whole", "micro_batches"])
def test_two_processes_end_where_one_does(task, processes, alone):
    """Through a stage of all groups, and one with pretrained groups that are stopped, clipped gradients included."""
    first, second = (found[task] for found in processes)
    assert first["stage"] == "stage 2" and len(first["norms"]) == 3 + 3 + STEPS * EPOCHS
    assert first["probes"] == second["probes"]
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert close(first, alone)


@pytest.mark.usefixtures("decided_by_limit")
def test_parts_of_a_batch_with_accumulated_gradients_are_the_batch(alone):
    assert close(train(micro=4), alone)


def test_all_processes_take_the_decisions_of_the_first(processes):
    first, second = (found["minds"] for found in processes)
    assert first == second
    assert first["taken"][:3] == [(0, 1, "early"), (0, 2, "early"), (0, 0, "stage 1")] and len(first["taken"]) == 3 + 4


def test_the_first_process_may_ask_alone_and_each_draws_for_itself(processes):
    first, second = (found["asked"] for found in processes)
    plain = network(nn.BatchNorm2d)
    optimizer = torch.optim.SGD(plain.parameters(), 0.05)
    settings = STAGES | {"gray": 0.0, "jitter": 0.5, "plain_first": False}
    pst = PST(plain, optimizer, images_and_labels(), steps_per_epoch=STEPS, **settings)
    assert first["hidden"] == pst.measure().hidden_accuracy
    assert all(torch.equal(first["weights"][name], value) for name, value in plain.state_dict().items())
    assert torch.equal(first["view"], pst.view(images_and_labels().tensors[0][:8]))
    assert not torch.equal(first["view"], second["view"])


def test_an_error_in_the_first_process_is_one_in_all(processes):
    for found in (found["errors"] for found in processes):
        assert found["told"] == ["found in 0", "not finite in 0"] and found["alone"]
        (message,) = found["warned"]
        assert "there are 2 processes, and this model is trained in one" in message


def test_a_sharded_model_is_refused():
    class FullyShardedDataParallel(nn.Sequential):
        pass

    model = FullyShardedDataParallel(nn.Linear(3, 10))
    with pytest.raises(UserError, match=r"sharded \(FullyShardedDataParallel\).*use DistributedDataParallel$"):
        PST(model, torch.optim.SGD(model.parameters(), 0.1), images_and_labels(), steps_per_epoch=1)


# Batches that only accumulate are no steps


def stepped(per_update: int, updates: int) -> list[str]:
    """The warnings of an epoch with so many calls of `step` for each of `updates`."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    pst = PST(model, optimizer, images_and_labels(), steps_per_epoch=per_update * updates, **STAGES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in pst.epochs(1):
            for _ in range(updates):
                optimizer.step()
                for _ in range(per_update):
                    pst.step()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("per_update, told", [(1, False), (2, True), (4, True)])
def test_step_for_every_batch_that_accumulates(per_update, told):
    found = stepped(per_update, 2)
    assert any("call it once after each of them" in message for message in found) == told


def test_an_epoch_of_fewer_steps_than_given():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pst = PST(model, optimizer, images_and_labels(), steps_per_epoch=4, **STAGES)
    with pytest.raises(UserError, match=r"ended after 1 steps, steps_per_epoch is 4; give the optimizer steps"):
        for _ in pst.epochs(1):
            pst.step()


# Batches that are mappings


def test_batches_with_keys():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pst = PST(model, optimizer, images_and_labels(), steps_per_epoch=4, **STAGES | {"plain_first": False})
    images, labels = images_and_labels()[:8]
    for name in ("pixel_values", "image"):
        batch = {name: images, "labels": labels}
        found = pst.view(batch)
        assert list(found) == list(batch) and found["labels"] is labels and batch[name] is images
        assert torch.equal(found[name], pst.view(images)) and not torch.equal(found[name], images)
    with pytest.raises(UserError, match=r"images in image or pixel_values, found pixels, labels$"):
        pst.view({"pixels": images, "labels": labels})
