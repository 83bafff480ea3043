"""Results that no engine made, and what either engine would have noted of them."""

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path

from helpers.engines import PRESET
from helpers.projects import copy_project
from relearn import grid, params
from relearn.engines import bridge, dvc


def filled(folder: Path) -> Path:
    """A copy of the project with a tiny grid, its dvc.yaml, and a file for every artifact."""
    copy_project(folder)
    shutil.copy(PRESET, folder / "params.yaml")
    with contextlib.chdir(folder):
        dvc.write(params.load())
        for job in grid.jobs(params.load()):
            for name in job.outputs:
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).write_text(name)
    return folder


def remember(name: str) -> None:
    """What Snakemake would note of a file it has just made."""
    record = bridge._snakemake_file("metadata", name)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"endtime": os.stat(name).st_mtime}))


def md5(name: str) -> str:
    return hashlib.md5(Path(name).read_bytes()).hexdigest()


def record(folder: Path) -> dict[str, str]:
    """Write the dvc.lock of the files as they are; the MD5 of each."""
    checked = params.load()
    sums = {name: md5(name) for job in grid.jobs(checked) for name in job.outputs}
    locked = {
        dvc.stage_name(job): {
            "cmd": job.command,
            "deps": [{"path": name, "hash": "md5", "md5": md5(name)} for name in (*job.inputs, *job.sources)],
            "params": {"params.yaml": grid.values(checked, job.keys)} if job.keys else {},
            "outs": [{"path": name, "hash": "md5", "md5": sums[name]} for name in job.outputs],
        }
        for job in grid.jobs(checked)
    }
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": locked}))
    return sums
