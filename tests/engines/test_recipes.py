"""The recipe of an architecture in both engines: a change of it runs the cells of that architecture, and no others."""

import json
from pathlib import Path

import pytest

from helpers.engines import artifacts, copy, run

TEXT = """\
compute: {threads: 1}
train: {epochs: 1, batch: 128, crop_pad: 1, flip: false, probe_size: 200, warmup_steps: 5}
datasets: {digits: {copies: 1, size: 12}}
poisons: {clean: {}}
architectures:
  cnn: {width: 4}
  vit: {use: vit_small, width: 8, depth: 4, recipe: {optimizer: adamw, lr: 0.002, weight_decay: 0.05}}
methods: {erm: {}}
grid:
  main: {datasets: [digits], poisons: [clean], architectures: all, methods: [erm], seeds: [0]}
tables: {accuracy: {}}
"""
AGAIN = {f"relearn {rule} digits/clean/vit/erm/0" for rule in ("train", "evaluate")}
AFTER = {"relearn aggregate", "relearn tabulate accuracy"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """The same grid made by each engine, and then with another rate for one architecture."""
    made = {}
    commands = {"snakemake": ("snakemake", "--cores", "1", "--quiet", "rules"), "dvc": ("dvc", "repro")}
    for engine, command in commands.items():
        preset = tmp_path_factory.mktemp(engine) / "params.yaml"
        preset.write_text(TEXT)
        made[engine] = copy(preset.parent / "copy", preset)
        run(made[engine], *command)
        (made[engine] / "params.yaml").write_text(TEXT.replace("lr: 0.002", "lr: 0.001"))
    return made


def test_both_engines_see_a_change(folders):
    before = artifacts(folders["dvc"])
    assert before == artifacts(folders["snakemake"])
    said = run(folders["snakemake"], "snakemake", "--cores", "1", "--printshellcmds")
    shown = {line.split(": ", 1)[1].split(" > ")[0] for line in said.splitlines() if "Shell command: relearn" in line}
    assert shown == AGAIN | AFTER
    said = run(folders["dvc"], "dvc", "repro")
    shown = {line.split("> ", 1)[1] for line in said.splitlines() if line.startswith("> relearn")}
    assert shown - {"relearn check-params"} == AGAIN | AFTER
    after = artifacts(folders["dvc"])
    assert after == artifacts(folders["snakemake"])
    moved = {name for name in after if after[name] != before[name]}
    assert "results/runs/digits/clean/vit/erm/0/model.safetensors" in moved
    assert not any("/cnn/" in name for name in moved)
    rates = []
    for arch in ("cnn", "vit"):
        info = json.loads((folders["dvc"] / f"results/runs/digits/clean/{arch}/erm/0/train.json").read_text())
        rates.append((info["settings"]["train"]["optimizer"], info["settings"]["train"]["lr"], info["passes"]))
    assert rates == [("sgd", 0.1, 1.0), ("adamw", 0.001, 1.0)]
