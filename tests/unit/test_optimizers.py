"""The optimizers of the recipe, against torch and against what their source defines."""

import pytest
import torch

from helpers.images import drawn
from helpers.training import RECIPE, run_of
from relearn.architectures.speednet import speednet
from relearn.training import optimizers

SGD = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}


def weights(*shapes: tuple[int, ...]) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.randn(shape, generator=drawn(k))) for k, shape in enumerate(shapes)]


def trained(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], steps: int = 3) -> list:
    """The parameters after some steps with gradients that are always the same."""
    for step in range(steps):
        for k, parameter in enumerate(parameters):
            parameter.grad = torch.randn(parameter.shape, generator=drawn(100 * step + k))
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("shape", [(16, 8), (8, 16), (6, 6), (64, 27)])
def test_orthogonalised_has_the_singular_vectors_and_nearly_equal_values(shape):
    # singular values from 1 to 0.1
    left, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=drawn(1)))
    right, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=drawn(2)))
    found = optimizers.orthogonalised(left @ torch.diag(torch.linspace(1, 0.2, min(shape))) @ right.T)
    inside = left.T @ found @ right
    assert found.shape == shape
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-4)
    assert inside.diagonal().min() > 0.5 and inside.diagonal().max() < 1.5


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_without_orthogonal_steps_is_sgd_of_torch(nesterov):
    ours, theirs = weights((5, 4), (7,)), weights((5, 4), (7,))
    settings = SGD | {"nesterov": nesterov}
    found = trained(optimizers.Muon([{"params": ours, "orthogonal": False}], **settings), ours)
    for one, other in zip(found, trained(torch.optim.SGD(theirs, **settings), theirs), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_muon_keeps_the_length_of_filters_and_moves_all_directions_alike():
    (weight,) = weights((8, 4, 3, 3))
    optimizer = optimizers.Muon([{"params": [weight]}], **SGD)
    trained(optimizer, [weight], 1)
    before = weight.detach().clone()
    trained(optimizer, [weight], 1)
    scaled = before * 8**0.5 / before.norm()
    step = (weight.detach() - scaled).flatten(1) / SGD["lr"]
    values = torch.linalg.svdvals(step)
    assert values.max() < 1.5 and values.min() > 0.2  # of a random gradient; those of plain SGD differ more
    assert values.max() / values.min() < 4


def test_muon_takes_convolutions_apart_from_the_rest_and_leaves_frozen_weights_out():
    network = speednet(10, (32, 32), width=8)
    optimizer = optimizers.build(network, RECIPE | {"optimizer": "muon", "lr": 0.2})
    own, rest = optimizer.param_groups
    assert own["orthogonal"] and not rest["orthogonal"]
    assert {weight.ndim for weight in own["params"]} == {4} and {weight.ndim for weight in rest["params"]} == {1, 2}
    assert own["base_lr"] == 0.2 and rest["base_lr"] == 0.2 * optimizers.REST
    frozen = network.get_submodule("whitening")[0].weight
    assert not any(weight is frozen for weight in own["params"])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters())) - 1


def test_factor_scales_every_group_by_its_own_rate():
    optimizer = optimizers.build(speednet(10, (32, 32), width=8), RECIPE | {"optimizer": "muon", "lr": 0.2})
    optimizers.set_factor(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1 * optimizers.REST]
    optimizers.set_factor(optimizer, 1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2 * optimizers.REST]


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_every_optimizer_learns(name, tiny):
    rate = {"sgd": 0.05, "muon": 0.05, "adamw": 0.01}[name]
    run = run_of(tiny, optimizer=name, lr=rate, epochs=6, crop_pad=0)
    losses = []
    for _ in range(run.training.steps):
        run.advance()
        if run.training.step % run.training.steps_per_epoch == 0:
            losses.append(run.sums[0].item())
            run.sums.zero_()
    assert losses[-1] < 0.95 * losses[0], losses


def test_adamw_takes_momentum_and_weight_decay_from_the_recipe():
    optimizer = optimizers.build(torch.nn.Linear(3, 2), RECIPE | {"optimizer": "adamw", "momentum": 0.8})
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert group["betas"] == (0.8, 0.999) and group["weight_decay"] == RECIPE["weight_decay"]
