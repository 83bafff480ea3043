"""Layer groups of any network."""

import pytest
import torch
from torch import nn

from helpers.pst_loop import Net
from relearn.errors import UserError
from relearn.probing.layer_groups import layer_groups
from relearn.runtime.torchvision_compat import torchvision

FAMILIES = {
    "resnet18": ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"],
    "vgg11_bn": [*(f"features.{k}" for k in (0, 4, 8, 15, 22)), "classifier"],
    "densenet121": ["features.conv0", *(f"features.denseblock{k}" for k in (1, 2, 3, 4)), "classifier"],
    "mobilenet_v3_small": [*(f"features.{k}" for k in (0, 1, 2, 4, 9)), "classifier"],
    "efficientnet_b0": [*(f"features.{k}" for k in (1, 2, 3, 4, 6)), "classifier"],
    "convnext_tiny": [*(f"features.{k}" for k in (1, 3, 5, 7)), "classifier"],
    "vit_b_16": [*(f"encoder.layers.encoder_layer_{k}" for k in (0, 3, 5, 7, 9)), "heads"],
}


def assert_partition(model, groups) -> None:
    owned = [id(p) for group in groups.values() for p in group.parameters]
    assert sorted(owned) == sorted(map(id, model.parameters())) and len(set(owned)) == len(owned)
    assert all(group.parameters for group in groups.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_torchvision(family):
    """A partition, in the order in which gradients and outputs come, the first weight first and the last one last."""
    with torch.device("meta"):
        model = torchvision().models.get_model(
            family, num_classes=4, **{"image_size": 32} if family.startswith("vit") else {}
        )
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(0.01)
    groups = layer_groups(model, torch.zeros(2, 3, 32, 32))
    assert list(groups) == FAMILIES[family]
    assert_partition(model, groups)
    if family == "vit_b_16":
        assert all(
            any(p is token for p in groups["encoder.layers.encoder_layer_0"].parameters)
            for token in (model.class_token, model.encoder.pos_embedding)
        )
    else:
        parameters = [id(p) for group in groups.values() for p in group.parameters]
        assert parameters == [id(p) for p in model.parameters()]  # torchvision registers these in depth order
    returned = []
    for name, group in groups.items():
        group.output.register_forward_hook(lambda *_, name=name: returned.append(name))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    assert returned == list(groups)


def test_groups_follow_the_forward_pass_and_not_the_registration():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.second, self.first = nn.Linear(8, 2), nn.Conv2d(4, 8, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.last(self.second(self.first(x)).mean((2, 3)))

    groups = layer_groups(Backwards(), torch.zeros(2, 3, 8, 8))
    assert list(groups) == ["first", "second", "last"]


def test_wrappers_and_single_layers():
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    ]
    model = nn.Sequential(nn.Identity(), nn.Sequential(*layers))
    groups = layer_groups(model, torch.zeros(2, 3, 16, 16))
    assert list(groups) == ["1.0", "1.1", "1.3", "1.7"]
    # with the activation functions
    assert [group.output for group in groups.values()] == [layers[0], layers[2], layers[4], layers[7]]
    assert_partition(model, groups)


def test_groups_as_the_user_lists_them():
    model = Net()
    x = torch.zeros(2, 3, 32, 32)
    groups = layer_groups(
        model, x, {"low": [model.blocks[0], "blocks.1"], "high": ["blocks.2", "blocks.3"], "top": "head"}
    )
    assert [groups[name].output for name in ("low", "high", "top")] == [model.blocks[1], model.blocks[3], model.head]
    assert_partition(model, groups)
    assert any(p is model.scale for p in groups["low"].parameters)
    assert list(layer_groups(model, x, [["blocks.0", "blocks.1"], "blocks.2", model.blocks[3], "head"])) == [
        "blocks.0",
        "blocks.2",
        "blocks.3",
        "head",
    ]


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
    ],
)
def test_groups_that_will_not_do(groups, message):
    with pytest.raises(UserError, match=message):
        layer_groups(Net(), torch.zeros(2, 3, 32, 32), groups)


def test_modules_that_are_shared_or_unused():
    class Odd(Net):
        def __init__(self, twice: bool):
            super().__init__()
            self.twice, self.aside = twice, None if twice else nn.Linear(2, 2)
            self.again = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return super().forward(self.again(self.again(x) if self.twice else x))

    x = torch.zeros(2, 3, 32, 32)
    with pytest.raises(UserError, match=r"'aside.weight' is in no layer group"):
        layer_groups(Odd(twice=False), x)
    assert (
        list(
            layer_groups(
                Odd(twice=False), x, ["again", "blocks.0", "blocks.1", "blocks.2", "blocks.3", ["aside", "head"]]
            )
        )[-1]
        == "aside"
    )
    with pytest.raises(UserError, match=r"'again' is called 2 times"):
        layer_groups(Odd(twice=True), x)
    with pytest.raises(UserError, match=r"no layer groups found in this Linear"):
        layer_groups(nn.Linear(3, 3), torch.zeros(2, 3))
