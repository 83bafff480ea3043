"""Architectures against torchvision's own networks and published sizes, how they draw weights, and what they refuse."""

import importlib.util
import sys

import pytest
import torch
from torch import nn

from helpers.images import drawn
from relearn import registry
from relearn.errors import UserError
from relearn.probing.acm import pooled
from relearn.runtime.torchvision_compat import torchvision
from relearn.training import initialisation, models
from relearn.training.transfer import copy_groups

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


def network(name: str, size: int = 32, classes: int = 10, **settings) -> models.Grouped:
    made = registry.load("architectures", name)(classes, (size, size), **settings)
    made.draw(drawn(1))
    return made.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121", "mobilenet_v2", "convnext_tiny"])
def test_for_large_images_networks_are_those_of_torchvision(name):
    """With the same weights in the same order they compute the same."""
    ours, theirs = network(name, 128, 1000), torchvision().models.get_model(name).eval()
    given = list(theirs.state_dict().values())
    tensors = ours.state_dict()
    assert [t.shape for t in tensors.values()] == [t.shape for t in given]
    for tensor, own in zip(given, tensors.values(), strict=True):
        tensor.copy_(own)
    x = torch.rand(2, 3, 128, 128, generator=drawn(2))
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, size, classes, settings, count",
    [
        ("resnet50", 224, 1000, {}, 25_557_032),
        ("densenet121", 224, 1000, {}, 7_978_856),
        ("mobilenet_v2", 224, 1000, {}, 3_504_872),
        ("convnext_tiny", 224, 1000, {}, 28_589_128),
        ("vit_small", 224, 1000, {}, 22_050_664),  # Touvron et al., 2021, table 1: 22 million
        ("wide_resnet28_10", 32, 10, {}, 36_479_194),  # Zagoruyko and Komodakis, 2016, table 4: 36.5 million
        ("wide_resnet28_10", 32, 10, {"depth": 40, "width": 64}, 8_949_210),  # the same of WRN-40-4: 8.9 million
    ],
)
def test_networks_have_as_many_weights_as_published(name, size, classes, settings, count):
    with torch.device("meta"):
        made = registry.load("architectures", name)(classes, (size, size), **settings)
    assert sum(parameter.numel() for parameter in made.parameters()) == count


@pytest.mark.parametrize(
    "name, small, large",
    [
        ("resnet18", (32, 32, 16, 8, 4), (28, 28, 14, 7, 4)),
        ("resnet50", (32, 32, 16, 8, 4), (28, 28, 14, 7, 4)),
        ("densenet121", (32, 16, 8, 4, 4), (28, 14, 7, 3, 3)),
        ("mobilenet_v2", (32, 32, 16, 8, 4), (56, 28, 14, 7, 4)),
        ("convnext_tiny", (16, 16, 8, 4, 2), (28, 28, 14, 7, 3)),
    ],
)
def test_the_stem_fits_the_images(name, small, large):
    """From 112 pixels on networks shrink images as for ImageNet; below they leave more of them."""
    for size, expected in ((32, small), (112, large)):
        x, sides = torch.zeros(1, 3, size, size), []
        for group in list(network(name, size, width=8).layer_groups().values())[:-1]:
            x = group(x)
            sides.append(x.shape[-1])
        assert tuple(sides) == expected


def test_tokens_of_a_transformer():
    """A token for each patch, row by row, behind the class token; attention looks at all of them."""
    made = network("vit_small", width=16, depth=4)
    x = torch.rand(2, 3, 32, 32, generator=drawn(3))
    stem = made.layer_groups()["stem"]
    tokens = stem(x)
    assert tokens.shape == (2, 1 + 64, 16) and pooled(tokens).shape == (2, (1 + 16) * 16)
    assert network("vit_small", 224, width=16).layer_groups()["stem"](torch.zeros(1, 3, 224, 224)).shape[1] == 1 + 196
    changed = x.clone()
    changed[:, :, 4:8, 8:12] += 1.0  # the patch in row 1, column 2
    moved = (stem(changed) != tokens).any(2)[0].nonzero().flatten().tolist()
    assert moved == [1 + 8 * 1 + 2]
    block = made.layer_groups()["stage1"]
    assert (block(stem(changed)) != block(tokens)).any(2).all()
    wide = network("vit_small", width=128, depth=4).layer_groups()["stage1"]
    assert (block[0].heads, wide[0].heads) == (1, 2)


@pytest.mark.parametrize("depth, expected", [(4, [1, 1, 1, 1]), (12, [3, 3, 3, 3]), (6, [1, 2, 1, 2])])
def test_blocks_of_a_transformer_share_four_groups(depth, expected):
    groups = network("vit_small", width=8, depth=depth).layer_groups()
    assert [len(groups[f"stage{k}"]) for k in range(1, 5)] == expected


def test_attention_is_that_of_the_definition():
    block = network("vit_small", width=128, depth=4).layer_groups()["stage1"][0]
    x = torch.randn(1, 5, 128, generator=drawn(4))
    query, key, value = block.qkv(block.norm1(x))[0].split(128, 1)
    parts = []
    for head in (slice(0, 64), slice(64, 128)):
        shares = (query[:, head] @ key[:, head].T / 8).softmax(1)
        parts.append(shares @ value[:, head])
    x = x + block.out(torch.cat(parts, 1))
    assert torch.allclose(block(x - block.out(torch.cat(parts, 1))), x + block.mlp(block.norm2(x)), atol=1e-5)


def test_transformers_draw_truncated_normal_weights():
    made = network("vit_small", width=64, depth=4)
    for name, parameter in made.named_parameters():
        if parameter.ndim > 1:  # the class token and the positions too
            assert parameter.abs().max() <= 0.04 and 0.013 < parameter.std() < 0.022, name
        else:
            assert (parameter == float("norm" in name or name == "head.0.weight")).all() or name.endswith("bias"), name
    convnext = network("convnext_tiny", width=8)
    scales = {name: p for name, p in convnext.named_parameters() if name.endswith("layer_scale")}
    assert len(scales) == 18 and all((scale == 1e-6).all() for scale in scales.values())
    assert all((p == 0).all() for name, p in convnext.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    "name, size, settings, words",
    [
        ("vit_small", (30, 32), {}, "the sides of images must be multiples of 4 pixels, found 30x32"),
        ("vit_small", (120, 120), {}, "must be multiples of 16 pixels, found 120x120"),
        ("vit_small", (32, 32), {"width": 200}, "width must be a multiple of 64, or less than 128, found 200"),
        ("vit_small", (32, 32), {"depth": 3}, "depth must be from 4 to 1000 blocks, found 3"),
        ("wide_resnet28_10", (32, 32), {"depth": 27}, "depth must be 6n .* found 27"),
        ("wide_resnet28_10", (32, 32), {"depth": 1_000_000}, "depth must be 6n .* found 1000000"),
        ("wide_resnet28_10", (32, 32), {"width": 4}, "width must be 8 or more, found 4"),
        ("densenet121", (32, 32), {"width": 9}, "width must be even, twice the growth rate, found 9"),
    ],
)
def test_what_architectures_refuse(name, size, settings, words):
    with pytest.raises(UserError, match=f"^{name}: .*{words}|^{name}: {words}"):
        registry.load("architectures", name)(10, size, **settings)


# Initialisation


def test_layers_of_unknown_kinds_and_dropout_are_refused():
    with pytest.raises(UserError, match=r"no initialisation is known for layer '0' \(PReLU\)"):
        initialisation.initialise(nn.Sequential(nn.PReLU()), drawn())
    for layer in (nn.Dropout(0.5), torchvision().ops.StochasticDepth(0.1, "row")):
        with pytest.raises(UserError, match=r"layer '1' \(\w+\) drops at random, under the control of no seed"):
            initialisation.initialise(nn.Sequential(nn.Linear(2, 2), layer), drawn())
    initialisation.initialise(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)), drawn())


# timm


@needs_timm
@pytest.mark.parametrize(
    "name, size, groups",
    [
        ("test_vit", 32, ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "head"]),
        ("test_resnet", 40, ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
    ],
)
def test_models_of_timm(name, size, groups):
    """The groups are a partition, are called with the activations, and are copied with their statistics."""
    images = torch.randint(0, 256, (4, size, size, 3), generator=drawn(5), dtype=torch.uint8)
    how = {"images": images, "classes": 5, "device": "cpu"}
    model = models.build("timm", {"name": name}, generator=drawn(6), **how)
    found = model.layer_groups()
    assert list(found) == groups
    owned = [id(p) for group in found.values() for p in group.parameters()]
    assert sorted(owned) == sorted(map(id, model.parameters())) and len(set(owned)) == len(owned)
    seen = {}
    hooks = [
        group.register_forward_hook(lambda _, __, out, label=label: seen.setdefault(label, out))
        for label, group in found.items()
    ]
    logits = model(images.permute(0, 3, 1, 2) / 255)
    assert list(seen) == groups and torch.equal(seen[groups[-1]], logits)
    for hook in hooks:
        hook.remove()


@needs_timm
def test_groups_of_timm_are_copied_with_their_statistics():
    images = torch.randint(0, 256, (8, 32, 32, 3), generator=drawn(5), dtype=torch.uint8)
    how = {"images": images, "classes": 5, "device": "cpu"}
    model, other = (models.build("timm", {"name": "test_resnet"}, generator=drawn(k), **how) for k in (1, 2))
    other.train()(images.permute(0, 3, 1, 2) / 255)
    before, given = ({name: t.clone() for name, t in models.weights(one).items()} for one in (model, other))
    copy_groups(model, ["conv1", "layer1"], given, "test", "none")
    taken = ("network.model.conv1.", "network.model.bn1.", "network.model.layer1.")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (given if name.startswith(taken) else before)[name]), name
    assert not torch.equal(before["network.model.bn1.running_mean"], given["network.model.bn1.running_mean"])
    del given["network.model.layer1.0.conv1.weight"]
    with pytest.raises(UserError, match=r"layer group 'layer1' of test does not fit the victim's \(.*: none, "):
        copy_groups(model, ["layer1"], given, "test", "none")


@needs_timm
@pytest.mark.parametrize(
    "name, size, words",
    [
        ("resnet_18", 32, r"timm: unknown model 'resnet_18'; known: .*did you mean 'resnet\w*18\w*'"),
        ("test_vit", 40, r"VisionTransformer cannot take images .* 40, 40.*divisible by patch size|cannot be made"),
    ],
)
def test_what_of_timm_is_refused(name, size, words):
    with pytest.raises(UserError, match=words) as error:
        registry.load("architectures", "timm")(10, (size, size), name=name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs the package timm; install it: pip install 'relearn\[timm\]'$"):
        registry.load("architectures", "timm")(10, (32, 32), name="resnet18")
