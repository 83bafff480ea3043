"""What both engines cost on a large grid, beside its jobs: `python benchmarks/scale.py`.

In a copy of the project with a params.yaml of `--cells` cells it runs one command at a time, and prints wall seconds,
CPU seconds and peak memory of each, with the processes that it starts. Nothing is trained: every output of the grid is
a placeholder of a few bytes that carries its settings.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from relearn import grid, params
from relearn.engines import dvc
from relearn.params import Params
from relearn.runtime.yaml_loader import read_yaml

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
#: runs a command and notes its exit code, what it cost; a small process of its own, since the peak of a child
#: begins with that of the process that started it, and a benchmark that knows the grid holds more than some commands
BETWEEN = """
import json, os, sys, time
begin = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)  # of this process and of those it started and waited for
cost = time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), *cost], file)
"""


def content(cells: int) -> dict:
    """A params.yaml of `cells` cells: two datasets, ten poisons and five methods, with as many seeds as needed."""
    shipped = read_yaml(ROOT / "params.yaml")
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
    """Copy the project's tracked files to `folder`, under git, with a grid of `cells` cells."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / params.FILE).write_text(yaml.safe_dump(content(cells), sort_keys=False), encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


def write_placeholders(checked: Params) -> int:
    """Write a placeholder for every output of the grid; how many."""
    outputs = [(job, Path(name)) for job in grid.jobs(checked) for name in job.outputs]
    for job, path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(placeholder(checked, job, path))
    return len(outputs)


def placeholder(checked: Params, job: grid.Job, path: Path) -> bytes:
    """The content of an output: the settings it would carry, and its path, so that no two are the same."""
    carries = job.rule in ("prepare", "surrogate", "poison", "purify", "pretrain", "train", "evaluate")
    settings = grid.settings(checked, job.rule, **grid.parse(job.rule, job.argument)) if carries else {}
    facts = json.dumps({"path": str(path), "settings": settings})
    if path.suffix != ".safetensors":
        return facts.encode()
    header = json.dumps({"__metadata__": {"facts": facts}}).encode()
    return len(header).to_bytes(8, "little") + header


class Clock:
    """Runs commands in the copy and measures each."""

    def __init__(self, folder: Path):
        self.folder = folder
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(folder / "src"), os.environ.get("PYTHONPATH")))),
            "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "tmp" / "site"),
            "RELEARN_DEVICE": "cpu",
        }
        self.env = os.environ | own | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def measured(self, command: str) -> tuple[float, float, float]:
        """Run `command`: its seconds, CPU seconds and peak memory in MB. A failure ends the benchmark and shows why."""
        with tempfile.TemporaryFile("w+") as printed, tempfile.NamedTemporaryFile("r") as noted:
            between = [sys.executable, "-I", "-S", "-c", BETWEEN, noted.name, *command.split()]
            subprocess.run(
                between, cwd=self.folder, env=self.env, stdout=printed, stderr=subprocess.STDOUT, check=False
            )
            code, wall, cpu, peak = json.loads(noted.read() or "[1, 0, 0, 0]")
            if code:
                printed.seek(0)
                sys.exit(f"{command} failed:\n{printed.read()}")
        return wall, cpu, peak / (1024 if sys.platform != "darwin" else 2**20)

    def row(self, command: str, state: str, goal: str = "") -> None:
        """Run `command` and print what it cost."""
        wall, cpu, memory = self.measured(command)
        print(f"| `{command}` | {state} | {wall:.1f} | {cpu:.1f} | {memory:.0f} MB | {goal} |", flush=True)


def set_learning_rate(rate: float) -> None:
    """Set `train.lr` in params.yaml."""
    raw = read_yaml(params.FILE)
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
        print("| command | state | seconds | CPU seconds | peak memory | goal |\n|---|---|---|---|---|---|", flush=True)
        clock.row("relearn grid --write", "", "2")
        clock.row("relearn plan", "nothing made")
        clock.row("snakemake -n", "nothing made", "10")
        clock.row("dvc status", "nothing made, no dvc.lock", "30")
        outputs = write_placeholders(checked)
        clock.row("dvc commit --force --quiet", "all made, no dvc.lock")
        clock.row("dvc status", "all made", "30")
        clock.row("relearn adopt", "all made, new to Snakemake", "60")
        clock.row("snakemake -n", "all made", "10")
        clock.row("snakemake --cores 1", "all made", "10")
        set_learning_rate(0.05)
        clock.row("relearn grid --write", "`train.lr` changed", "2")
        clock.row("dvc status", "`train.lr` changed", "30")
        clock.row("snakemake -n", "`train.lr` changed", "10")
        clock.row("relearn adopt", "`train.lr` changed", "60")
        sizes = ", ".join(f"{file} {file.stat().st_size / 2**20:.1f} MB" for file in (dvc.FILE, dvc.LOCK))
        print(f"\n{outputs} outputs; {sizes}")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
