"""What PST costs compared with plain training, in a training loop of your own: `python benchmarks/pst_cost.py`.

Training steps (in pieces of `--piece`), probes, snapshots and roll-backs take turns, so that all meet the same load of
the machine. From the median of each follow three ratios, each the time with PST over the time without: of an epoch
while probes are dense, of a later epoch, and of a whole training of `--epochs` epochs of `--steps` steps, also with one
roll-back over `--back` steps, which are then trained again. Times are CPU seconds. Every probe is assumed to take a
snapshot, the most expensive case. Random images, 32x32, ten classes.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from relearn.pst import PST
from relearn.training import models

ARCHITECTURES = {"cnn": {}, "resnet18": {"width": 64}}  # with their settings


def new_training(arch: str, settings: dict, options: argparse.Namespace) -> tuple[PST, Callable[[], None]]:
    """PST around a registered architecture, and one training step."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (options.probe_size, 32, 32, 3), generator=generator, dtype=torch.uint8)
    labels = torch.arange(options.probe_size) % 10
    model = models.build(arch, settings, images=images, classes=10, generator=generator, device="cpu").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    data = TensorDataset(images.permute(0, 3, 1, 2).float() / 255, labels)
    pst = PST(
        model,
        optimizer,
        data,
        steps_per_epoch=options.steps,
        groups=model.layer_groups(),
        probe_size=options.probe_size,
    )
    x, y = data[: options.batch]

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return pst, step


def cpu_seconds(action: Callable[[], object], times: int = 1) -> float:
    """The mean CPU time of `times` calls; other work on the machine disturbs it less than wall time."""
    begin = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - begin) / times


def report(arch: str, settings: dict, options: argparse.Namespace) -> None:
    """Measure one architecture and print two lines."""
    pst, step = new_training(arch, settings, options)
    training, staging = pst.training, pst.staging

    def probe() -> None:
        training.forget_measurement()  # else it would return the last result
        pst.measure()

    step()
    snapshot = training.snapshot()  # after a step, so that it has the optimizer's momentum
    actions = {
        "step": (step, options.piece),
        "probe": (probe, 1),
        "snapshot": (training.snapshot, 1),
        "roll-back": (lambda: training.restore(snapshot), 1),
    }
    for action, _ in actions.values():
        action()  # to warm up
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(options.repeats):
        for name, (action, count) in actions.items():
            times[name].append(cpu_seconds(action, count))
    cost = {name: median(values) for name, values in times.items()}
    costs = ", ".join(f"{name} {value:.4f} s" for name, value in cost.items())
    print(f"{arch}: {costs}; a probe costs {cost['probe'] / cost['step']:.1f} steps", flush=True)
    steps = options.steps * options.epochs
    probes = sum(staging.should_probe(count, options.steps) for count in range(steps + 1))
    in_steps = (cost["probe"] + cost["snapshot"]) / cost["step"]  # what a probe with its snapshot costs
    dense, later = in_steps / staging.probe_steps, in_steps * staging.probes_per_epoch / options.steps
    whole, rollback = probes * in_steps / steps, (cost["roll-back"] / cost["step"] + options.back) / steps
    print(
        f"  epoch over plain epoch: dense {1 + dense:.3f}, later {1 + later:.3f}; "
        f"whole training, {probes} probes: {1 + whole:.3f}, with one roll-back {1 + whole + rollback:.3f} "
        f"(n = {options.repeats})"
    )


def main() -> None:
    """Print two lines per architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="*", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    for name, default in {
        "threads": 1,
        "steps": 390,
        "epochs": 60,
        "probe-size": 2000,
        "batch": 128,
        "piece": 4,
        "repeats": 5,
        "back": 60,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for arch in options.arch:
        report(arch, ARCHITECTURES[arch], options)


if __name__ == "__main__":
    main()
