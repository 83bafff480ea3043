"""Whatever stands in params.yaml or an argument: it is good, or one UserError of one line says why not."""

import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.params_text import CELL, GOOD
from helpers.strategies import changed, damaged
from relearn import grid, params
from relearn.engines import dvc
from relearn.errors import LONGEST, UserError
from relearn.runtime.yaml_loader import read_yaml

CONTENT = yaml.safe_load(GOOD)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "params.yaml"


def well(action, *arguments):
    """What the action gives; None after a UserError, which must be one line of bounded length."""
    try:
        return action(*arguments)
    except UserError as error:
        line = str(error)
        assert line and len(line) <= LONGEST and "\n" not in line and line.isprintable()
        return None


def all_of_it(file) -> None:
    """Everything that both engines ask of a params file."""
    found = well(params.load, file)
    if found is not None and len(grid.cells(found)) < 100:
        jobs = well(grid.jobs, found)
        if jobs is not None:
            well(grid.check_inputs, found, jobs)
            dvc.render(found)


@given(changed(CONTENT))
@example(CONTENT)
def test_params_of_any_structure(file, content):
    file.write_text(json.dumps(content))  # JSON is YAML
    all_of_it(file)


@given(damaged(GOOD.encode()))
def test_params_of_any_bytes(file, content):
    file.write_bytes(content)
    all_of_it(file)


@given(st.text(st.sampled_from("ab0:-[]{},&*!|>'\"#%@?~<\n\t .=_xeE+\0\ufeff"), max_size=60))
def test_yaml_of_any_signs(file, text):
    file.write_text(text)
    well(read_yaml, file)


@given(st.text(max_size=30) | st.sampled_from([CELL, "digits", "digits/clean", ""]), st.sampled_from(list(grid.RULES)))
def test_any_argument_of_any_rule(file, argument, rule):
    file.write_text(GOOD)
    checked = params.load(file)
    if well(grid.parse, rule, argument) is not None:
        well(grid.job, checked, rule, argument)
