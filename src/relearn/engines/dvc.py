"""dvc.yaml, generated whole from the jobs of the grid, and dvc.lock, read. Needs no torch."""

from pathlib import Path

import yaml

from relearn import grid, params
from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime.files import write_text

FILE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
CACHE = Path(".dvc/cache/files/md5")
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C; a dvc.lock of 1,000 cells has 4 MB
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
HEAD = """\
# Generated from params.yaml by `relearn grid --write`, a stage per job; do not edit. Snakemake does not read it.
# `dvc repro` runs all of it, `dvc repro --glob 'train-*'` the jobs of a rule.
"""


def render(checked: Params) -> str:
    """The text of dvc.yaml: a stage per job, and `check`, which fails when this file is not that of params.yaml.

    It can differ after a change of params.yaml, or of an import in a source; DVC lets no stage depend on dvc.yaml.
    """
    jobs = grid.jobs(checked)
    sources = sorted({source for job in jobs for source in job.sources})
    check = {"cmd": "relearn check-params", "deps": [str(params.FILE), *sources]}
    content = {
        "metrics": [str(grid.path("aggregate", "metrics"))],
        "plots": [{str(grid.path("aggregate", "histories")): {"x": "epoch", "y": "test_accuracy"}}],
        "stages": {"check": check} | {stage_name(job): _stage(job) for job in jobs},
    }
    return HEAD + yaml.dump(content, Dumper=Dumper, sort_keys=False, width=120)


def write(checked: Params) -> None:
    """Write dvc.yaml."""
    write_text(FILE, render(checked))


def check_written(checked: Params) -> None:
    """Raises UserError when dvc.yaml is not that of params.yaml."""
    if not FILE.exists() or FILE.read_text(encoding="utf-8", errors="replace") != render(checked):
        raise UserError(f"{FILE} is not that of params.yaml; write it with: relearn grid --write")


def stage_name(job: grid.Job) -> str:
    """What DVC calls the job, as in `dvc repro train-digits-em-cnn-pst-0`."""
    return "-".join(filter(None, (job.rule, *job.argument.split("/"))))


def read_lock() -> dict[str, dict[str, str]]:
    """The MD5 of every output that dvc.lock has, by stage and path. Raises UserError when it is missing or corrupt."""
    if not LOCK.exists():
        raise UserError(
            f"there is no {LOCK} here, so DVC has recorded nothing; it comes with git, from dvc repro, "
            "or from: relearn adopt --dvc"
        )
    try:
        stages = yaml.load(LOCK.read_text(encoding="utf-8"), Loader=Loader)["stages"]
        return {name: {out["path"]: out["md5"] for out in stage.get("outs", [])} for name, stage in stages.items()}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
        raise UserError(f"{LOCK} is not what DVC writes; restore it with: git checkout {LOCK}") from None


def cached(md5: str) -> Path:
    """Where DVC's cache stores the content of this MD5, unless `cache.dir` says otherwise."""
    return CACHE / md5[:2] / md5[2:]


def _stage(job: grid.Job) -> dict:
    stage: dict = {"cmd": job.command, "deps": sorted({*job.inputs, *job.sources})}
    if job.keys:
        stage["params"] = list(job.keys)
    return stage | {"outs": list(job.outputs)}
