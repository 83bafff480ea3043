"""What PST costs beside plain training, in a loop of one's own, all from one run: `python benchmarks/pst_cost.py`.

Pieces of `--piece` training steps, looks, snapshots and roll-backs take turns, so that all meet the same load of the
machine. The median of each gives the time of an epoch with its looks over that without: while looks are dense, later, and
for a whole training of `--epochs` epochs of `--steps` steps with one roll-back over `--back` steps, which are trained
again. Times are CPU seconds. Every look is taken to leave a snapshot, the dearest case. Random images, 32x32, ten classes.
"""

import argparse
import time
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from relearn.training import models
from relearn.pst import PST

ARCHITECTURES = {"cnn": {}, "resnet18": {"width": 64}}  # with their settings


def training(arch: str, settings: dict, options) -> tuple[PST, object]:
    """PST around the registered architecture, and one training step."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (options.probe, 32, 32, 3), generator=draw, dtype=torch.uint8)
    labels = torch.arange(options.probe) % 10
    model = models.build(arch, settings, images=images, classes=10, generator=draw, device="cpu").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    data = TensorDataset(images.permute(0, 3, 1, 2).float() / 255, labels)
    pst = PST(model, optimizer, data, steps_per_epoch=options.steps, groups=model.layer_groups(), probe=options.probe)
    x, y = data[: options.batch]

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return pst, step


def seconds(action, times: int = 1) -> float:
    """The mean CPU time of `times` calls, which other work on the machine disturbs less than that of a clock."""
    begin = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - begin) / times


def report(arch: str, settings: dict, options) -> None:
    """Measure one architecture and print two lines."""
    pst, step = training(arch, settings, options)

    def look() -> None:
        pst._read = None  # it would be kept until the next step
        pst.measure()

    pst.kept = [pst._snapshot()]  # to go back to
    turn = {
        "step": (step, options.piece),
        "look": (look, 1),
        "snapshot": (pst._snapshot, 1),
        "roll-back": (lambda: pst._restore(pst.kept[0]), 1),
    }
    for action, _ in turn.values():
        action()  # to warm up
    times: dict[str, list[float]] = {name: [] for name in turn}
    for _ in range(options.repeats):
        for name, (action, count) in turn.items():
            times[name].append(seconds(action, count))
    took = {name: median(values) for name, values in times.items()}
    print(
        f"{arch}: "
        + ", ".join(f"{name} {value:.4f} s" for name, value in took.items())
        + f"; a look is {took['look'] / took['step']:.1f} steps",
        flush=True,
    )
    tick, steps = (took["look"] + took["snapshot"]) / took["step"], options.steps * options.epochs
    looks = sum(pst.staging.due(count, options.steps) for count in range(steps + 1))
    once = (took["roll-back"] / took["step"] + options.back) / steps
    dense, later = tick / pst.staging.probe_steps, tick * pst.staging.probes_per_epoch / options.steps
    print(
        f"  epoch over plain epoch: dense {1 + dense:.3f}, later {1 + later:.3f}; whole training, {looks} looks: {1 + looks * tick / steps:.3f}",
        end="",
    )
    print(f", with one roll-back {1 + looks * tick / steps + once:.3f} (n = {options.repeats})")


def main() -> None:
    """Print two lines per architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="*", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    for name, default in {
        "threads": 1,
        "steps": 390,
        "epochs": 60,
        "probe": 2000,
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
