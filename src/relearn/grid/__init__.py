"""The grid: cells, every path, every job of the DAG, and the settings behind each file. Needs no torch."""

from relearn.grid.inputs import listing
from relearn.grid.jobs import Job, cells, check_inputs, digests, job, jobs, plotted_cells, values
from relearn.grid.mixed import mixed
from relearn.grid.paths import RESULTS, RULES, Cell, Rule, log, parse, path, sidecar
from relearn.grid.pretrained import pretrained
from relearn.grid.provenance import settings
from relearn.grid.trained_on import trained_on

__all__ = [
    "RESULTS",
    "RULES",
    "Cell",
    "Job",
    "Rule",
    "cells",
    "check_inputs",
    "digests",
    "job",
    "jobs",
    "listing",
    "log",
    "mixed",
    "parse",
    "path",
    "plotted_cells",
    "pretrained",
    "settings",
    "sidecar",
    "trained_on",
    "values",
]
