"""The grid on a real Slurm of one node, on a day on which all goes wrong: in the end the bytes of a quiet local run.

In the first run one poison's file is broken, one training is cancelled twice, and another reaches its time limit. The
second run, by the same command, has to make just what is missing. Jobs run on the CPU; the GPUs they ask for are
claimed only.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest
import yaml

from helpers.projects import copy_project
from helpers.slurm_cluster import GPUS, SlurmCluster, missing
from helpers.slurm_grid import CONTENT, METHOD
from relearn.rules.planning import estimates
from relearn.runtime import files

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]

# the last one only looks after jobs more often
COMMAND = ("snakemake", "--cores", "8", "--profile", "slurm", "--profile", "polling")
POLLING = {"slurm-init-seconds-before-status-checks": 2, "seconds-between-status-checks": 2}
CANCELLED, LIMITED = "digits/clean/cnn/slow/0", "digits/clean/cnn/slow/1"
BROKEN = "digits/theirs"
PATIENCE = 600  # seconds, for a busy machine
STARTED: list[subprocess.Popen] = []


def project(folder: Path) -> Path:
    """A copy of the project with the grid above, the slow method, and a profile for tests."""
    copy_project(folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(CONTENT))
    (folder / "src/relearn/methods/slow.py").write_text(METHOD)
    for name in ("polling", "data"):
        (folder / name).mkdir()
    (folder / "polling/config.yaml").write_text(yaml.safe_dump(POLLING))
    write_perturbation(folder)
    return folder


def write_perturbation(folder: Path) -> None:
    """The file of the poison `theirs`: a colour per class."""
    colours = numpy.arange(30).reshape(10, 1, 1, 3) % 9 - 4
    numpy.save(folder / "data/theirs.npy", numpy.broadcast_to(colours, (10, 32, 32, 3)).astype(numpy.int8))


def start(folder: Path, *command: str, environment: dict = os.environ) -> subprocess.Popen:
    """A command in a copy of the project, in the background; what it says goes to output.txt there."""
    own = {
        "PYTHONPATH": str(folder / "src"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "RELEARN_DEVICE": "cpu",
    }
    with open(folder / "output.txt", "w") as output:
        STARTED.append(
            subprocess.Popen(
                command,
                cwd=folder,
                env=environment | own,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
    return STARTED[-1]


def dag(folder: Path) -> list[dict]:
    """The jobs of a copy's DAG; only its own sources know its method."""
    script = (
        "import json; from relearn import grid, params;"
        "print(json.dumps([vars(job) for job in grid.jobs(params.load())]))"
    )
    assert start(folder, sys.executable, "-c", script).wait(PATIENCE) == 0, said(folder)
    return json.loads(said(folder))


def said(folder: Path) -> str:
    return (folder / "output.txt").read_text()


def wait(condition: Callable, folder: Path, seconds: int = PATIENCE):
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, said(folder)
        time.sleep(1)
    return value


@dataclass
class Day:
    """What there was to see: two runs' outputs and exit codes, and the jobs of Slurm, those of the second run apart.

    `dag` are the jobs of the grid.
    """

    folder: Path
    local: Path
    dag: list[dict]
    outputs: list[str]
    codes: list[int]
    jobs: list[dict[str, str]]
    second: list[dict[str, str]]


def attempts(jobs: list[dict[str, str]], rule: str, argument: str) -> list[dict[str, str]]:
    """The jobs of Slurm for one job of the grid, oldest first."""
    return [job for job in jobs if job["Comment"] == f"rule_{rule}_wildcards_{argument.replace('/', '_')}"]


def epochs(folder: Path, job: dict[str, str]) -> list[int]:
    """How many epochs a slow job had behind it whenever it looked."""
    path = folder / f"epochs.{job['JobId']}"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def trouble(cluster: SlurmCluster, folder: Path) -> subprocess.Popen:
    """The first run: a broken file, a job cancelled in both attempts, a time limit."""
    (folder / "data/theirs.npy").write_text("not an array")
    running = start(folder, *COMMAND, environment=cluster.environment)
    first = pausing(cluster, folder, LIMITED, 1)
    cluster.run("scontrol", "update", f"JobId={first['JobId']}", "TimeLimit=1")
    for attempt in (1, 2):
        cluster.run("scancel", pausing(cluster, folder, CANCELLED, attempt)["JobId"])
    wait(lambda: attempts(cluster.jobs(), "train", LIMITED)[0]["JobState"] == "TIMEOUT", folder)
    (folder / "awake").touch()
    return running


def pausing(cluster: SlurmCluster, folder: Path, cell: str, attempt: int) -> dict[str, str]:
    """The job of a slow cell, once it has come to its pause."""

    def there() -> list[dict[str, str]]:
        jobs = attempts(cluster.jobs(), "train", cell)
        return [job for job in jobs[attempt - 1 :] if 3 in epochs(folder, job)]

    return wait(there, folder)[0]


@pytest.fixture(scope="module")
def ended():
    """Whatever happens, no process is left behind."""
    yield
    for process in STARTED:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def day(ended, tmp_path_factory):
    folder, local = (project(tmp_path_factory.mktemp(name) / "copy") for name in ("slurm", "local"))
    (local / "awake").touch()
    assert start(folder, "relearn", "plan", "--write").wait(PATIENCE) == 0, said(folder)
    with SlurmCluster() as cluster:
        running = trouble(cluster, folder)
        quiet = start(local, "snakemake", "--cores", "2")
        codes, outputs = [running.wait(PATIENCE)], [said(folder)]
        before = len(cluster.jobs())
        write_perturbation(folder)
        codes.append(start(folder, *COMMAND, environment=cluster.environment).wait(PATIENCE))
        outputs.append(said(folder))
        jobs = cluster.jobs()
    assert quiet.wait(PATIENCE) == 0, said(local)
    return Day(folder, local, dag(folder), outputs, codes, jobs, jobs[before:])


def test_two_runs_by_one_command_complete_the_grid(day):
    assert day.codes == [1, 0], "\n".join(day.outputs)
    assert (day.folder / "results/tables/summary.md").exists()


def test_same_bytes_as_a_quiet_local_run(day, log):
    names = [name for job in day.dag for name in job["outputs"]]
    ours, theirs = (
        {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        for folder in (day.folder, day.local)
    )
    assert len(ours) == 55
    assert ours == theirs
    log(
        f"{len(ours)} artifacts equal by SHA-256, made under Slurm, with a failure, a cancelled job and a time limit, "
        "and by a local run"
    )


def test_every_job_ran_under_slurm(day, log):
    done = {job["Comment"] for job in day.jobs if job["JobState"] == "COMPLETED"}
    sent = [
        job for job in day.dag if job["rule"] not in ("sources", "inputs")
    ]  # those take no time and run where Snakemake does
    assert done == {
        f"rule_{job['rule']}" + (f"_wildcards_{job['argument'].replace('/', '_')}" if job["argument"] else "")
        for job in sent
    }
    for rule, argument, output in ((job["rule"], job["argument"], job["outputs"][0]) for job in day.dag):
        if rule in ("surrogate", "poison", "train", "evaluate"):
            (job,) = [job for job in attempts(day.jobs, rule, argument) if job["JobState"] == "COMPLETED"]
            run = files.read_json((day.folder / output).with_name(f"{rule}.run.json"))
            assert run["slurm_job"] == job["JobId"]
            if rule == "evaluate":
                assert run["visible_gpus"] is None and "TresPerJob" not in job
            else:
                assert run["visible_gpus"] in map(str, range(GPUS)) and job["TresPerJob"] == "gres:gpu:1"
    log("ran under Slurm:", ", ".join(f"{job['JobId']} {job['JobState']}" for job in day.jobs))


def test_a_failing_job_names_itself_and_its_log(day):
    first = day.outputs[0]
    assert "Error in rule poison" in first
    assert f"results/logs/poison/{BROKEN}.log" in first
    assert "relearn: external: data/theirs.npy is damaged or not a plain .npy file" in first
    assert "Traceback" not in first


def test_a_second_attempt_asks_for_twice_memory_and_time(day):
    expected = files.read_json(day.folder / estimates.FILE)["jobs"]
    for rule, argument in (("poison", BROKEN), ("train", CANCELLED)):
        asked = expected[f"relearn {rule} {argument}"]
        first, second = attempts(day.jobs, rule, argument)[:2]
        assert [megabytes(job) for job in (first, second)] == [asked["mem_mb"], 2 * asked["mem_mb"]]
        assert [minutes(job) for job in (first, second)] == [asked["runtime"], 2 * asked["runtime"]]


def megabytes(job: dict[str, str]) -> float:
    amount, unit = re.fullmatch(r"([0-9.]+)([MG])", job["MinMemoryNode"]).groups()
    return float(amount) * {"M": 1, "G": 1024}[unit]


def minutes(job: dict[str, str]) -> int:
    hours, minutes, seconds = re.fullmatch(r"(?:0-)?(\d\d):(\d\d):(\d\d)", job["TimeLimit"]).groups()
    return 60 * int(hours) + int(minutes)


def test_a_job_at_its_time_limit_resumes_where_it_was(day):
    first, second = attempts(day.jobs, "train", LIMITED)
    assert [first["JobState"], second["JobState"]] == ["TIMEOUT", "COMPLETED"]
    assert f"SLURM-job '{first['JobId']}' failed, SLURM status is: 'TIMEOUT'" in day.outputs[0]
    assert [epochs(day.folder, job) for job in (first, second)] == [[0, 1, 2, 3], [3, 4, 5]]


def test_a_cancelled_job_resumes_in_the_next_run(day):
    first, second, third = attempts(day.jobs, "train", CANCELLED)
    assert [job["JobState"] for job in (first, second, third)] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert f"SLURM-job '{second['JobId']}' failed, SLURM status is: 'CANCELLED'" in day.outputs[0]
    assert f"results/logs/train/{CANCELLED}.log" in day.outputs[0]
    assert [epochs(day.folder, job) for job in (first, second, third)] == [[0, 1, 2, 3], [3], [3, 4, 5]]


def test_the_second_run_makes_just_what_is_missing(day):
    cell = "digits_theirs_cnn_erm_0"
    wanted = {
        f"rule_{rule}_wildcards_{name}"
        for rule in ("train", "evaluate")
        for name in (cell, CANCELLED.replace("/", "_"))
    }
    wanted |= {
        "rule_poison_wildcards_digits_theirs",
        "rule_aggregate",
        "rule_tabulate_wildcards_summary",
        "rule_plot_wildcards_trap_curves",
    }
    assert len(day.second) == len(wanted) and {job["Comment"] for job in day.second} == wanted
