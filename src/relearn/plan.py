"""What a grid will cost before anything runs: cells, passes per image, time on this machine, disk."""

import math

from relearn import cost, estimates, grid
from relearn import device as devices
from relearn.params import Params
from relearn.records import peak_memory_mb
from relearn.seeding import deterministic

STARTUP_SECONDS = 4.0  # of a job: Python, torch and the engine's own part
UNKNOWN_SIZE = (60_000, 32, 32)  # images, height, width assumed of a data set that is not prepared yet
HELD = {
    "surrogate": 3,
    "poison": 12,
    "train": 3,
}  # steps that are estimated, and how many copies of the data set's bytes a job holds at once
MARGIN = 2.0  # what is asked for, over what is expected
LEAST_MINUTES = 10  # and these on top: queues, start, a slower node


def plan(params: Params, write: bool = False) -> str:
    """A table of jobs per step, with passes per image (forward and backward, all of them), hours and megabytes.

    Times come from a few batches of each architecture run here and now, on one job at a time. With `write`, what each
    job is to ask a cluster for is written for Snakemake as well (estimates.py).
    """
    deterministic(params.compute["threads"])
    nodes, cells = grid.nodes(params), grid.cells(params)
    sizes = {dataset: _size(dataset) for dataset in dict.fromkeys(cell.dataset for cell in cells)}
    speeds: dict = {}
    costs = {node: _cost(params, node, sizes, speeds) for node in nodes}
    if write:
        estimates.write(
            params,
            {
                node.command: _request(node, seconds, sizes)
                for node, (_, seconds, _) in costs.items()
                if node.step in HELD
            },
        )
    rows = []
    for step in grid.STEPS:
        items = [cost for node, cost in costs.items() if node.step == step]
        if items:
            passes, seconds, disk = (sum(column) for column in zip(*items))
            rows.append((step, len(items), passes / len(items), seconds / 3600, disk / 2**20))
    lines = [f"{len(cells)} cells, {len(nodes)} jobs on {devices.choose()}"]
    lines.append(f"{'step':<10} {'jobs':>6} {'passes per image':>17} {'hours':>8} {'MB':>9}")
    lines += [
        f"{step:<10} {jobs:>6} {passes:>17.1f} {hours:>8.2f} {disk:>9.0f}" for step, jobs, passes, hours, disk in rows
    ]
    jobs, hours, disk = (sum(row[k] for row in rows) for k in (1, 3, 4))
    lines.append(f"{'all':<10} {jobs:>6} {'':>17} {hours:>8.2f} {disk:>9.0f}")
    lines.append("hours are of one job at a time; divide by the jobs that really run side by side")
    unknown = [dataset for dataset in sizes if not grid.path("prepare", "train", dataset=dataset).exists()]
    if unknown:
        lines.append(f"not prepared yet, taken as {UNKNOWN_SIZE[0]} images of 32x32: {', '.join(unknown)}")
    if write:
        lines.append(
            f"wrote {estimates.FILE}: the time and memory Snakemake asks for, {MARGIN:g} times what jobs are expected to need here"
        )
    return "\n".join(lines)


def _request(node: grid.Node, seconds: float, sizes: dict) -> dict[str, int]:
    """Minutes and megabytes to ask a cluster for: beside its data a job needs what this process did to train each architecture."""
    images, height, width = sizes[grid.coordinates(node.step, node.argument)["dataset"]]
    data = HELD[node.step] * images * height * width * 3 / 2**20
    return {
        "runtime": math.ceil(LEAST_MINUTES + MARGIN * seconds / 60),
        "mem_mb": math.ceil(MARGIN * (peak_memory_mb() + data) / 100) * 100,
    }


def _cost(params: Params, node: grid.Node, sizes: dict, speeds: dict) -> tuple[float, float, float]:
    """Passes per image, seconds and bytes of a node."""
    passes, seconds, disk = _work(params, node, sizes, speeds)
    return passes, STARTUP_SECONDS + seconds, disk


def _work(params: Params, node: grid.Node, sizes: dict, speeds: dict) -> tuple[float, float, float]:
    coords = grid.coordinates(node.step, node.argument)
    images, height, width = sizes.get(coords.get("dataset"), (0, 0, 0))
    pixels = images * height * width * 3
    if node.step == "prepare":
        return 0.0, 0.0, pixels
    if node.step == "surrogate":
        own = params.settings("surrogates", coords["surrogate"])
        passes, arch, disk = own["epochs"] or params.recipe["epochs"], own["arch"], 0.0
    elif node.step == "poison":
        name = coords["poison"]
        arch = cost.attacked(params, name)
        share = params.settings("poisons", name)["ratio"]
        passes, disk = share * cost.passes(params, name, max(1, round(share * images))), pixels
    elif node.step == "train":
        passes, arch, disk = params.recipe["epochs"], coords["arch"], 0.0
    else:
        return 0.0, 0.0, 0.0
    if not arch or not images:
        return passes, 0.0, disk
    if arch not in speeds:
        speeds[arch] = cost.speed(params, arch, height, width)
    per_second, weights = speeds[arch]
    return passes, passes * images / per_second, disk + (weights if node.step != "poison" else 0)


def _size(dataset: str) -> tuple[int, int, int]:
    from safetensors import safe_open

    path = grid.path("prepare", "train", dataset=dataset)
    if not path.exists():
        return UNKNOWN_SIZE
    with safe_open(path, framework="pt") as file:
        return tuple(file.get_slice("images").get_shape()[:3])
