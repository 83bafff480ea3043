"""How params.yaml is read: numbers, plain values and merge keys, the same for both engines."""

import pytest
import yaml

from helpers.params_text import edited
from relearn import params
from relearn.runtime.yaml_loader import Loader


@pytest.mark.parametrize(
    "text, value", [("5e-4", 5e-4), ("1e3", 1e3), ("-2E-3", -2e-3), ("1.e+2", 100.0), ("5.0e-4", 5e-4), ("0.5", 0.5)]
)
def test_numbers_with_an_exponent_are_numbers(text, value):
    """Plain YAML 1.1 takes 5e-4 for a text, DVC's YAML 1.2 for a number: both engines must read the same."""
    found = yaml.load(f"lr: {text}", Loader=Loader)["lr"]
    assert type(found) is float and found == value


@pytest.mark.parametrize("text, value", [("2", 2), ("e4", "e4"), ("'5e-4'", "5e-4"), ("1e", "1e")])
def test_what_is_no_number_stays_what_it_is(text, value):
    assert yaml.load(f"lr: {text}", Loader=Loader)["lr"] == value


def test_numbers_with_an_exponent_pass_the_check(tmp_path):
    (tmp_path / "params.yaml").write_text(edited(("batch: 64", "weight_decay: 1e-3")))
    assert params.load(tmp_path / "params.yaml").recipe["weight_decay"] == 0.001


@pytest.mark.parametrize(
    "text, value",
    [
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("-5", -5),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("2020-01-01", "2020-01-01"),
        ("True", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'010'", "010"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text, value):
    """DVC reads params.yaml by YAML 1.2; by 1.1 010 would be 8, 1:30 would be 90 and no would be false."""
    found = yaml.load(f"x: {text}", Loader=Loader)["x"]
    assert type(found) is type(value) and found == value


@pytest.mark.parametrize(
    "text", ["010", "0x1F", "1_000", "1:30", "yes", "2020-01-01", "True", "null", "5e-4", "<<x", "1e3"]
)
def test_both_engines_read_the_same(text):
    """What Snakemake gets from us, DVC gets from ruamel."""
    ruamel = pytest.importorskip("ruamel.yaml")
    theirs = ruamel.YAML(typ="safe", pure=True).load(f"x: {text}")["x"]
    ours = yaml.load(f"x: {text}", Loader=Loader)["x"]
    assert ours == theirs or str(theirs) == ours  # a date, which no setting takes


def test_merge_keys(tmp_path):
    (tmp_path / "params.yaml").write_text(
        edited(("pst: {}", "pst: &pst {gray: 0.5, jitter: 0.1}\n  pst_2: {use: pst, <<: *pst, gray: 1.0}"))
    )
    checked = params.load(tmp_path / "params.yaml")
    assert {name: checked.settings("methods", name)["gray"] for name in ("pst", "pst_2")} == {"pst": 0.5, "pst_2": 1.0}
    assert checked.settings("methods", "pst_2")["jitter"] == 0.1


def test_a_merged_mapping_may_be_merged_again_before_it_is_read():
    text = "a: {b: {c: &x {<<: {k: 0}, k: 1}}}\nz: {<<: *x}"
    assert yaml.load(text, Loader=Loader) == {"a": {"b": {"c": {"k": 1}}}, "z": {"k": 1}}
