"""The recipe of an architecture in both engines: a change makes the cells of that architecture stale, no others."""

import json

from helpers.engines import copy, run

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
"""
CHANGED = TEXT.replace("lr: 0.002", "lr: 0.001")
MODELS = [f"results/runs/digits/clean/{arch}/erm/0/model.safetensors" for arch in ("cnn", "vit")]
STAGES = [f"train-digits-clean-{arch}-erm-0" for arch in ("cnn", "vit")]


def test_both_engines_see_a_change(tmp_path):
    (tmp_path / "params.yaml").write_text(TEXT)
    folder = copy(tmp_path / "copy", tmp_path / "params.yaml")
    run(folder, "snakemake", "--cores", "1", "--quiet", "rules", "--", *MODELS)
    stale = {}
    for text in (TEXT, CHANGED):
        (folder / "params.yaml").write_text(text)
        said = run(folder, "snakemake", "-n", "--cores", "1", "--printshellcmds", "--", *MODELS)
        lines = [line for line in said.splitlines() if "command: relearn" in line]
        stale[text] = {line.split(": ", 1)[1].split(" > ")[0] for line in lines}
    assert stale == {TEXT: set(), CHANGED: {"relearn train digits/clean/vit/erm/0"}}
    (folder / "params.yaml").write_text(TEXT)
    run(folder, "dvc", "commit", "-f", *STAGES)  # as if DVC had run them
    for text in (TEXT, CHANGED):
        (folder / "params.yaml").write_text(text)
        stale[text] = json.loads(run(folder, "dvc", "status", "--json", *STAGES).splitlines()[-1])
    watched = {"changed deps": {"params.yaml": {"architectures.vit": "modified"}}}
    assert stale == {TEXT: {}, CHANGED: {STAGES[1]: [watched]}}
    shared = []
    for arch in ("cnn", "vit"):
        info = json.loads((folder / f"results/runs/digits/clean/{arch}/erm/0/train.json").read_text())
        shared.append((info["settings"]["train"]["optimizer"], info["settings"]["train"]["lr"], info["passes"]))
    assert shared == [("sgd", 0.1, 1.0), ("adamw", 0.002, 1.0)]
