"""NT-Xent against its equation and finite differences; the projector on networks of any kind."""

import math

import pytest
import torch
from torch import nn

from helpers.compare import same, stir
from helpers.images import drawn
from helpers.training import model_of
from relearn.errors import UserError
from relearn.training import models, projector
from relearn.training.objectives import nt_xent

# NT-Xent


def by_the_equation(z: torch.Tensor, temperature: float) -> tuple[float, list[bool]]:
    """Equation 1 of arXiv 2002.05709, one pair at a time."""
    count, losses, hits = len(z), [], []
    for i in range(count):
        j = (i + count // 2) % count
        similarity = [torch.cosine_similarity(z[i], z[k], dim=0).item() for k in range(count)]
        others = [math.exp(similarity[k] / temperature) for k in range(count) if k != i]
        losses.append(-math.log(math.exp(similarity[j] / temperature) / sum(others)))
        hits.append(similarity[j] == max(similarity[k] for k in range(count) if k != i))
    return sum(losses) / count, hits


@pytest.mark.parametrize("temperature", [0.2, 0.5, 3.0])
@pytest.mark.parametrize("pairs", [1, 2, 7])
def test_nt_xent_is_the_equation(pairs, temperature):
    z = torch.randn(2 * pairs, 5, generator=drawn(pairs), dtype=torch.float64)
    loss, hits = nt_xent(z, temperature)
    expected, expected_hits = by_the_equation(z, temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    assert hits.tolist() == expected_hits and hits.dtype == torch.bool


def test_gradients_of_nt_xent_are_those_of_finite_differences():
    z = torch.randn(8, 4, generator=drawn(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: nt_xent(z, 0.2)[0], (z,))


def test_nt_xent_of_pairs_that_are_alike():
    half = torch.eye(4)
    loss, hits = nt_xent(torch.cat([half, 3 * half]), 0.1)  # lengths do not matter
    assert hits.all() and loss.item() == pytest.approx(math.log(1 + 6 * math.exp(-10)), abs=1e-6)
    loss, hits = nt_xent(torch.cat([half, half.roll(1, 0)]), 0.1)
    assert not hits.any() and loss > 9
    assert nt_xent(torch.zeros(6, 3), 0.1)[0].isfinite()
    assert nt_xent(torch.randn(6, 3, generator=drawn(1)), 1e-9)[0].isfinite()


# Projector


def test_a_projector_sees_what_enters_the_last_linear_layer(tiny):
    model, x = model_of(tiny), tiny.images[:6].permute(0, 3, 1, 2).float() / 255
    before = list(model.state_dict())
    projector.attach(model, 12, 7, drawn(1))
    head = projector.last_linear(model)
    assert head.out_features == 10
    found = projector.project(model, x)
    features = model.network[:-1]((x - model.mean) / model.std)
    features = nn.Sequential(*list(model.network[-1])[:-1])(features)  # the head without its last layer
    assert found.shape == (6, 7) and torch.allclose(found, head.projector(features), atol=1e-5)
    assert not head._forward_pre_hooks
    found.sum().backward()
    # the last layer does not learn, all before it does
    assert all(parameter.grad is None for parameter in head.parameters(recurse=False))
    others = [p for p in model.parameters() if all(p is not own for own in head.parameters(recurse=False))]
    assert len(others) > 10 and all(parameter.grad is not None for parameter in others)
    projector.detach(model)
    assert list(model.state_dict()) == before


def test_a_projector_is_that_of_its_generator_alone(tiny):
    found = []
    for seed in (1, 1, 2):
        model = model_of(tiny)
        stir(len(found))
        before = torch.random.get_rng_state()
        projector.attach(model, 8, 4, drawn(seed))
        assert torch.equal(before, torch.random.get_rng_state())
        found.append(models.weights(projector.last_linear(model).projector))
    assert same(found[0], found[1]) and not same(found[0], found[2])


def test_a_projector_computes_in_float32_whatever_the_network_does(tiny):
    model, x = model_of(tiny), tiny.images[:6].permute(0, 3, 1, 2).float() / 255
    model.precision = "bfloat16"
    projector.attach(model, 8, 4, drawn(1))
    assert projector.project(model, x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert projector.project(model, x).dtype == torch.float32


class Unused(nn.Sequential):
    def forward(self, x):
        return self[0](x.flatten(1))


@pytest.mark.parametrize(
    "model, words",
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "Sequential has no linear layer, before which features could be taken"),
        (nn.Sequential(nn.Linear(6, 2)), r"the last linear layer of the model gets \(2, 3, 6, 6\), not a vector"),
        (Unused(nn.Linear(108, 2), nn.Linear(2, 2)), "the last linear layer of the model gets nothing, not a vector"),
    ],
)
def test_networks_without_features(model, words):
    with pytest.raises(UserError, match=words):
        projector.attach(model, 4, 2, drawn(1))
        projector.project(model, torch.zeros(2, 3, 6, 6))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_second_projector_is_refused(tiny):
    model = model_of(tiny)
    projector.attach(model, 8, 4, drawn(1))
    with pytest.raises(UserError, match="Normalised has a projector already; detach that first"):
        projector.attach(model, 8, 4, drawn(1))


def test_a_network_with_a_projector_computes_what_it_did():
    """Also one that runs all of its parts, and one that has a part of this name."""
    for name in ("last", "projector"):
        network = nn.Sequential()
        network.add_module("flat", nn.Flatten())
        network.add_module(name, nn.Linear(12, 5))
        x = torch.randn(2, 3, 2, 2, generator=drawn(1))
        before = network(x)
        projector.attach(network, 8, 4, drawn(1))
        assert torch.equal(network(x), before) and projector.project(network, x).shape == (2, 4)
        projector.detach(network)
        assert torch.equal(network(x), before) and len(list(network.parameters())) == 2
