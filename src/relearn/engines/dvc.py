"""dvc.yaml, generated whole from the jobs of the grid, and dvc.lock, read. Needs no torch."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from relearn import grid, params
from relearn.errors import UserError
from relearn.params import Params
from relearn.runtime import yaml_loader
from relearn.runtime.files import write_text

FILE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
CACHE = Path(".dvc/cache/files/md5")
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")  # DVC adds .dir to that of a folder
DEPTH = 60  # levels of YAML in dvc.lock; more than params.yaml may have, whose settings are in it
CONFLICT = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)
PLOT = Path("workflow/plots/cells.json")  # a line per cell; DVC's own template would join all of them
SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C; a dvc.lock of 1,000 cells has 4 MB
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
HEAD = """\
# Generated from params.yaml by `relearn grid --write`, a stage per job; do not edit. Snakemake does not read it.
# `dvc repro` runs all of it, `dvc repro --glob 'train-*'` the jobs of a rule.
"""


class Loader(SafeLoader):
    """Reads what DVC writes: YAML 1.2, in which `no` and `2020-01-01` are texts."""

    yaml_implicit_resolvers = yaml_loader.Loader.yaml_implicit_resolvers
    yaml_constructors = yaml_loader.Loader.yaml_constructors


class Recorded(NamedTuple):
    """What dvc.lock has of a stage: command, the MD5 of what it read and wrote by path, its keys of params.yaml."""

    command: object
    inputs: dict[str, str]
    outputs: dict[str, str]
    settings: str


def render(checked: Params) -> str:
    """The text of dvc.yaml: a stage per job, and `check`, which fails when this file is not that of params.yaml.

    It can differ after a change of params.yaml, or of an import in a source; DVC lets no stage depend on dvc.yaml.
    """
    jobs = grid.jobs(checked)
    sources = sorted({source for job in jobs for source in job.sources})
    check = {"cmd": "relearn check-params", "deps": [str(params.FILE), *sources]}
    lines = {"x": "epoch", "y": "test_accuracy", "template": str(PLOT)}
    content = {
        "metrics": [str(grid.path("aggregate", "metrics"))],
        "plots": [{str(grid.path("aggregate", "histories")): lines}, *_pictures(checked)],
        "stages": {"check": check} | {stage_name(job): _stage(job) for job in jobs},
    }
    return HEAD + yaml.dump(content, Dumper=Dumper, sort_keys=False, width=120)


def _pictures(checked: Params) -> list[str]:
    """The figures, for `dvc plots show` beside the curves that it draws itself."""
    return [str(grid.path("plot", "png", figure=name)) for name in checked.names("figures")]


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
    return {name: stage.outputs for name, stage in read_stages().items()}


def read_stages() -> dict[str, Recorded]:
    """What dvc.lock has of every stage, by its name. Raises UserError when it is missing or corrupt.

    It may come from a stranger: a hash becomes part of a path in DVC's cache, so that only 32 hex digits pass for one.
    """
    if not LOCK.exists():
        raise UserError(
            f"there is no {LOCK} here, so DVC has recorded nothing; it comes with git, from dvc repro, "
            "or from: relearn adopt --dvc"
        )
    try:
        text = LOCK.read_text(encoding="utf-8")
        if CONFLICT.search(text):
            raise UserError(
                f"{LOCK} has conflict markers of a merge; keep one side with: git checkout --ours {LOCK} "
                "(or --theirs), then run the engine again"
            )
        _check_yaml(text)
        stages = yaml.load(text, Loader=Loader)["stages"]
        if len({id(stage.get("outs", stage)) for stage in stages.values()}) < len(stages):
            raise ValueError("stages share outputs")
        found = {name: _recorded(stage) for name, stage in stages.items()}
    except (yaml.YAMLError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise UserError(f"{LOCK} is not what DVC writes; restore it with: git checkout HEAD {LOCK}") from None
    for name, stage in found.items():
        for output, md5 in stage.outputs.items():
            if not isinstance(name, str) or not isinstance(output, str) or not _is_md5(md5):
                raise UserError(
                    f"{LOCK}: stage {name!r} records {output!r} under {md5!r}, which is not an MD5 of 32 hex digits; "
                    f"restore it with: git checkout HEAD {LOCK}"
                )
    return found


def is_current(job: grid.Job, recorded: Recorded, values: dict, md5: Callable[[str], str | None]) -> bool:
    """Whether DVC recorded the job with the command, inputs, sources and settings that it has now.

    `values` are those of the job's keys. `dvc status` says the same, but takes half a minute for 1,000 cells.
    """
    return (
        recorded.command == job.command
        and recorded.inputs == {name: md5(name) for name in (*job.inputs, *job.sources)}
        and recorded.settings == _canonical({str(params.FILE): values} if values else {})
    )


def _recorded(stage: dict) -> Recorded:
    inputs, outputs = ({entry["path"]: entry["md5"] for entry in stage.get(key, [])} for key in ("deps", "outs"))
    return Recorded(stage.get("cmd"), inputs, outputs, _canonical(stage.get("params", {})))


def _canonical(settings: dict) -> str:
    """Settings as text, which tells `1` from `1.0` and from `true`, as Python's `==` does not."""
    return json.dumps(settings, sort_keys=True)


def _check_yaml(text: str) -> None:
    """Raises ValueError for what would crash or hang the loader, and DVC does not write: deep nesting, merge keys."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH or (isinstance(event, yaml.ScalarEvent) and event.value == "<<"):
            raise ValueError(event)


def cached(md5: str) -> Path:
    """Where DVC's cache stores the content of this MD5, unless `cache.dir` says otherwise."""
    if not _is_md5(md5):
        raise UserError(f"{md5!r} is not an MD5 of 32 hex digits")
    return CACHE / md5[:2] / md5[2:]


def _is_md5(value: object) -> bool:
    return isinstance(value, str) and MD5.fullmatch(value) is not None


def _stage(job: grid.Job) -> dict:
    stage: dict = {"cmd": job.command, "deps": sorted({*job.inputs, *job.sources})}
    if job.keys:
        stage["params"] = list(job.keys)
    if job.rule == "inputs":  # what it lists is anywhere, and DVC would neither follow links nor see what it ignores
        stage["always_changed"] = True
    return stage | {"outs": list(job.outputs)}
