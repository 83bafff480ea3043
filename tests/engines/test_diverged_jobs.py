"""A job that diverges ends with exit code 2 and one line, and leaves neither result nor checkpoint."""

import re
from pathlib import Path

import pytest

from relearn.__main__ import main

CONTENT = """
compute: {threads: 1}
train: {epochs: 4, batch: 128, lr: 0.1, probe_size: 200, crop_pad: 2, flip: false, checkpoint_epochs: 1}
datasets:
  digits: {copies: 1, size: 16}
poisons:
  lsp: {}
  pil: {epochs: 2, steps: 2}
surrogates:
  small: {arch: cnn}
architectures:
  cnn: {width: 4}
methods:
  erm: {}
grid:
  main: {datasets: [digits], poisons: all, architectures: [cnn], methods: [erm], seeds: [0]}
tables:
  summary: {}
figures: {}
"""
BAD = {
    "train": ("lr: 0.1", "lr: 3000", "digits/lsp/cnn/erm/0", r"step \d+ of 40, learning rate"),
    "surrogate": ("lr: 0.1", "lr: 1.0e+6", "digits/small", r"step \d+ of 40, learning rate"),
    "poison": ("{epochs: 2", "{lr: 1.0e+9, epochs: 2", "digits/pil", r"step \d+ of \d+, learning rate"),
}


@pytest.mark.parametrize("rule", BAD)
def test_a_diverged_job(rule, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELEARN_DEVICE", "cpu")
    old, new, argument, place = BAD[rule]
    Path("params.yaml").write_text(CONTENT)
    for command in (("prepare", "digits"), *([("poison", "digits/lsp")] if rule == "train" else [])):
        assert main(list(command)) == 0
    before = set(Path("results").rglob("*"))
    Path("params.yaml").write_text(CONTENT.replace(old, new))
    capsys.readouterr()
    code, said = main([rule, argument]), capsys.readouterr().err
    assert code == 2 and "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("relearn: ")]
    assert len(lines) == 1 and said.splitlines()[-1] == lines[0]
    assert re.search(place, lines[0]) and "nothing was written" in lines[0]
    left = {path for path in set(Path("results").rglob("*")) - before if path.is_file() and path.suffix != ".lock"}
    assert left == set()
