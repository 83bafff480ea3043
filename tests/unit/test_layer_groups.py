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
    "densenet121": [*(f"features.denseblock{k}" for k in (1, 2, 3, 4)), "classifier"],
    "mobilenet_v3_small": [*(f"features.{k}" for k in (1, 2, 4, 6, 9)), "classifier"],
    "efficientnet_b0": [*(f"features.{k}" for k in (1, 2, 3, 4, 6)), "classifier"],
    "convnext_tiny": [*(f"features.{k}" for k in ("1", "3", "5.0", "5.4", "7")), "classifier"],
    "vit_b_16": [*(f"encoder.layers.encoder_layer_{k}" for k in (0, 2, 4, 6, 9)), "heads"],
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
    assert list(groups) == ["1.0", "1.3", "1.7"]
    # with the norm and the activation functions
    assert [group.output for group in groups.values()] == [layers[2], layers[4], layers[7]]
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
    twice = Odd(twice=True)
    with pytest.raises(UserError, match=r"'again' is called 2 times"):
        layer_groups(twice, x, ["again", *(f"blocks.{k}" for k in range(4)), "head"])
    groups = layer_groups(twice, x)  # with the block that follows
    assert list(groups) == ["again", "blocks.1", "blocks.2", "blocks.3", "head"]
    assert groups["again"].output is twice.blocks[0]
    assert_partition(twice, groups)
    with pytest.raises(UserError, match=r"no layer groups found in this Linear"):
        layer_groups(nn.Linear(3, 3), torch.zeros(2, 3))


# Groups that share the depth


def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU())


class Residual(nn.Module):
    """A layer of tokens or pixels with a shortcut around it; `as_tuple` returns what transformers do."""

    def __init__(self, *inner: nn.Module, as_tuple: bool = False):
        super().__init__()
        self.norm, self.inner, self.as_tuple, self.out = nn.Identity(), nn.Sequential(*inner), as_tuple, nn.Identity()

    def forward(self, x):
        x = x[0] if isinstance(x, tuple) else x
        x = self.out(x + self.inner(self.norm(x)))
        return (x,) if self.as_tuple else x


class Staged(nn.Module):
    """The layout of timm's EfficientNets: two small modules, all blocks in one container, a layer after the pooling."""

    def __init__(self, distilled: bool = False):
        super().__init__()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)
        widths = [4, 4, 8, 8, 16]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(conv(a, b, 2), *(Residual(conv(b, b)) for _ in range(5)))
                for a, b in zip(widths, widths[1:], strict=False)
            )
        )
        self.global_pool, self.conv_head = nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 32, 1)
        self.classifier, self.second = nn.Linear(32, 10), nn.Linear(32, 10) if distilled else None

    def forward(self, x):
        x = self.conv_head(self.global_pool(self.blocks(self.bn1(self.conv_stem(x))))).flatten(1)
        return self.classifier(x) if self.second is None else (self.classifier(x) + self.second(x)) / 2


class Tokens(nn.Module):
    """A vision transformer: patches, blocks of four layers, a last norm."""

    def __init__(self, blocks: int, as_tuple: bool = False):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        layers = [
            Residual(nn.LayerNorm(8), *(nn.Linear(8, 8) for _ in range(4)), as_tuple=as_tuple) for _ in range(blocks)
        ]
        self.blocks, self.norm, self.head = nn.Sequential(*layers), nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, x):
        x = self.blocks(self.patches(x).flatten(2).mT)
        return self.head(self.norm(x[0] if isinstance(x, tuple) else x).mean(1))


def weights_of(model, groups) -> list[int]:
    """How many weights of two dimensions or more each group owns."""
    assert_partition(model, groups)
    return [sum(p.squeeze().ndim > 1 for p in group.parameters) for group in groups.values()]


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.filterwarnings("error")
def test_one_container_with_all_blocks_is_opened(distilled):
    model = Staged(distilled)
    groups = layer_groups(model, torch.zeros(2, 3, 64, 64))
    assert list(groups) == [*(f"blocks.{k}" for k in range(4)), "conv_head"]
    assert weights_of(model, groups) == [7, 6, 6, 6, 2 + distilled]
    assert [groups[f"blocks.{k}"].output for k in range(4)] == list(model.blocks)


@pytest.mark.parametrize("as_tuple", [False, True])
@pytest.mark.parametrize(
    "blocks, expected",
    [(2, [1, 4, 4, 1]), (3, [1, 4, 4, 4, 1]), (4, [1, 4, 4, 4, 4, 1]), (12, [9, 8, 8, 12, 12, 1])],
)
def test_the_last_norm_of_a_transformer_is_no_group(blocks, expected, as_tuple):
    """Nor is what lies beside a shortcut: of every block the group ends with its sum."""
    model = Tokens(blocks, as_tuple)
    groups = layer_groups(model, torch.zeros(2, 3, 32, 32))
    assert weights_of(model, groups) == expected
    *ends, last, head = [group.output for group in groups.values()]
    assert last is model.norm and head is model.head
    assert all(end in (model.patches, *(block.out if as_tuple else block for block in model.blocks)) for end in ends)


@pytest.mark.filterwarnings("error")
def test_parametrizations_are_no_activations():
    layers = [conv(a, b, 2) for a, b in ((3, 4), (4, 4), (4, 8), (8, 8))]
    for layer in layers:
        nn.utils.parametrizations.weight_norm(layer[0])
    model = nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    nn.utils.parametrizations.orthogonal(model[3])
    groups = layer_groups(model, torch.zeros(2, 3, 32, 32))  # as many images as the head has rows
    assert list(groups) == ["0.0", "0.1", "0.2", "0.3", "3"]
    assert [group.output for group in groups.values()] == [*layers, model[3]]
    assert_partition(model, groups)


def test_a_stage_of_most_layers_is_cut_and_a_thin_one_joined():
    blocks = [Residual(conv(8, 8)) for _ in range(20)]
    model = nn.Sequential(
        conv(3, 8), conv(8, 8, 2), conv(8, 8, 2), nn.Sequential(conv(8, 8, 2), *blocks), nn.Flatten(), nn.Linear(512, 2)
    )
    groups = layer_groups(model, torch.zeros(2, 3, 64, 64))
    assert weights_of(model, groups) == [3, 7, 7, 7, 1]


def test_layers_side_by_side_go_together():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.left, self.right = conv(3, 4, 2), conv(4, 4, 2), conv(4, 4, 2)
            self.mix, self.deep, self.head = conv(8, 8, 2), conv(8, 8, 2), nn.Linear(8, 10)

        def forward(self, x):
            x = self.stem(x)
            return self.head(self.deep(self.mix(torch.cat([self.left(x), self.right(x)], 1))).mean((2, 3)))

    model = Split()
    groups = layer_groups(model, torch.zeros(2, 3, 32, 32))
    assert [group.output for group in groups.values()] == [model.stem, model.mix, model.deep, model.head]
    assert_partition(model, groups)


def test_uneven_groups_are_said():
    class Streams(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.one, self.two = conv(3, 4, 2), nn.ModuleList(), nn.ModuleList()
            self.one.extend(conv(4, 4) for _ in range(6))
            self.two.extend(conv(4, 4) for _ in range(6))
            self.head = nn.Linear(8, 10)

        def forward(self, x):
            one = two = self.stem(x)
            for left, right in zip(self.one, self.two, strict=True):
                one, two = left(one) + two, right(two) + one
            return self.head(torch.cat([one, two], 1).mean((2, 3)))

    with pytest.warns(UserWarning, match=r"uneven in depth: 'stem' 7%, .*groups=\[") as caught:
        layer_groups(Streams(), torch.zeros(2, 3, 32, 32))
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
