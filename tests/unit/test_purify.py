"""The rule purify, the method that trains on what it makes, and purified images from a file."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from helpers import results
from helpers.projects import MINI
from relearn import __main__, grid, params
from relearn.crafting.craft import CraftContext
from relearn.data import load_split, load_tensors
from relearn.errors import UserError
from relearn.purifications.file import file
from relearn.runtime import files
from relearn.runtime.seeding import Seeds

PURIFIED = "digits/lsp/cnn/purified/0"


@pytest.fixture
def mini(tmp_path, monkeypatch) -> params.Params:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(MINI.read_text())
    return params.load()


def test_purified_sets_are_jobs_between_poison_and_training(mini):
    found = {(job.rule, job.argument): job for job in grid.jobs(mini)}
    job, train = found["purify", "digits/lsp/dvae"], found["train", PURIFIED]
    assert job.inputs == ("results/poisons/digits/lsp/train.safetensors", "results/sources/purify.sha256")
    assert job.keys == ("compute", "purifications.dvae")
    assert job.outputs == tuple(
        f"results/purifications/digits/lsp/dvae/{n}" for n in ("train.safetensors", "purify.json")
    )
    assert "src/relearn/purifications/dvae.py" in job.sources
    assert train.inputs[0] == job.outputs[0] and not [name for name in train.inputs if "/poisons/" in name]
    assert "purifications" in found["aggregate", ""].keys
    # how many passes the purification makes stands in its file and is counted in train.json
    assert "src/relearn/purifications/dvae.py" in train.sources
    assert "src/relearn/purifications/dvae.py" not in found["train", "digits/lsp/cnn/erm/0"].sources
    plain = found["train", "digits/lsp/cnn/erm/0"]
    assert plain.inputs[0] == "results/poisons/digits/lsp/train.safetensors"
    assert len([rule for rule, _ in found if rule == "purify"]) == 1


def test_settings_of_a_cell_reach_back_to_its_purification(mini):
    own = grid.settings(mini, "purify", dataset="digits", poison="lsp", purification="dvae")
    assert list(own) == ["dataset", "poison", "purification"]
    assert own["purification"]["use"] == "dvae" and own["purification"]["width"] == 8
    found = grid.settings(mini, "train", cell=grid.Cell.parse(PURIFIED))
    assert found["purification"] == own["purification"] and found["method"]["purification"] == "dvae"
    assert "purification" not in grid.settings(mini, "train", cell=grid.Cell.parse("digits/lsp/cnn/erm/0"))


def test_from_the_poison_to_the_record(mini, capfd):
    """Every rule of a purified cell by hand; labels, order and test images are as they were."""
    for command in ("prepare digits", "poison digits/lsp", "purify digits/lsp/dvae"):
        assert __main__.main(command.split()) == 0, capfd.readouterr().err
    before, _ = load_split(grid.path("poison", "train", dataset="digits", poison="lsp"))
    made = grid.path("purify", "train", dataset="digits", poison="lsp", purification="dvae")
    after, facts = load_split(made)
    assert torch.equal(before.labels, after.labels) and torch.equal(before.index, after.index)
    assert load_tensors(made)[0]["poisoned"].all()
    info = json.loads(made.with_name("purify.json").read_text())
    moved = (after.images.double() - before.images.double()).abs()
    assert info["images"] == len(after) and abs(info["mean_change"] - moved.mean().item()) < 1e-6
    assert info["mean_change"] > 1 and info["unchanged"] == 0 and info["settings"] == facts["settings"]
    assert not list(made.parent.glob("*checkpoint*"))
    run = made.with_name("purify.run.json")
    assert json.loads(run.read_text())["resumed"] is False
    made.with_name("purify.checkpoint.left.safetensors").touch()  # as a job that is killed leaves them
    assert __main__.main(["purify", "digits/lsp/dvae"]) == 0, capfd.readouterr().err
    assert json.loads(run.read_text())["resumed"] is True
    for rule in ("train", "evaluate"):
        assert __main__.main([rule, PURIFIED]) == 0, capfd.readouterr().err
    record = json.loads(grid.Cell.parse(PURIFIED).path("evaluate", "record").read_text())
    assert record["settings"] == grid.settings(mini, "train", cell=grid.Cell.parse(PURIFIED))
    both = 2 * mini.settings("purifications", "dvae")["epochs"]  # two autoencoders; what they cost is in the record
    assert record["result"]["passes"] == pytest.approx(1 + both / mini.recipe_of("cnn")["epochs"])


def test_the_seconds_of_a_purified_cell_count_its_purification(tmp_path, monkeypatch):
    """As its passes do. By hand: 10 seconds of training and 30 of the purification, four times those of erm."""
    monkeypatch.chdir(tmp_path)
    dvae = "  purified: {purification: dvae}\npurifications:\n  dvae: {}\n"
    curves = results.CURVES | {(name, "purified"): results.CURVES[name, "pst"] for name in ("clean", "lsp", "tap_4")}
    monkeypatch.setattr(results, "CURVES", curves)
    cells = results.make(text=results.PARAMS.replace("  pst: {}\n", dvae))
    report = {"device": "cpu", "processor": "x"}
    for cell in cells:
        files.write_json(grid.sidecar("train", "run.json", **vars(cell)), report | {"seconds": 10.0})
        names = {"dataset": "digits", "poison": cell.poison, "purification": "dvae"}
        files.write_json(grid.sidecar("purify", "run.json", **names), report | {"seconds": 30.0})
    assert __main__.main(["aggregate"]) == 0
    rows = [line.split(",") for line in Path("results/summary/aggregate.seconds.csv").read_text().splitlines()[1:]]
    assert [row[-4:] for row in rows] == [
        ["erm", "6", "10.000000", "1.000000"],
        ["purified", "6", "40.000000", "4.000000"],
    ]


def test_one_that_changes_nothing_is_refused(mini, tmp_path, capfd):
    for command in ("prepare digits", "poison digits/lsp"):
        assert __main__.main(command.split()) == 0, capfd.readouterr().err
    before, _ = load_split(grid.path("poison", "train", dataset="digits", poison="lsp"))
    np.save("same.npy", before.images.numpy())
    content = yaml.safe_load(MINI.read_text())
    content["purifications"]["dvae"] = {"use": "file", "path": "same.npy"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    assert __main__.main(["purify", "digits/lsp/dvae"]) == 2
    assert "change" in capfd.readouterr().err.splitlines()[-1]


# A file of the user's


def read(train, path, **settings) -> torch.Tensor:
    return file(train, CraftContext("test", Seeds("test"), "cpu", 10), path=str(path), **settings)


@pytest.mark.parametrize("kind", ["uint8", "unit", "channels first"])
def test_a_file_is_taken_as_it_is(kind, tiny, tmp_path):
    wanted = (tiny.images.int() + 3).clamp(0, 255).byte()
    stored = {"uint8": wanted, "unit": wanted.float() / 255, "channels first": wanted.permute(0, 3, 1, 2)}[kind]
    np.save(tmp_path / "images.npy", stored.numpy())
    assert torch.equal(read(tiny, tmp_path / "images.npy"), wanted)


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.parametrize("name", ["images.npy", "images.safetensors"])
@pytest.mark.parametrize("how", ["pickle", "objects"])
def test_a_hostile_file_runs_nothing(name, how, tiny, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("pickle.loads", lambda *_: opened.append(1))
    monkeypatch.setattr("pickle.load", lambda *_, **__: opened.append(1))
    if how == "pickle":
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    else:
        with (tmp_path / name).open("wb") as out:
            np.save(out, np.array([Trap()] * len(tiny), dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="^purification file: "):
        read(tiny, tmp_path / name)
    assert not opened


def test_images_of_another_order_are_refused(tiny, tmp_path):
    np.save(tmp_path / "images.npy", tiny.images[: len(tiny) - 1].numpy())
    with pytest.raises(UserError, match="purification file: .* holds"):
        read(tiny, tmp_path / "images.npy")
