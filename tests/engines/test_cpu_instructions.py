"""Limited CPU instructions: what a setting of `compute.isa` changes, and what it must not."""

import hashlib
import json
import os
import platform

import pytest
import yaml

from relearn import registry
from relearn.runtime import cpu

x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names instructions of x86-64")
GOOD_FOR = [name for name in cpu.LIMITS if name != "avx2" or cpu._has_avx2()]


def training_free() -> list[str]:
    """Registered poisons that name no architecture, surrogate and poison, and need no file of the user's."""
    models = {"ArchitectureName", "SurrogateName", "list[PoisonName]", "InputPath"}
    return [
        name for name, entry in registry.entries("poisons").items() if not any(s.kind in models for s in entry.settings)
    ]


def limit(project, name: str) -> None:
    """Give the project small digits and every training-free poison, limited to the instructions `name`."""
    params = yaml.safe_load((project.folder / "params.yaml").read_text())
    params["compute"]["isa"] = name
    params["datasets"] = {"digits": {"copies": 1, "size": 16}}
    cheap = {"pil": {"epochs": 3, "steps": 3}, "ntga": {"time": 8, "block": 100, "validation": 100, "network": "fnn"}}
    params["poisons"] |= {poison: cheap.get(poison, {}) for poison in training_free()}
    params["grid"]["main"]["poisons"] = training_free()
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params))


@x86
@pytest.mark.slow
def test_training_free_poisons_are_the_same_bytes_with_any_instructions(project):
    commands = [("prepare", "digits"), *(("poison", f"digits/{poison}") for poison in training_free())]
    files = [
        *(f"data/digits/{part}" for part in ("train", "test")),
        *(f"poisons/digits/{poison}/train" for poison in training_free()),
    ]
    script = f"from relearn.__main__ import main; raise SystemExit(max(main(list(command)) for command in {commands}))"
    sums = {}
    for name in GOOD_FOR:
        limit(project, name)
        code, _, said = project.python("-c", script)
        assert code == 0, said
        sums[name] = {
            file: hashlib.sha256((project.folder / f"results/{file}.safetensors").read_bytes()).hexdigest()
            for file in files
        }
    assert {
        name: [file for file in files if sums[name][file] != sums["native"][file]] for name in GOOD_FOR
    } == dict.fromkeys(GOOD_FOR, [])


@x86
def test_a_limit_reaches_the_kernels(project):
    limit(project, "sse4")
    assert project.run("prepare", "digits")[0] == 0 == project.run("poison", "digits/lsp")[0]
    assert '"cpu_capability": "DEFAULT"' in (project.folder / "results/poisons/digits/lsp/poison.run.json").read_text()


@pytest.mark.parametrize("machine, flags", [("x86_64", "fpu sse4_2 avx"), ("aarch64", "fp asimd")])
def test_a_processor_without_the_instructions_runs_without_the_limit_and_says_so(
    tmp_path, monkeypatch, capsys, machine, flags
):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(cpu, "PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    before = dict(os.environ)
    cpu.limit_cpu_instructions("avx2")
    assert dict(os.environ) == before
    assert capsys.readouterr().err == (
        "relearn: compute.isa is avx2, which this processor does not have; the job runs without that limit, "
        "and its results may differ in the last digits\n"
    )


@x86
@pytest.mark.skipif("avx2" not in GOOD_FOR, reason="this processor has no AVX2")
def test_the_shipped_grid_is_limited(project):
    assert project.run("prepare", "digits")[0] == 0 == project.run("poison", "digits/clean")[0]
    assert '"cpu_capability": "AVX2"' in (project.folder / "results/poisons/digits/clean/poison.run.json").read_text()


@pytest.mark.parametrize(("flags", "used"), [("fpu avx2 avx512_bf16", "bfloat16"), ("fpu avx2", "float32")])
def test_every_job_records_the_precision_that_was_used(project, flags, used):
    """With everything that the recipe can ask for: speednet, Muon, micro-batches, smoothed labels, few tests."""
    params = yaml.safe_load((project.folder / "params.yaml").read_text())
    params["compute"] = {"precision": "bfloat16"}
    params["train"] |= {"epochs": 5, "batch": 256, "micro_batch": 100, "optimizer": "muon", "schedule": "linear"}
    params["train"] |= {"label_smoothing": 0.1, "test_epochs": 3, "warmup_steps": 2}
    params["datasets"] = {"digits": {"copies": 1, "size": 16}}
    params["poisons"] = {"clean": {}, "hypo": {"surrogate": "small", "steps": 8}, "em": {"arch": "net", "rounds": 1}}
    params["surrogates"] = {"small": {"arch": "net", "epochs": 1}}
    params["architectures"] = {"net": {"use": "speednet", "width": 4}}
    params["methods"] = {"erm": {}}
    params["grid"] = {
        "main": dict.fromkeys(("datasets", "poisons", "architectures", "methods"), "all") | {"seeds": [0]}
    }
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params))
    (project.folder / "cpuinfo").write_text(f"flags : {flags}\n")
    cell = "digits/hypo/net/erm/0"
    commands = [
        ["prepare", "digits"],
        ["surrogate", "digits/small"],
        ["poison", "digits/hypo"],
        ["poison", "digits/em"],
    ]
    commands += [["train", cell], ["evaluate", cell]]
    script = f"""
import pathlib
from relearn.__main__ import main
from relearn.runtime import cpu
cpu.PROCESSOR = pathlib.Path("cpuinfo")
raise SystemExit(max(main(command) for command in {commands}))"""
    code, _, said = project.python("-c", script)
    assert code == 0, said
    results = project.folder / "results"
    paths = ["surrogates/digits/small/surrogate", "poisons/digits/hypo/poison", "poisons/digits/em/poison"]
    paths += [f"runs/{cell}/train"]
    assert [json.loads((results / f"{path}.json").read_text())["precision"] for path in paths] == [used] * 4
    assert said.count("which this processor does not have; the job runs in float32") == 4 * (used == "float32")
    rows = (results / f"runs/{cell}/history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "3", "5"]
    found = json.loads((results / f"metrics/{cell}/record.json").read_text())["result"]
    assert found["oracle_epoch"] in (1, 3, 5) and found["oracle_accuracy"] >= found["accuracy"] - 1e-6
