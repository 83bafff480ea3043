"""Transplanted layer groups."""

import pytest
import torch

from helpers.compare import same
from helpers.training import GROUPS, model_of, run_of
from relearn.errors import UserError
from relearn.methods.transplant import Transplant
from relearn.training import models


def surrogate_of(train, width: int = 8) -> dict[str, torch.Tensor]:
    """Weights of another model, whose batch-norm statistics have moved too."""
    model = model_of(train, seed=9, width=width).train()
    model(train.images.permute(0, 3, 1, 2).float() / 255)
    return models.weights(model)


@pytest.mark.parametrize("groups", [1, 3, 4])
def test_transplant_copies_and_freezes_exactly_the_groups_asked_for(groups, tiny):
    method, surrogate, model = Transplant(surrogate="clean_model", groups=groups), surrogate_of(tiny), model_of(tiny)
    taken = tuple(f"network.{name}." for name in GROUPS[:groups])
    fresh = models.weights(model_of(tiny))
    method.initialise(model, surrogate, {})
    begin = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in begin.items():
        assert torch.equal(tensor, (surrogate if name.startswith(taken) else fresh)[name]), name
    # the two sources differ wherever something was drawn or has moved
    assert all(
        not torch.equal(surrogate[f"network.block1.{name}"], fresh[f"network.block1.{name}"])
        for name in ("0.weight", "1.running_mean")
    )
    run = run_of(tiny, method, model)
    for _ in range(3):
        run.advance()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, begin[name]) == name.startswith(taken), name
    for name, buffer in model.named_buffers():
        # batch-norm statistics stay live everywhere
        assert torch.equal(buffer, begin[name]) == (name in ("mean", "std")), name


def test_transplant_from_a_model_that_does_not_fit(tiny):
    before = models.weights(model_of(tiny))
    for surrogate, found in ((surrogate_of(tiny, width=4), r"\(4, 3, 3, 3\)"), ({}, "none")):
        model = model_of(tiny)
        with pytest.raises(
            UserError, match=rf"'block1' of surrogate 'narrow' .* \(0.weight: {found}, the victim has \(8, 3, 3, 3\)\)"
        ):
            Transplant(surrogate="narrow", groups=2).initialise(model, surrogate, {})
        assert same(models.weights(model), before)


@pytest.mark.parametrize("groups", [5, 9])
def test_transplant_that_leaves_nothing_to_train(groups, tiny):
    with pytest.raises(UserError, match=f"groups: {groups} leaves nothing to train; the architecture has 5: block1, "):
        run_of(tiny, Transplant(surrogate="clean_model", groups=groups))
