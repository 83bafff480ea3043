"""Layer groups that will not do, and models in which none are found."""

import pytest
import torch
from torch import nn

from helpers.pst_loop import Net
from relearn.errors import UserError
from relearn.probing.layer_groups import layer_groups


@pytest.mark.parametrize(
    "groups, message",
    [
        (["blocks.0", "blocks.1", "blocks.2", "blocks.9", "head"], r"no module 'blocks.9'.*did you mean"),
        (["blocks.0", "blocks.1", "blocks.2", "head"], r"'blocks.3.0.weight' is in no layer group"),
        (
            ["blocks.1", "blocks.0", "blocks.2", "blocks.3", "head"],
            r"'blocks.0' returns before 'blocks.1'.*shallow to deep",
        ),
        (["blocks", "blocks.0", "head"], r"'blocks.0' is in 'blocks' and again in 'blocks.0'"),
        (["blocks", "head"], r"layer group 'blocks'.*'blocks' is called 0 times"),
        ([nn.Linear(1, 1), "head"], r"a Linear is not a module of the model"),
        ("blocks", r"must be a list or a mapping .*, found 'blocks'"),
        (3, r"must be a list or a mapping .*, found 3"),
        ([3, "head"], r"an entry is a module, its name, or a list of these, found 3"),
        ([None, "head"], r"found None"),
        ([], r"give two or more, each with a module, found 0"),
        (["head"], r"give two or more, each with a module, found 1"),
        ([[], "blocks.0", "head"], r"give two or more, each with a module, found 2"),
    ],
)
def test_groups_that_will_not_do(groups, message):
    with pytest.raises(UserError, match=message):
        layer_groups(Net(), torch.zeros(2, 3, 32, 32), groups)


@pytest.mark.parametrize(
    "model, images, message",
    [
        (Net(), torch.zeros(2, 1, 32, 32), r"Net cannot take images \(2, 1, 32, 32\) torch.float32: RuntimeError: "),
        (nn.LSTM(3, 3), torch.zeros(2, 5, 3), r"returns a tuple, not logits"),
        (nn.Conv2d(3, 3, 1), torch.zeros(2, 3, 8, 8), r"logits must be \(N, K\), .* found \(2, 3, 8, 8\)"),
    ],
)
def test_models_that_cannot_be_read(model, images, message):
    with pytest.raises(UserError, match=message) as caught:
        layer_groups(model, images)
    assert "\n" not in str(caught.value)
