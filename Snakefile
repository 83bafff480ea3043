# Progressive Staged Training, end to end: `snakemake --cores 8` runs the grid of params.yaml.
# Cells, paths and dependencies come from relearn.grid, the one definition both engines share; torch is not imported here.

import sys

from relearn import adopt, estimates, grid, params
from relearn.errors import Fault

try:
    PARAMS = params.load()
    NODES = grid.nodes(PARAMS)
    grid.check_inputs(NODES)
    ESTIMATES = estimates.read(PARAMS)
    if workflow.is_main_process and "--unlock" not in sys.argv:
        adopt.check(NODES)
except Fault as fault:
    print(f"relearn: {fault}", file=sys.stderr)
    sys.exit(2)


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        [name for node in NODES for name in node.outputs],
