# Progressive Staged Training, end to end: `snakemake --cores 8` runs the grid of params.yaml. Cells, paths and
# dependencies come from relearn.grid, the one definition that both engines share; torch is not imported here.

import sys

from snakemake.utils import min_version

from relearn import grid, params, registry
from relearn.engines import bridge, touching
from relearn.errors import UserError, one_line
from relearn.rules.planning import estimates

min_version("9.0")

try:
    registry.check_package()
    if config:
        raise UserError(
            f"Snakemake's --config and --configfile set {', '.join(config)}, which no job would see; edit params.yaml"
        )
    PARAMS = params.load()
    JOBS = {(job.rule, job.argument): job for job in grid.jobs(PARAMS)}
    grid.check_inputs(PARAMS, list(JOBS.values()))
    ESTIMATES = estimates.read(PARAMS)
    if workflow.is_main_process and "--unlock" not in sys.argv:
        bridge.check_results(list(JOBS.values()))
        for job in JOBS.values():
            grid.digests(PARAMS, job)  # here, where an error is one line; each input is read once
        if bridge.adopts() and "--touch" in sys.argv:
            touching.replace_scheduler()
except (UserError, OSError) as error:
    print(f"relearn: {one_line(str(error))}", file=sys.stderr)
    sys.exit(2)


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        [name for job in JOBS.values() for name in job.outputs],
