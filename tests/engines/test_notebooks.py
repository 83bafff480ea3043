"""The notebooks of the docs run from top to bottom, in an empty folder without a network.

Their cells run as one script in one process: no Jupyter kernel and its packages are needed beside those of the project.
What only a notebook has is a line that begins with `!`, a command; it becomes a call that raises where that fails.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.projects import ROOT

NOTEBOOKS = sorted((ROOT / "docs/examples").glob("*.ipynb"))
SHELL = "import subprocess\n\n\ndef shell(command):\n    subprocess.run(command, shell=True, check=True)\n\n\n"


def read(path: Path) -> list[dict]:
    """The cells of a notebook, each with its text as `source`."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def script(path: Path) -> str:
    """The code cells as one script."""
    code = "\n\n".join(cell["source"] for cell in read(path) if cell["cell_type"] == "code")
    return SHELL + re.sub(r"^(\s*)!(.*)$", lambda line: f"{line[1]}shell({line[2]!r})", code, flags=re.M)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_left_out_and_links_lead_somewhere(path):
    for cell in read(path):
        assert not cell.get("outputs") and cell.get("execution_count") is None
        for target in re.findall(r"\]\(([^)#]+)", cell["source"]) if cell["cell_type"] == "markdown" else ():
            assert (path.parent / target).exists(), target


def test_check(tmp_path):
    code = script(ROOT / "docs/examples/check.ipynb")
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "RELEARN_DEVICE": "cpu",
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {
        name: json.loads((tmp_path / f"relearn-check-{name}" / "check.json").read_text())
        for name in ("photos", "protected")
    }
    # what its text says of the verdicts and of the plot
    assert found["photos"]["verdict"]["answer"] == "no sign of protection"
    assert found["protected"]["verdict"]["answer"] == "protected against plain training, not against PST"
    plain, pst = (found["protected"]["trials"][name] for name in ("plain training", "PST"))
    assert plain["held_out"] > 0.8 and plain["clean"] < 0.5 and pst["clean"] > 0.7
    assert plain["history"][-1]["hidden_accuracy"] < 0.5 < pst["history"][-1]["hidden_accuracy"]
    assert pst["stage"] != "early"
