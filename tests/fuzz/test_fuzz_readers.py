"""Whatever stands in a file that the project reads: it is taken, or one UserError of one line says why not."""

import csv
import io
import json

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from helpers.images import coloured
from helpers.strategies import SCALARS, VALUES, changed, damaged
from relearn import data, params
from relearn.crafting.craft import CraftContext
from relearn.engines import dvc
from relearn.errors import LONGEST, UserError
from relearn.poisons.external import external
from relearn.rules.planning import estimates
from relearn.runtime import files, structures
from relearn.runtime.seeding import Seeds
from relearn.training import checkpoint

CELL = {"dataset": "digits", "poison": "lsp", "arch": "cnn", "method": "pst", "seed": 0}
VERDICT = {"group": "block2", "acm": 0.5, "probe_accuracy": 0.5, "hidden_accuracy": 0.2, "kept": None}
VERDICT |= {"verdict": "cannot tell", "reason": "not yet learned"}
RESULT = {"accuracy": 50.0, "oracle_accuracy": 60.0, "oracle_epoch": 1, "passes": 1.0, "acm": 0.5, "kept": 1.0}
WORK = {
    "precision": "float32",
    "steps": 2,
    "steps_taken": 3,
    "passes": 1.0,
    "rolled_back": [{"steps_taken": 1, "probe_accuracy": 0.5, "test_accuracy": 50.0}],
}
JSON = {
    "record": (
        structures.RECORD,
        {"cell": CELL, "result": RESULT | {"verdict": "trapped"}, "settings": {}, "settings_hash": "0"},
    ),
    "train info": (structures.TRAIN_INFO, {"cell": CELL, "settings": {}, "verdict": VERDICT} | WORK),
    "data info": (structures.DATA_INFO, {"classes": ["a", "b"], "settings": {}}),
    "run report": (structures.MAPPING, {"device": "cpu", "seconds": 1.5}),
}
TEXTS = {"stage": "early", "next_stage": "stage 1", "group": "block2", "label": "NA", "verdict": "trapped"}
TABLES = {name: getattr(structures, name) for name in ("HISTORY", "PROBES", "EMBEDDINGS", "RECORDS", "HISTORIES")}
FACTS = {"classes": ["a", "b"], "settings": {"dataset": {"use": "digits"}}}
STATE = {"settings_hash": "0", "state": {"done": 3, "delta": torch.zeros(2, 3), "rows": [1, 2.5, None, "x"]}}
LOCK = {
    "schema": "2.0",
    "stages": {"prepare-digits": {"cmd": "x", "outs": [{"path": "a", "md5": 32 * "0", "size": 1}]}},
}
TRAIN = coloured([4, 4], (8, 8), seed=1)
CRAFT = CraftContext("fuzz", Seeds("fuzz"), "cpu", classes=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def here(folder):
    """The folder as the current one, for readers of files with fixed names."""
    (folder / "workflow").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def well(action, *arguments, **settings):
    try:
        return action(*arguments, **settings)
    except UserError as error:
        line = str(error)
        assert line and len(line) <= LONGEST and "\n" not in line and line.isprintable()
        return None


def saved(tensors: dict, facts: object) -> bytes:
    return save(tensors, {"facts": json.dumps(facts)})


def split_tensors() -> dict:
    return {"images": TRAIN.images, "labels": TRAIN.labels, "index": TRAIN.index}


# JSON


@pytest.mark.parametrize("structure, good", JSON.values(), ids=JSON)
@given(st.data())
def test_json(folder, structure, good, data):
    path = folder / "some.json"
    text = json.dumps(good).encode()
    path.write_bytes(data.draw(changed(good).map(lambda value: json.dumps(value).encode()) | damaged(text)))
    well(files.read_json, path, structure)


@given(VALUES, st.data())
def test_a_value_of_the_right_structure_is_taken_and_no_other(value, data):
    structure, good = data.draw(st.sampled_from(list(JSON.values())))
    assert structures.checked("some.json", good, structure) is good
    well(structures.checked, "some.json", value, structure)


@given(changed({"of": "0", "jobs": {"relearn prepare digits": {"mem_mb": 5, "runtime": 5}}}))
def test_estimates(here, content):
    (here / estimates.FILE).write_text(json.dumps(content))
    well(estimates.read, params.Params({}))


# CSV


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
@given(st.data())
def test_csv(folder, columns, data):
    path, text = folder / "some.csv", io.StringIO()
    header = [*columns, "acm_block1"]
    rows = [header, [TEXTS.get(name, "1") for name in header]]
    rows = data.draw(changed(rows, SCALARS.map(str)))
    csv.writer(text).writerows(row if isinstance(row, list) else [row] for row in rows if isinstance(rows, list))
    content = text.getvalue().encode("utf-8", "replace")
    path.write_bytes(data.draw(st.just(content) | damaged(content)))
    found = well(files.read_rows, path, columns)
    assert found is None or all(kind.accepts(row[name]) for row in found for name, kind in columns.items())


# safetensors


@given(damaged(saved(split_tensors(), FACTS)))
def test_a_split_of_any_bytes(folder, content):
    (folder / "split.safetensors").write_bytes(content)
    well(data.load_split, folder / "split.safetensors")


@given(
    changed(FACTS),
    st.sampled_from(["images", "labels", "index"]),
    st.sampled_from([torch.uint8, torch.int64, torch.float32]),
    st.lists(st.integers(0, 8), max_size=4),
)
def test_a_split_of_any_facts_and_tensors(folder, facts, name, dtype, shape):
    tensors = split_tensors() | {name: torch.ones(shape, dtype=dtype)}
    (folder / "split.safetensors").write_bytes(saved(tensors, facts))
    found = well(data.load_split, folder / "split.safetensors")
    assert found is None or (len(found[0]) > 0 and int(found[0].labels.max()) < len(found[1]["classes"]))


@given(st.data())
def test_a_checkpoint_of_any_facts_and_bytes(folder, data):
    path = folder / "checkpoint.safetensors"
    tensors: dict = {}
    packed = checkpoint._pack(STATE, tensors)
    facts = data.draw(st.just({"state": packed}) | changed({"state": packed}))
    content = saved(tensors, facts)
    path.write_bytes(data.draw(st.just(content) | damaged(content)))
    well(checkpoint.load, path, "cpu")


# Files that come from elsewhere


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
@given(st.data())
def test_noise_of_any_bytes(folder, suffix, data):
    path, noise = folder / f"noise.{suffix}", torch.ones(TRAIN.images.shape, dtype=torch.int8)
    path.write_bytes(data.draw(damaged(npy(noise.numpy()) if suffix == "npy" else save({"noise": noise}))))
    well(external, TRAIN, CRAFT, file=str(path))


@given(
    st.sampled_from(["|i1", "<f4", "<f2", "|u1", "|O", "<U3", "|V8", "<c8"]),
    st.lists(st.integers(-1, 9) | st.sampled_from([10**9, 10**18, 10**30]), max_size=5),
)
def test_noise_of_any_header(folder, dtype, shape):
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(1536)
    (folder / "noise.npy").write_bytes(content)
    well(external, TRAIN, CRAFT, file=str(folder / "noise.npy"))


@given(changed(LOCK).map(lambda value: yaml.safe_dump(value).encode()) | damaged(yaml.safe_dump(LOCK).encode()))
def test_dvc_lock(here, content):
    (here / dvc.LOCK).write_bytes(content)
    well(dvc.read_lock)
