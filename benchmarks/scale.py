"""What a large grid costs before and after its jobs: `python benchmarks/scale.py`, both engines, one process at a time.

In a copy of the project with a params.yaml of `--cells` cells: wall seconds, CPU seconds and peak memory of each command,
with what it starts. Nothing is trained: every output of the grid is made up, a few bytes that carry the settings.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from relearn import grid, params
from relearn.engines import dvc
from relearn.params import Params

ROOT = Path(__file__).resolve().parents[1]
POISONS = {
    "clean": {},
    "lsp": {},
    "ops": {},
    "cuda": {},
    "ar": {},
    "hypo": {"surrogate": "small"},
    "tap": {"surrogate": "small"},
    "em": {"arch": "cnn"},
    "em_weak": {"use": "em", "arch": "cnn", "epsilon": 4},
    "em_half": {"use": "em", "arch": "cnn", "ratio": 0.5},
}
METHODS = {
    "erm": {},
    "erm_cg": {"use": "erm", "gray": 1.0, "jitter": 0.2},
    "pst": {},
    "pst_cg": {"use": "pst", "gray": 1.0, "jitter": 0.2},
    "random_frozen": {},
}


def content(cells: int) -> dict:
    """A params.yaml of `cells` cells: two data sets, ten poisons and five methods with as many seeds as that takes."""
    shipped = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"), Loader=params.Loader)
    datasets = {"digits": {"copies": 3}, "digits_large": {"use": "digits", "copies": 9}}
    seeds, left = divmod(cells, len(datasets) * len(POISONS) * len(METHODS))
    axes = {"datasets": "all", "poisons": "all", "architectures": ["cnn"], "methods": "all"}
    blocks = {"main": axes | {"seeds": list(range(seeds))}}
    blocks["left"] = axes | {
        "datasets": ["digits"],
        "poisons": ["clean"],
        "methods": ["erm"],
        "seeds": list(range(seeds, seeds + left)),
    }
    return shipped | {
        "datasets": datasets,
        "poisons": POISONS,
        "surrogates": {"small": {"arch": "cnn"}},
        "methods": METHODS,
        "grid": {name: block for name, block in blocks.items() if block["seeds"]},
    }


def copy(folder: Path, cells: int) -> None:
    """A copy of the project's tracked files under git, with a grid of `cells` cells."""
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / params.FILE).write_text(yaml.safe_dump(content(cells), sort_keys=False), encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


def make_up(checked: Params) -> int:
    """Write every output of the grid, with the settings it would carry and nothing else; how many."""
    names = [(item, Path(name)) for item in grid.jobs(checked) for name in item.outputs]
    for item, path in names:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made_up(checked, item, path))
    return len(names)


def made_up(checked: Params, item: grid.Job, path: Path) -> bytes:
    """The content of an output; its path stands in it, so that no two are the same."""
    step = "train" if item.step == "evaluate" else item.step
    carries = step in ("prepare", "surrogate", "poison", "train")
    facts = {
        "path": str(path),
        "settings": grid.settings(checked, step, **grid.coordinates(item.step, item.argument)) if carries else {},
    }
    if path.suffix != ".safetensors":
        return json.dumps(facts).encode()
    header = json.dumps({"__metadata__": {"facts": json.dumps(facts)}}).encode()
    return len(header).to_bytes(8, "little") + header


class Clock:
    """Runs commands in the copy and prints a row for each."""

    def __init__(self, folder: Path):
        self.folder = folder
        sources = os.pathsep.join(filter(None, (str(folder / "src"), os.environ.get("PYTHONPATH"))))
        own = {
            "PYTHONPATH": sources,
            "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "tmp" / "site"),
            "RELEARN_DEVICE": "cpu",
        }
        self.env = os.environ | own | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        print("| command | state | seconds | CPU seconds | peak memory | goal |\n|---|---|---|---|---|---|", flush=True)

    def row(self, command: str, state: str, goal: str = "") -> None:
        """Run `command` and print what it took. Ends the benchmark, with what the command said, when it fails."""
        with tempfile.TemporaryFile("w+") as said:
            begin = time.perf_counter()
            child = subprocess.Popen(
                command.split(), cwd=self.folder, env=self.env, stdout=said, stderr=subprocess.STDOUT
            )
            _, status, used = os.wait4(child.pid, 0)  # of this child alone and of those it waited for
            wall = time.perf_counter() - begin
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                said.seek(0)
                sys.exit(f"{command} failed:\n{said.read()}")
        memory = used.ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
        print(
            f"| `{command}` | {state} | {wall:.1f} | {used.ru_utime + used.ru_stime:.1f} | {memory:.0f} MB | {goal} |",
            flush=True,
        )


def change(rate: float) -> None:
    """Set `train.lr` in params.yaml."""
    raw = yaml.load(params.FILE.read_text(encoding="utf-8"), Loader=params.Loader)
    raw["train"]["lr"] = rate
    params.FILE.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


def main() -> None:
    """Print a table, a row per command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder), options.cells)
        os.chdir(folder)
        checked = params.load()
        print(f"{len(grid.cells(checked))} cells, {len(grid.jobs(checked))} jobs\n")
        clock = Clock(Path(folder))
        clock.row("relearn grid --write", "", "2")
        clock.row("relearn plan", "nothing made")
        clock.row("snakemake -n", "nothing made", "10")
        clock.row("dvc status", "nothing made, no dvc.lock", "30")
        outputs = make_up(checked)
        clock.row("dvc commit --force --quiet", "all made, no dvc.lock")
        clock.row("dvc status", "all made", "30")
        clock.row("relearn adopt", "all made, new to Snakemake")
        clock.row("snakemake -n", "all made", "10")
        change(0.05)
        clock.row("relearn grid --write", "`train.lr` changed", "2")
        clock.row("dvc status", "`train.lr` changed", "30")
        clock.row("snakemake -n", "`train.lr` changed", "10")
        clock.row("relearn adopt", "`train.lr` changed")
        sizes = ", ".join(f"{file} {file.stat().st_size / 2**20:.1f} MB" for file in (dvc.FILE, dvc.LOCK))
        print(f"\n{outputs} outputs; {sizes}")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
