"""PST with networks of timm: layer groups from shallow to deep, of which the shallow ones can be stopped."""

import importlib
import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from helpers.training import ALWAYS_TRAPPED
from relearn.pst import PST
from relearn.runtime.torchvision_compat import torchvision

pytestmark = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed (make extras)")
#: a residual network, one of inverted bottlenecks, one of large kernels, a transformer
MODELS = {"resnet10t": {}, "mobilenetv3_small_050": {}, "convnext_atto": {}, "deit_tiny_patch16_224": {"img_size": 64}}


@pytest.fixture(scope="module")
def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(16, 3, 64, 64, generator=generator), torch.arange(16) % 4)


@pytest.mark.usefixtures("decided_by_limit")
@pytest.mark.parametrize("name", MODELS)
def test_groups_partition_the_parameters_in_order(name, images):
    torchvision()  # timm imports it
    torch.manual_seed(0)
    model = importlib.import_module("timm").create_model(name, num_classes=4, **MODELS[name])
    optimizer = torch.optim.SGD(model.parameters(), 0.01, weight_decay=0.1)
    own = ALWAYS_TRAPPED | {"probe_steps": 1, "full_rate_groups": [2], "probe_size": 8}
    pst = PST(model, optimizer, images, steps_per_epoch=2, **own)
    grouped = [parameter for group in pst.groups.values() for parameter in group.parameters]
    assert len(pst.groups) >= 4 and len(grouped) == len(set(grouped))
    assert set(grouped) == set(model.parameters())
    assert set(model.get_classifier().parameters()) <= set(list(pst.groups.values())[-1].parameters)
    called: list[str] = []
    hooks = [
        group.output.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, group in pst.groups.items()
    ]
    model.eval()(images.tensors[0][:2])
    assert called == list(pst.groups)
    for hook in hooks:
        hook.remove()

    before = {parameter: parameter.detach().clone() for parameter in grouped}
    for _ in pst.epochs(1):
        model.train()
        for part in images.tensors[0].chunk(2):
            optimizer.zero_grad()
            F.cross_entropy(model(part), images.tensors[1][: len(part)]).backward()
            optimizer.step()
            if pst.step():
                break
    assert pst.stage == "stage 1" and pst.training.steps_taken == 3
    learning = list(pst.groups)[-2:]
    for group, found in pst.groups.items():
        moved = [not torch.equal(parameter, before[parameter]) for parameter in found.parameters]
        assert any(moved) == (group in learning), group
