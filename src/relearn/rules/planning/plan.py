"""What a grid will cost before anything runs: cells, passes per image, time on this machine, disk."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from relearn import grid, registry
from relearn.errors import UserError
from relearn.params import Params
from relearn.rules.planning import cost, estimates, sizes
from relearn.runtime import device as devices
from relearn.runtime.run_report import peak_memory_mb
from relearn.runtime.seeding import deterministic

STARTUP_SECONDS = 4.0  # of a job: Python, torch and the engine's own part
COPIES = {
    "surrogate": 3,
    "poison": 12,
    "pretrain": 3,
    "train": 3,
}  # copies of the dataset that a job holds; other rules are small
MARGIN = 2.0  # what is asked for, over what is expected
LEAST_MINUTES = 10  # and these on top: queues, start, a slower machine

Size = sizes.Size


class Work(NamedTuple):
    """What a job does: passes per image, the architecture they go through if any, and bytes of data it writes."""

    passes: float
    arch: str | None
    disk: float


class Cost(NamedTuple):
    """What a job costs: passes per image, seconds on this machine, bytes on disk."""

    passes: float
    seconds: float
    disk: float


def plan(params: Params, write: bool = False, given: Sequence[str] = ()) -> str:
    """A table of jobs per rule, with passes per image (forward and backward, all of them), hours and megabytes.

    Another has the hours per poison. Times come from a few batches of each architecture run here and now, on one job at
    a time, or from the speeds `given`, of another device (`given_speeds`). With `write`, the time and memory that each
    job asks a cluster for are written for Snakemake as well (estimates.py). Jobs of a dataset whose size nothing says
    are left out, and counted. Raises UserError for a speed that is none, and for one together with `write`.
    """
    faster = given_speeds(params, given)
    if write and faster:
        raise UserError(
            "--write asks for the memory that jobs need here, which --speed does not measure; leave one out"
        )
    deterministic(params.compute["threads"])
    busy = [] if "" in faster else _busy(params.compute["threads"])  # before anything is timed
    jobs, cells = grid.jobs(params), grid.cells(params)
    found = {dataset: sizes.size(params, dataset) for dataset in dict.fromkeys(cell.dataset for cell in cells)}
    known = {dataset: size for dataset, size in found.items() if size is not None}
    measure = _Speeds(params, faster, quick=not write)  # what is written tells a cluster the memory too
    costs = {job: _cost(params, job, known, measure) for job in jobs if job.rule not in _WORK or _dataset(job) in known}
    if write:
        large = {job: cost for job, cost in costs.items() if job.rule in COPIES}
        estimates.write(params, {job.command: _request(job, cost.seconds, known) for job, cost in large.items()})
    where = "at the speed given" if "" in faster else f"on {devices.choose()}"
    where += "".join(f", {arch} at {number:g} images per second" for arch, number in faster.items() if arch)
    lines = [f"{len(cells)} cells, {len(jobs)} jobs {where}", *_table(costs), "", *_by_poison(costs), ""]
    lines.append("hours are of one job at a time; divide by the jobs that really run side by side")
    lines += busy
    for dataset in (name for name, size in found.items() if size is None):
        left = sum(job.rule in _WORK and _dataset(job) == dataset for job in jobs)
        lines.append(
            f"not counted: {left} jobs of {dataset}, which does not say how many images it has; "
            f"plan again after: relearn prepare {dataset}"
        )
    if untimed := sum(job.rule == "purify" and cost.passes > 0 for job, cost in costs.items()):
        lines.append(
            f"hours are without {untimed} purify jobs, whose own networks are not timed here; their passes are above"
        )
    if write:
        lines.append(
            f"wrote {estimates.FILE}: the time and memory that Snakemake asks for, "
            f"{MARGIN:g} times what jobs are expected to need here"
        )
    return "\n".join(lines)


def given_speeds(params: Params, given: Sequence[str]) -> dict[str, float]:
    """Images per second by architecture, "" for every other, from texts `ARCH=NUMBER` or `NUMBER`.

    Raises UserError for another text, and for an architecture that params.yaml does not have.
    """
    found: dict[str, float] = {}
    for text in given:
        arch, _, number = text.rpartition("=")
        if arch and arch not in params.architectures:
            raise UserError(f"--speed: unknown architecture '{arch}'; {registry.suggest(arch, params.architectures)}")
        try:
            found[arch] = float(number)
        except ValueError:
            found[arch] = math.nan
        if not 0 < found[arch] < math.inf:
            raise UserError(f"--speed takes images per second, as 3000 or resnet18=3000, found '{text}'")
    return found


class _Speeds:
    """Images per second, and bytes of the weights, of an architecture on images of a size; each is measured once."""

    def __init__(self, params: Params, given: dict[str, float], quick: bool):
        self.params, self.given, self.quick = params, given, quick
        self.known: dict[tuple[str, int, int], tuple[float, int]] = {}
        self.precision = devices.precision(params.compute, "cpu" if "" in given else devices.choose())

    def of(self, arch: str, height: int, width: int) -> tuple[float, int]:
        key = (arch, height, width)
        if key not in self.known:
            given = self.given.get(arch, self.given.get(""))
            if given is None:
                print(f"timing {arch} on images of {height}x{width} ...", file=sys.stderr, flush=True)
            self.known[key] = cost.speed(self.params, *key, self.precision, given, shown=True, quick=self.quick)
        return self.known[key]


def _busy(threads: int) -> list[str]:
    """A warning if other processes use the cores; none on a GPU, whose load is not known."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    if devices.choose() != "cpu" or load + threads <= cores + 0.5:
        return []
    return [f"this machine is busy (load {load:.1f} on {cores} cores), so the hours are too high; plan again when idle"]


def _table(costs: dict[grid.Job, Cost]) -> list[str]:
    lines = [f"{'rule':<10} {'jobs':>6} {'passes per image':>17} {'hours':>8} {'MB':>9}"]
    for rule in grid.RULES:
        found = [cost for job, cost in costs.items() if job.rule == rule]
        if found:
            passes, seconds, disk = (sum(column) for column in zip(*found, strict=True))
            lines.append(
                f"{rule:<10} {len(found):>6} {passes / len(found):>17.1f} {seconds / 3600:>8.2f} {disk / 2**20:>9.0f}"
            )
    seconds, disk = sum(cost.seconds for cost in costs.values()), sum(cost.disk for cost in costs.values())
    lines.append(f"{'all':<10} {len(costs):>6} {'':>17} {seconds / 3600:>8.2f} {disk / 2**20:>9.0f}")
    return lines


def _by_poison(costs: dict[grid.Job, Cost]) -> list[str]:
    """Hours of crafting each poison, and of all that is trained on it."""
    rows: dict[str, dict[str, float]] = {}
    for job, own in costs.items():
        name = "/".join(job.argument.split("/")[:2])
        if job.rule == "poison":  # before all that is trained on it
            rows[name] = {"passes": own.passes, "crafting": own.seconds / 3600, "cells": 0, "training": 0.0}
        elif job.rule in ("pretrain", "train", "evaluate") and name in rows:
            rows[name]["cells"] += job.rule == "train"
            rows[name]["training"] += own.seconds / 3600
    width = max([6, *map(len, rows)])
    head = f"{'poison':<{width}} {'passes per image':>17} {'crafting, h':>12} {'cells':>6} {'training, h':>12}"
    return [head] + [
        f"{name:<{width}} {row['passes']:>17.1f} {row['crafting']:>12.2f} {row['cells']:>6} {row['training']:>12.2f}"
        for name, row in rows.items()
    ]


def _request(job: grid.Job, seconds: float, known: dict[str, Size]) -> dict[str, int]:
    """Minutes and megabytes to ask a cluster for.

    Beside its data a job needs what this process needed to train each architecture for a few batches.
    """
    images, height, width = known[_dataset(job)]
    data = COPIES[job.rule] * images * height * width * 3 / 2**20
    minutes = math.ceil(LEAST_MINUTES + MARGIN * seconds / 60)
    return {"runtime": minutes, "mem_mb": math.ceil(MARGIN * (peak_memory_mb() + data) / 100) * 100}


def _cost(params: Params, job: grid.Job, known: dict[str, Size], speeds: _Speeds) -> Cost:
    if job.rule not in _WORK:
        return Cost(0.0, STARTUP_SECONDS, 0.0)
    images, height, width = known[_dataset(job)]
    work = _WORK[job.rule](params, (images, height, width), **grid.parse(job.rule, job.argument))
    if not work.arch or not images:
        return Cost(work.passes, STARTUP_SECONDS, work.disk)
    per_second, weights = speeds.of(work.arch, height, width)
    disk = work.disk if job.rule == "poison" else work.disk + weights
    return Cost(work.passes, STARTUP_SECONDS + work.passes * images / per_second, disk)


def _prepare(params: Params, size: Size, dataset: str) -> Work:
    return Work(0.0, None, math.prod(size) * 3)


def _surrogate(params: Params, size: Size, dataset: str, surrogate: str) -> Work:
    own = params.settings("surrogates", surrogate)
    return Work(own["epochs"] or params.recipe_of(own["arch"])["epochs"], own["arch"], 0.0)


def _poison(params: Params, size: Size, dataset: str, poison: str) -> Work:
    ratio = params.settings("poisons", poison)["ratio"]
    passes = ratio * cost.passes(params, "poisons", poison, max(1, round(ratio * size[0])))
    return Work(passes, params.target_arch(poison), math.prod(size) * 3)


def _purify(params: Params, size: Size, dataset: str, poison: str, purification: str) -> Work:
    return Work(cost.passes(params, "purifications", purification, size[0]), None, math.prod(size) * 3)


def _pretrain(params: Params, size: Size, dataset: str, poison: str, arch: str, pretraining: str, seed: int) -> Work:
    return Work(2 * params.settings("pretraining", pretraining)["epochs"], arch, 0.0)  # two views of each image


def _train(params: Params, size: Size, cell: grid.Cell) -> Work:
    passes = cost.epochs(params, cell.arch, cell.method) * cost.passes_per_step(params, cell.arch, cell.method)
    return Work(passes, cell.arch, 0.0)


_WORK: dict[str, Callable[..., Work]] = {
    "prepare": _prepare,
    "surrogate": _surrogate,
    "poison": _poison,
    "purify": _purify,
    "pretrain": _pretrain,
    "train": _train,
}


def _dataset(job: grid.Job) -> str:
    return job.argument.split("/")[0]
