"""The rules surrogate and poison from the command line: checkpoints for an ensemble, a share of images, the cost."""

import json

import pytest
import torch
import yaml

from relearn import data, params
from relearn.rules.surrogate import earlier_epochs

CONTENT = """
compute: {threads: 1}
train: {epochs: 3, batch: 128, probe_size: 200, crop_pad: 2, flip: false, checkpoint_epochs: 1}
datasets:
  digits: {copies: 1}
poisons:
  clean: {}
  sep: {surrogate: small, models: 3, epsilon: 8, steps: 2, ratio: 0.2}
  lsp: {ratio: 0.5}
surrogates:
  small: {arch: cnn, checkpoints: 3}
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


@pytest.mark.parametrize(
    "epochs, checkpoints, expected", [(8, 5, [2, 4, 5, 7]), (120, 30, list(range(4, 120, 4))), (3, 1, []), (2, 9, [1])]
)
def test_checkpoints_are_evenly_spread_and_end_before_the_last_epoch(epochs, checkpoints, expected):
    assert earlier_epochs(epochs, checkpoints) == expected


def test_an_ensemble_and_shares_from_the_command_line(project):
    (project.folder / "params.yaml").write_text(CONTENT)
    run = project.run
    for command in (("prepare", "digits"), ("surrogate", "digits/small"), ("poison", "digits/lsp")):
        assert run(*command)[0] == 0
    code, _, said = run("poison", "digits/sep")
    assert code == 0, said
    results = project.folder / "results"
    clean, _ = data.load_split(results / "data/digits/train.safetensors")
    count = round(0.2 * len(clean))
    assert (
        abs(int(said.split("poison sep: ")[1].split(" images, 6 passes each through cnn, at most about")[0]) - count)
        <= 5
    )

    earlier, _ = data.load_tensors(results / "surrogates/digits/small/earlier.safetensors")
    last, _ = data.load_tensors(results / "surrogates/digits/small/model.safetensors")
    assert {name.split(":")[0] for name in earlier} == {"00001", "00002"}
    assert json.loads((results / "surrogates/digits/small/surrogate.json").read_text())["checkpoints"] == [1, 2, 3]
    weight = "network.block1.0.weight"
    states = [earlier[f"00001:{weight}"], earlier[f"00002:{weight}"], last[weight]]
    assert all(
        not torch.equal(one, other) for one, other in zip(states, states[1:], strict=False)
    )  # copies, not views of the last

    masks = {}
    for poison, ratio in (("sep", 0.2), ("lsp", 0.5)):
        tensors, _ = data.load_tensors(results / f"poisons/digits/{poison}/train.safetensors")
        info = json.loads((results / f"poisons/digits/{poison}/poison.json").read_text())
        mask = masks[poison] = tensors["poisoned"]
        assert torch.equal(tensors["images"][~mask], clean.images[~mask])
        assert (tensors["images"][mask] != clean.images[mask]).flatten(1).any(1).all()
        assert (info["poisoned"], info["images"]) == (int(mask.sum()), len(clean)) and info["settings"]["poison"][
            "ratio"
        ] == ratio
        for label in range(10):
            own = clean.labels == label
            assert abs(int(mask[own].sum()) - ratio * int(own.sum())) <= 0.5
    assert (masks["lsp"] | ~masks["sep"]).all()  # a smaller share lies in a larger one, whatever the poison
    assert not list(results.rglob("*checkpoint*"))


@pytest.mark.parametrize("ratio", [0, 1.5, -0.1, True])
def test_a_share_of_nothing_is_no_poison(ratio):
    raw = yaml.safe_load(CONTENT)
    raw["poisons"]["lsp"]["ratio"] = ratio
    assert params.errors(raw) == [f"poisons.lsp.ratio: must be a number above 0, at most 1, found {ratio!r}"]
