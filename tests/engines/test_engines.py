"""Snakemake and DVC run one DAG: the same jobs, commands, dependencies, outputs, and in the end the same bytes."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from helpers.engines import GIT, PRESET, artifacts, copy, run
from helpers.projects import MINI, ROOT
from relearn import grid, params
from relearn.engines import dvc

# of mini.yaml; all draw something of lsp or of the whole grid
FIGURES = ("trap_curves", "gallery", "shallow_study", "embedding", "stage_timeline")


def snakemake_jobs(folder: Path, *options: str) -> dict[str, tuple[set, set]]:
    """Inputs and outputs of each job Snakemake would run, by command."""
    jobs, inputs, outputs = {}, set(), set()
    for line in run(folder, "snakemake", "-n", "--printshellcmds", "--cores", "2", *options).splitlines():
        key, _, rest = line.strip().partition(": ")
        if key == "input":
            inputs = set(rest.split(", "))
        elif key == "output":
            outputs = set(rest.split(", "))
        elif key == "Shell command" and rest != "None":
            jobs[rest.split(" > ")[0]] = (inputs, outputs)
    return jobs


def dvc_jobs(folder: Path) -> dict[str, tuple[set, set]]:
    """The same as DVC sees them, with the keys of params.yaml it watches as a third set."""
    script = (
        "import json; from dvc.repo import Repo\n"
        "print(json.dumps([[s.cmd, [d.def_path for d in s.deps], [o.def_path for o in s.outs],"
        " [k for d in s.deps for k in getattr(d, 'params', [])]] for s in Repo('.').index.stages]))"
    )
    stages = json.loads(run(folder, sys.executable, "-c", script).splitlines()[-1])
    return {
        command: (set(deps) - {"params.yaml"}, set(outs), set(keys))
        for command, deps, outs, keys in stages
        if command != "relearn check-params"
    }


@pytest.mark.parametrize("preset", ["params.yaml", "tests/data/mini.yaml", "workflow/presets/evidence.yaml"])
def test_the_two_dags_are_one(tmp_path, preset):
    folder = copy(tmp_path / "copy", ROOT / preset)
    jobs = {job.command: job for job in grid.jobs(params.load(folder / "params.yaml"))}
    of_snakemake, of_dvc = snakemake_jobs(folder, "--forceall"), dvc_jobs(folder)
    assert set(of_snakemake) == set(jobs) == set(of_dvc)
    for command, job in jobs.items():
        needs = set(job.inputs) | set(job.sources)
        assert of_snakemake[command] == (needs, set(job.outputs))
        assert of_dvc[command] == (needs, set(job.outputs), set(job.keys))


def test_dvc_knows_every_job_by_name(tmp_path):
    folder = copy(tmp_path / "copy", MINI)
    listed = run(folder, "dvc", "stage", "list", "--name-only").split()
    assert sorted(listed) == sorted(["check", *map(dvc.stage_name, grid.jobs(params.load(MINI)))])
    assert {"train-digits-lsp-cnn-pst-0", "sources-train", "poison-digits-lsp", "aggregate"} <= set(listed)
    status = json.loads(run(folder, "dvc", "status", "--json").splitlines()[-1])
    assert set(status) == set(listed)  # nothing is made


def test_a_stale_dvc_yaml_stops_dvc_before_the_first_job(tmp_path):
    folder = copy(tmp_path / "copy", MINI)
    text = (folder / "params.yaml").read_text()
    other = text.replace("methods: [erm, pst], seeds: [0]", "methods: [erm, pst], seeds: [0, 1]")
    assert other != text
    (folder / "params.yaml").write_text(other)
    output = run(folder, "dvc", "repro", "check", fails=True)
    assert "relearn: dvc.yaml is not that of params.yaml; write it with: relearn grid --write" in output
    assert "Traceback" not in output
    assert not (folder / "results").exists()


def ran_by_dvc(text: str) -> set[str]:
    """The commands that DVC says it has run."""
    return {line.split("> ", 1)[1] for line in text.splitlines() if line.startswith("> relearn")}


def test_dvc_runs_all_jobs_of_a_rule_and_an_experiment_with_another_setting(tmp_path):
    """An experiment writes params.yaml in DVC's own form; that must neither make dvc.yaml stale nor stop a job."""
    folder = copy(tmp_path / "copy", PRESET)
    trainings = {f"relearn train digits/{poison}/cnn/erm/0" for poison in ("clean", "lsp")}
    poisons = {f"relearn poison digits/{poison}" for poison in ("clean", "lsp")}
    lists = {f"relearn sources {rule}" for rule in ("prepare", "poison", "train")}
    before = {"relearn prepare digits", *lists, *poisons}
    assert ran_by_dvc(run(folder, "dvc", "repro", "--glob", "train-*")) == before | trainings
    run(folder, *GIT, "add", "-A")
    run(folder, *GIT, "commit", "-q", "-m", "trained")
    written = (folder / "dvc.yaml").read_bytes()
    wanted = ("check", "train-digits-lsp-cnn-erm-0")
    said = run(folder, "dvc", "exp", "run", "-S", "train.lr=0.05", *wanted)
    assert ran_by_dvc(said) == {"relearn check-params", "relearn train digits/lsp/cnn/erm/0"}
    assert (folder / "dvc.yaml").read_bytes() == written
    info = json.loads((folder / "results/runs/digits/lsp/cnn/erm/0/train.json").read_text())
    assert info["settings"]["train"]["lr"] == 0.05 == params.load(folder / "params.yaml").recipe["lr"]
    assert "train.lr" in run(folder, "dvc", "params", "diff")


def test_shipped_dvc_yaml_is_current():
    assert (ROOT / dvc.FILE).read_text() == dvc.render(params.load(ROOT / "params.yaml")), "run: relearn grid --write"


def test_params_is_the_preset_quickstart():
    assert (ROOT / "params.yaml").read_text() == (ROOT / "workflow/presets/quickstart.yaml").read_text()


def test_slurm_profile_resolves(tmp_path):
    folder = copy(tmp_path / "copy", MINI)
    text = run(folder, "snakemake", "--cores", "8", "--profile", "slurm", "-n", "--quiet", "rules")
    assert "train" in text and "total" in text


def test_local_profiles_resolve(tmp_path):
    folder = copy(tmp_path / "copy", MINI)
    local = run(folder, "snakemake", "--profile", "profiles/local", "-n")
    several = run(folder, "snakemake", "--profile", "profiles/multi-gpu", "--resources", "gpu=2", "-n")
    jobs = [
        sum(job.rule == rule for job in grid.jobs(params.load(folder / "params.yaml")))
        for rule in ("surrogate", "poison", "purify", "pretrain", "train", "evaluate")
    ]
    assert "gpu=" not in local
    assert several.count("gpu=1") == sum(jobs) == 22  # each job that computes on a GPU asks for one


def test_an_error_stops_both_engines_before_the_first_job(tmp_path):
    folder = copy(tmp_path / "copy", MINI)
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("poisons: [hypo]", "poisons: [hypoo]"))
    error = (
        "relearn: params.yaml: unknown poison 'hypoo' in grid.surrogate; known: clean, hypo, lsp (did you mean 'hypo'?)"
    )
    for command in (("snakemake", "--cores", "1"), ("dvc", "repro"), ("relearn", "check-params")):
        output = run(folder, *command, fails=True)
        assert error in output
        assert "Traceback" not in output
    assert not (folder / "results").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One copy made by Snakemake on two cores and one by DVC."""
    folders = {}
    for engine, command in (
        ("snakemake", ("snakemake", "--cores", "2", "--quiet", "rules")),
        ("dvc", ("dvc", "repro", "-q")),
    ):
        folders[engine] = copy(tmp_path_factory.mktemp(engine) / "copy", MINI)
        run(folders[engine], *command)
    return folders


def changed(folder: Path) -> set[str]:
    """Arguments of the DVC stages that are not up to date and not only downstream of such."""
    status = json.loads(run(folder, "dvc", "status", "--json").splitlines()[-1])
    return {stage for stage in status if stage != "check"}


def test_same_bytes_from_both_engines(made, log):
    ours, theirs = artifacts(made["snakemake"]), artifacts(made["dvc"])
    assert len(ours) > 30
    assert ours == theirs
    log(f"{len(ours)} artifacts equal by SHA-256, made by Snakemake on two cores and by DVC")


def test_a_second_run_has_nothing_to_do(made):
    assert snakemake_jobs(made["snakemake"]) == {}
    assert changed(made["dvc"]) == set()


def test_no_machine_in_tracked_text(made):
    host, home = os.uname().nodename, str(made["snakemake"])
    for name in artifacts(made["snakemake"]):
        if name.endswith((".json", ".csv", ".md", ".tex")):
            text = (made["snakemake"] / name).read_text()
            assert home not in text and f'"{host}"' not in text, name


def test_another_epsilon_runs_exactly_its_cells(made):
    for folder in made.values():
        content = (folder / "params.yaml").read_text()
        (folder / "params.yaml").write_text(content.replace("lsp: {epsilon: 6}", "lsp: {epsilon: 7}"))
    methods = ("erm", "pst", "purified")
    cells = {f"relearn {rule} digits/lsp/cnn/{method}/0" for rule in ("train", "evaluate") for method in methods}
    cells.add("relearn purify digits/lsp/dvae")
    downstream = {"relearn aggregate", "relearn tabulate accuracy", *(f"relearn plot {name}" for name in FIGURES)}
    assert set(snakemake_jobs(made["snakemake"])) == {"relearn poison digits/lsp", *cells, *downstream}
    assert changed(made["dvc"]) == {"poison-digits-lsp", "aggregate"}  # aggregate watches all of params.yaml
    before = artifacts(made["dvc"])
    run(made["snakemake"], "snakemake", "--cores", "2", "--quiet", "rules")
    text = run(made["dvc"], "dvc", "repro")
    assert ran_by_dvc(text) - {"relearn check-params"} == {"relearn poison digits/lsp", *cells, *downstream}
    after = artifacts(made["dvc"])
    assert after == artifacts(made["snakemake"])
    runs = {name for name in after if before[name] != after[name] and "/runs/" in name}
    assert runs and all("/lsp/" in name for name in runs)


def test_a_changed_source_runs_exactly_what_runs_it(made):
    for folder in made.values():
        listed = dict(
            line.split("  ")[::-1]
            for path in (folder / "results/sources").iterdir()
            for line in path.read_text().splitlines()
        )
        assert listed == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in listed}
        assert "src/relearn/crafting/perturbation.py" in listed
        with open(
            folder / "src/relearn/crafting/perturbation.py", "a"
        ) as file:  # what every poison runs and nothing else
            file.write("# changed\n")
    poisons = {job.command for job in grid.jobs(params.load(MINI)) if job.rule == "poison"}
    jobs = set(snakemake_jobs(made["snakemake"]))
    assert {"relearn sources poison", *poisons} <= jobs
    assert not {command for command in jobs if command.split()[1] in ("prepare", "surrogate", "sources")} - {
        "relearn sources poison"
    }
    text = run(made["dvc"], "dvc", "repro")  # runs nothing after them, since not a byte of theirs has changed
    assert ran_by_dvc(text) - {"relearn check-params"} == {"relearn sources poison", *poisons}


def test_stale_and_missing_records_are_refused(made):
    folder = made["snakemake"]
    record = folder / "results/metrics/digits/clean/cnn/erm/0/record.json"
    kept = record.read_text()
    content = json.loads(kept)
    content["settings_hash"] = "0" * 16
    record.write_text(json.dumps(content))
    assert "made with other settings than params.yaml now has: digits/clean/cnn/erm/0" in run(
        folder, "relearn", "aggregate", fails=True
    )
    record.unlink()
    assert "1 of 8 cells have no record: digits/clean/cnn/erm/0" in run(folder, "relearn", "aggregate", fails=True)
    record.write_text(kept)
    run(folder, "relearn", "aggregate")


TOY = '''"""A toy."""

import torch

from relearn.crafting.craft import CraftContext
from relearn.crafting.perturbation import Budget, Perturbation
from relearn.data import Split
from relearn.registry import Positive, register


@register
def brighter(train: Split, craft: CraftContext, *, epsilon: Positive = 4.0) -> Perturbation:
    """Every image brighter by `epsilon` (1/255)."""
    delta = torch.full((1, *train.images.shape[1:]), epsilon)
    return Perturbation(delta, Budget("linf", epsilon), torch.zeros_like(train.labels))
'''


def test_a_poison_is_one_new_file_and_one_line(tmp_path):
    assert TOY.partition("@register\n")[2] in (ROOT / "README.md").read_text()  # the example of the front page
    folder = copy(tmp_path / "copy", MINI)
    (folder / "src/relearn/poisons/brighter.py").write_text(TOY)
    content = yaml.safe_load((folder / "params.yaml").read_text())
    content["grid"] = {"main": content["grid"]["main"] | {"poisons": ["brighter"], "methods": ["erm"]}}
    lines = (
        (folder / "params.yaml")
        .read_text()
        .replace("poisons:\n  clean: {}", "poisons:\n  brighter: {epsilon: 4}\n  clean: {}", 1)
    )
    before, _, after = lines.partition("grid:\n")
    tables = after[after.index("\ntables:") : after.index("\nfigures:")]  # figures name cells that this grid lacks
    (folder / "params.yaml").write_text(before + yaml.safe_dump({"grid": content["grid"]}) + tables)
    run(
        folder,
        "snakemake",
        "--cores",
        "2",
        "--quiet",
        "rules",
        "--",
        "results/metrics/digits/brighter/cnn/erm/0/record.json",
    )
    record = json.loads((folder / "results/metrics/digits/brighter/cnn/erm/0/record.json").read_text())
    assert record["settings"]["poison"]["epsilon"] == 4
    assert record["result"]["passes"] == 1
