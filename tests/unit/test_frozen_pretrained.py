"""Victims whose shallow groups are pretrained and stopped."""

import pytest
import torch

from helpers.compare import same
from helpers.training import GROUPS, model_of, pretrained_of, run_of
from relearn.errors import UserError
from relearn.methods.frozen_pretrained import FrozenPretrained
from relearn.training import models


@pytest.mark.parametrize("kept", [1, 3, 4])
def test_shallow_groups_are_the_pretrained_ones_to_the_end(kept, tiny):
    method, pretrained, model = (
        FrozenPretrained(pretraining="p", full_rate_groups=kept),
        pretrained_of(tiny),
        model_of(tiny),
    )
    frozen = tuple(f"network.{name}." for name in GROUPS[: 5 - kept])
    fresh = models.weights(model_of(tiny))
    method.initialise(model, {}, pretrained)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (pretrained if name.startswith(frozen) else fresh)[name]), name
    run = run_of(tiny, method, model)
    for _ in range(5):
        run.advance()
    for name, parameter in model.named_parameters():
        begin = (pretrained if name.startswith(frozen) else fresh)[name]
        assert torch.equal(parameter, begin) == name.startswith(frozen), name


def test_weights_that_do_not_fit_change_nothing(tiny):
    model, before = model_of(tiny), models.weights(model_of(tiny))
    mixed = pretrained_of(tiny) | {"network.block2.0.weight": torch.zeros(4, 3, 3, 3)}
    with pytest.raises(
        UserError,
        match=r"layer group 'block2' of pretraining 'p' does not fit the victim's \(0.weight: \(4, 3, 3, 3\), .*; "
        "run pretrain again",
    ):
        FrozenPretrained(pretraining="p", full_rate_groups=2).initialise(model, {}, mixed)
    assert same(models.weights(model), before)


def test_nothing_frozen_is_refused(tiny):
    with pytest.raises(UserError, match="frozen_pretrained: full_rate_groups must be less than 5"):
        run_of(tiny, FrozenPretrained(pretraining="p", full_rate_groups=5))
