"""The precision of networks: bfloat16 where the processor has it, and float32 said plainly where not."""

import pytest
import torch

from helpers.images import drawn
from helpers.training import GROUPS, RECIPE, model_of
from relearn.data import to_float
from relearn.methods.erm import ERM
from relearn.probing.probe_set import ProbeSet
from relearn.runtime import cpu, device
from relearn.runtime.seeding import Seeds
from relearn.training import models
from relearn.training.fit import fit


def model(train, precision: str) -> models.Normalised:
    own = {"images": train.images, "classes": 10, "generator": drawn(2), "device": "cpu"}
    return models.build("cnn", {"width": 8}, precision=precision, **own)


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """A function that gives this machine a processor with these flags."""

    def put(flags: str | None) -> None:
        if flags is not None:
            (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
        monkeypatch.setattr(cpu, "PROCESSOR", tmp_path / "cpuinfo")
        monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")

    return put


@pytest.mark.parametrize("flags", ["fpu avx2 avx512_bf16", "fpu avx2 amx_bf16", "fp asimd bf16"])
def test_bfloat16_where_the_processor_has_it(processor, capsys, flags):
    processor(flags)
    assert cpu.usable_precision("bfloat16", "native") == "bfloat16"
    assert cpu.usable_precision("float32", "native") == "float32"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flags", ["fpu avx2 avx512f avx512bw", None])
def test_float32_with_a_message_where_it_has_not(processor, capsys, flags):
    processor(flags)
    assert cpu.usable_precision("bfloat16", "native") == "float32"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "compute.precision is bfloat16, which this processor does not have; the job runs in float32" in said
    assert cpu.usable_precision("float32", "native") == "float32" and capsys.readouterr().err == ""


@pytest.mark.parametrize("isa", ["avx2", "sse4"])
def test_limited_instructions_leave_bfloat16_out(processor, capsys, isa):
    processor("fpu avx2 avx512_bf16")
    assert cpu.usable_precision("bfloat16", isa) == "float32"
    assert f"which compute.isa {isa} leaves out" in capsys.readouterr().err


def test_a_gpu_takes_what_is_asked_for(processor):
    processor("fpu")
    assert device.precision({"precision": "bfloat16", "isa": "avx2"}, "cuda:0") == "bfloat16"
    assert device.precision({"precision": "bfloat16", "isa": "native"}, "cpu") == "float32"


def test_a_network_in_bfloat16_gives_float32_logits_close_to_those_in_float32(tiny):
    x = to_float(tiny.images)
    plain, mixed = model(tiny, "float32").eval(), model(tiny, "bfloat16").eval()
    kinds = []
    mixed.layer_groups()["block2"].register_forward_hook(lambda _, __, out: kinds.append(out.dtype))
    found, expected = mixed(x), plain(x)
    assert found.dtype == torch.float32 and kinds == [torch.bfloat16]
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    found.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in mixed.parameters())


def test_probes_measure_a_network_in_its_own_precision_and_leave_its_gradients(tiny):
    probes = ProbeSet.draw(tiny, 40, drawn())
    found = model(tiny, "bfloat16")
    result = probes.measure(found, ERM().eval_transform, found.layer_groups())
    assert list(result.acm) == GROUPS and 0 <= result.accuracy <= 1
    found.train()(to_float(tiny.images[:8])).sum().backward()  # no cast without a gradient was kept
    assert all(parameter.grad is not None for parameter in found.parameters())


def test_training_in_bfloat16_repeats_itself(tiny):
    def weights() -> dict:
        trained = model(tiny, "bfloat16")
        probes = ProbeSet.draw(tiny, 40, drawn())
        fit(trained, ERM(), tiny, tiny, RECIPE | {"epochs": 1}, Seeds("test"), probe_set=probes, label="test")
        return trained.state_dict()

    one, two = weights(), weights()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["network.head.2.weight"], model_of(tiny).state_dict()["network.head.2.weight"])
