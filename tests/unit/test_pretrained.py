"""Training that begins with a published checkpoint."""

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml

from helpers.compare import same
from helpers.images import drawn, noise
from helpers.params_text import cell_params
from helpers.training import GROUPS, model_of, pretrained_of, run_of, saved
from relearn import __main__, grid, params, registry
from relearn.engines import dvc
from relearn.errors import UserError
from relearn.methods.pretrained import IMAGENET, Pretrained
from relearn.runtime.torchvision_compat import torchvision
from relearn.training import models
from relearn.training.transfer import match_published

# networks that torchvision has, too, and what its head of 1,000 classes leaves to draw in one of 10
NETWORKS = {
    "resnet18": ["head.2.weight", "head.2.bias"],
    "resnet50": ["head.2.weight", "head.2.bias"],
    "densenet121": ["head.2.weight", "head.2.bias"],
    "mobilenet_v2": ["head.3.weight", "head.3.bias"],
    "vgg19_bn": ["head.2.weight", "head.2.bias"],
    "convnext_tiny": ["head.3.weight", "head.3.bias"],
}
# parts of our names of the modules of a vision transformer of four blocks, and DeiT's
DEIT = {"stem.class_token": "cls_token", "stem.positions": "pos_embed", "stem.patches": "patch_embed.proj"}
DEIT |= {"head.0": "norm", "head.2": "head", "qkv": "attn.qkv", ".out.": ".attn.proj."}
DEIT |= {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"} | {f"stage{k + 1}.0": f"blocks.{k}" for k in range(4)}


def network(arch: str, size: int, classes: int = 10, **own) -> models.Normalised:
    how = {"images": noise(4, size, size), "classes": classes, "generator": drawn(3), "device": "cpu"}
    return models.build(arch, own, **how)


def theirs(name: str) -> torch.nn.Module:
    """A network of torchvision's with weights and statistics that are its own, drawn here."""
    torch.manual_seed(5)
    model = getattr(torchvision().models, name)(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def normalised(x: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] as torchvision's networks are trained with them."""
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in IMAGENET)
    return (x - mean) / std


def features(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the last linear layer of a network gets, (B, D)."""
    found = []
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with last.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0])), torch.no_grad():
        model(x)
    return found[0]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "vgg19_bn"])
def test_a_network_with_torchvisions_weights_computes_what_torchvisions_does(name, tmp_path, capsys):
    model, published = network(name, 112), theirs(name)
    method = Pretrained(**saved(published.state_dict(), tmp_path / f"{name}.pth"))
    head = models.weights(model)
    method.initialise(model, {}, {})
    x = torch.rand(2, 3, 112, 112, generator=drawn(1))
    expected = features(published, normalised(x))
    found = features(model.eval(), x)
    assert expected.std() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    outcome = method.outcome()
    assert outcome["drawn"].split(", ") == NETWORKS[name]
    assert outcome["parameters_drawn"] == sum(head[f"network.{part}"].numel() for part in NETWORKS[name])
    count = sum(parameter.numel() for parameter in model.parameters())
    assert outcome["parameters_taken"] + outcome["parameters_drawn"] == count
    for part in NETWORKS[name]:
        assert torch.equal(model.state_dict()[f"network.{part}"], head[f"network.{part}"])
    words = capsys.readouterr().err
    assert words.startswith(f"pretrained: {outcome['parameters_taken']:,} of {count:,} parameters are those of ")
    assert f"drawn anew: {NETWORKS[name][0]}: (1000, " in words and words.count("\n") == 1


def test_images_are_normalised_as_torchvision_says():
    expected = torchvision().models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert (tuple(expected.mean), tuple(expected.std)) == IMAGENET


def test_the_convolutions_of_vgg_are_torchvisions(tmp_path):
    """Its head is another one: torchvision's has three linear layers for 7x7 places."""
    model, published = network("vgg19_bn", 32), theirs("vgg19_bn")
    method = Pretrained(**saved(published.features.state_dict(prefix="features."), tmp_path / "vgg.pth"))
    method.initialise(model, {}, {})
    x = torch.rand(2, 3, 32, 32, generator=drawn(1))
    with torch.no_grad():
        expected = published.features(normalised(x)).mean((2, 3))
    assert torch.allclose(features(model.eval(), x), expected, rtol=1e-3, atol=1e-5)
    assert method.outcome()["drawn"].split(", ") == NETWORKS["vgg19_bn"]


def test_a_head_that_fits_is_taken(tmp_path):
    model, published = network("resnet18", 112, classes=1000), theirs("resnet18")
    method = Pretrained(**saved(published.state_dict(), tmp_path / "resnet18.pth"))
    method.initialise(model, {}, {})
    x = torch.rand(2, 3, 112, 112, generator=drawn(1))
    with torch.no_grad():
        assert torch.allclose(model.eval()(x), published(normalised(x)), rtol=1e-3, atol=1e-4)
    assert method.outcome()["parameters_drawn"] == 0 and method.outcome()["drawn"] == ""


def test_the_stem_of_small_images_is_drawn_anew_only_if_allowed(tmp_path):
    published, model = theirs("resnet18").state_dict(), network("resnet18", 32)
    own, before = saved(published, tmp_path / "resnet18.pth"), models.weights(model)
    with pytest.raises(
        UserError,
        match=r"lacks 1 tensors of the network \(stem.0.weight: \(64, 3, 7, 7\) in the file, \(64, 3, 3, 3\) here\)",
    ):
        Pretrained(**own).initialise(model, {}, {})
    assert same(models.weights(model), before)
    with pytest.raises(UserError, match="frozen_groups: 1 would freeze 'stem', where the file lacks 1 tensors"):
        Pretrained(**own, partial=True, frozen_groups=1).initialise(model, {}, {})
    assert same(models.weights(model), before)
    method = Pretrained(**own, partial=True)
    method.initialise(model, {}, {})
    assert method.outcome()["drawn"] == "stem.0.weight, head.2.weight, head.2.bias"
    after = models.weights(model)
    assert torch.equal(after["network.stem.0.weight"], before["network.stem.0.weight"])
    assert torch.equal(after["network.layer4.1.conv2.weight"], published["layer4.1.conv2.weight"])
    assert torch.equal(after["network.stem.1.running_mean"], published["bn1.running_mean"])


def test_older_checkpoints_name_the_layers_of_densenet_otherwise_and_count_no_batches(tmp_path):
    """So does the file that torchvision publishes."""
    new = theirs("densenet121").state_dict()
    old = {}
    for name, tensor in new.items():
        for kind in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f"{kind}{number}", f"{kind}.{number}")
        if not name.endswith("num_batches_tracked"):
            old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    made = []
    for kind, weights in (("new", new), ("old", old)):
        model = network("densenet121", 112)
        Pretrained(**saved(weights, tmp_path / f"{kind}.pth")).initialise(model, {}, {})
        made.append({name: tensor for name, tensor in models.weights(model).items() if "num_batches" not in name})
    assert same(*made)


def test_the_names_of_deit(tmp_path):
    """A network of ours under the names that DeiT and timm have for the same modules."""
    ours = network("vit_small", 32, width=64, depth=4)
    weights = {}
    for name, tensor in models.weights(ours).items():
        if not name.startswith("network."):
            continue
        renamed = name.removeprefix("network.")
        for old, new in DEIT.items():
            renamed = renamed.replace(old, new)
        weights[renamed] = tensor + 1
    other = network("vit_small", 32, width=64, depth=4)
    method = Pretrained(**saved({"model": weights}, tmp_path / "deit.pth"), normalisation="images")
    method.initialise(other, {}, {})
    assert method.outcome()["parameters_drawn"] == 0
    wanted = models.weights(ours)
    for name, tensor in models.weights(other).items():
        assert torch.equal(tensor, wanted[name] + (1 if name.startswith("network.") else 0)), name


def test_a_network_of_which_a_library_has_all_names(tmp_path):
    """As those of timm, which lie in one module of ours."""
    inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4), torch.nn.Linear(4, 2))
    networks = [models.Grouped({"model": copy.deepcopy(inner)}, published={"": "model"}) for _ in range(2)]
    model = models.Normalised(networks[0], torch.zeros(3), torch.ones(3))
    given = {name: tensor + 1 for name, tensor in inner.state_dict().items()}
    taken, lacking = match_published(model, given)
    assert not lacking and taken.keys() == {f"network.model.{name}" for name in given}
    assert all(torch.equal(tensor, given[name.removeprefix("network.model.")]) for name, tensor in taken.items())
    again, _ = match_published(model, {f"model.{name}": tensor for name, tensor in given.items()})  # ours
    assert same(again, taken)


@pytest.mark.parametrize("kind", [".safetensors", ".pth", ".pt"])
def test_a_model_of_ours_with_its_normalisation(kind, tiny, tmp_path):
    weights, model = pretrained_of(tiny), model_of(tiny)
    weights |= {"mean": torch.full((1, 3, 1, 1), 0.25), "std": torch.full((1, 3, 1, 1), 0.75)}
    method = Pretrained(**saved(weights, tmp_path / f"model{kind}"))
    method.initialise(model, {}, {})
    assert same(models.weights(model), weights)
    fresh = model_of(tiny)
    Pretrained(**saved(weights, tmp_path / f"model{kind}"), normalisation="images").initialise(fresh, {}, {})
    assert torch.equal(fresh.mean, model_of(tiny).mean) and torch.equal(fresh.std, model_of(tiny).std)
    parallel = {name.replace("network.", "module."): t for name, t in weights.items() if name.startswith("network.")}
    other = model_of(tiny)
    Pretrained(**saved({"state_dict": parallel, "epoch": 3}, tmp_path / "parallel.pth")).initialise(other, {}, {})
    assert torch.allclose(other.mean.flatten(), torch.tensor(IMAGENET[0]))
    assert torch.allclose(other.std.flatten(), torch.tensor(IMAGENET[1]))
    assert torch.equal(other.state_dict()["network.block1.0.weight"], weights["network.block1.0.weight"])


@pytest.mark.parametrize("frozen", [None, 1, 4])
def test_frozen_groups_stay_as_they_are(frozen, tiny, tmp_path):
    model = model_of(tiny)
    method = Pretrained(**saved(pretrained_of(tiny), tmp_path / "model.safetensors"), frozen_groups=frozen)
    method.initialise(model, {}, {})
    begin, stopped = models.weights(model), tuple(f"network.{name}." for name in GROUPS[: frozen or 0])
    begin = {name: tensor.clone() for name, tensor in begin.items()}
    run = run_of(tiny, method, model)
    for _ in range(3):
        run.advance()
    for name, tensor in models.weights(model).items():
        stays = name in ("mean", "std") or bool(stopped) and name.startswith(stopped)
        assert torch.equal(tensor, begin[name]) == stays, name


def test_more_frozen_groups_than_there_are(tiny, tmp_path):
    method = Pretrained(**saved(pretrained_of(tiny), tmp_path / "model.pth"), frozen_groups=5)
    with pytest.raises(UserError, match="pretrained: frozen_groups must be less than 5, the number of layer groups"):
        run_of(tiny, method)


@pytest.mark.parametrize("frozen, found", [("null", []), (4, []), (5, ["methods.pretrained.frozen_groups: for archi"])])
def test_frozen_groups_are_compared_with_the_architecture(frozen, found):
    settings = f"{{path: x.pth, sha256: f37072fd, frozen_groups: {frozen}}}"
    checked = params.Params(yaml.safe_load(cell_params({"pretrained": settings}, epochs=1)))
    assert [error[: len(found[0])] for error in registry.consistency.errors(checked)] == found


def test_the_jobs_of_a_cell(tmp_path, monkeypatch, capsys, tiny):
    """Both engines watch the file: its list is an input of the job, and its content is in the record's settings."""
    monkeypatch.chdir(tmp_path)
    own = saved(pretrained_of(tiny), Path("mine.safetensors"))
    settings = f"{{path: mine.safetensors, sha256: {own['sha256']}, frozen_groups: 1}}"
    Path("params.yaml").write_text(cell_params({"pretrained": settings}, epochs=1))
    cell = grid.Cell.parse("digits/lsp/cnn/pretrained/0")
    before = ("prepare digits", "poison digits/lsp", "inputs methods/pretrained")
    for command in (*before, f"train {cell}", f"evaluate {cell}"):
        assert __main__.main(command.split()) == 0, command
    info = json.loads(cell.path("train", "info").read_text())
    assert info["settings"]["method"]["path"] == f"sha256:{own['sha256']}"
    assert info["outcome"]["parameters_drawn"] == 0 < info["outcome"]["parameters_taken"]
    listed = "results/inputs/methods/pretrained.sha256"
    assert listed in grid.job(params.load(), "train", str(cell)).inputs and own["sha256"] in Path(listed).read_text()
    stages = yaml.safe_load(dvc.render(params.load()))["stages"]
    assert stages["inputs-methods-pretrained"]["always_changed"]
    assert [name for name, stage in stages.items() if listed in stage["deps"]] == [
        f"train-{str(cell).replace('/', '-')}",
        f"evaluate-{str(cell).replace('/', '-')}",
    ]
    # another file: no job begins, and `check-params` says so before the first
    saved(pretrained_of(tiny) | {"more": torch.zeros(1)}, Path("mine.safetensors"))
    capsys.readouterr()
    for command in ("check-params", f"train {cell}", "inputs methods/pretrained"):
        assert __main__.main(command.split()) == 2
        assert "mine.safetensors is another file than params.yaml expects" in capsys.readouterr().err
