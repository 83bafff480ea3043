"""What could tell the trap from activations: several measures on the same runs of plain training.

`python benchmarks/acm_definitions.py results/poisons/cifar10_folder/{clean,lsp,em,em_classwise,cuda}` trains the small cnn
on each of these poisoned training sets (artifacts of the workflow; the first should be clean) and prints, for one layer
group, each measure at initialisation, after `--early` steps and at the end. A measure serves when it is clearly higher on
every poison than on clean images. Everything is measured on the probe set: 2,000 training images as they are, no clean data.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from relearn import params
from relearn.training import models
from relearn.data import Split, load_split
from relearn.training.fit import fit
from relearn.methods.erm import ERM
from relearn.probing.probe_set import POSITIONS, Probe, acm_score, standardised
from relearn.runtime.seeding import Seeds, deterministic


def pooled_globally(features: torch.Tensor) -> torch.Tensor:
    """One value per channel, (N, C), of activations (N, C * positions)."""
    return features.view(len(features), -1, POSITIONS**2).mean(2)


def scatter(features: torch.Tensor, labels: torch.Tensor) -> float:
    """Between-class over total scatter (traces), 0..1, of features (N, D), standardised."""
    features = standardised(features)
    one_hot = F.one_hot(labels).float()
    means = one_hot.T @ features / one_hot.sum(0)[:, None]
    between = means[labels].square().sum(1).mean()
    return float(between / features.square().sum(1).mean())


def silhouette(features: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean silhouette, -1..1, of every second image, standardised."""
    features, labels = standardised(features)[::2], labels[::2]
    one_hot = F.one_hot(labels).float()
    sums, counts = torch.cdist(features, features) @ one_hot, one_hot.sum(0)
    own = sums.gather(1, labels[:, None])[:, 0] / (counts[labels] - 1)
    others = (sums / counts).scatter(1, labels[:, None], float("inf")).amin(1)
    return float(((others - own) / torch.maximum(own, others)).mean())


def linear_probe(features: torch.Tensor, labels: torch.Tensor, reference: torch.Tensor) -> float:
    """Held-out accuracy, 0..1, of ridge regression onto one-hot labels (penalty 0.3 D), fitted in its dual form."""
    features = standardised(features)
    known = features[reference]
    kernel = known @ known.T + 0.3 * known.shape[1] * torch.eye(len(known))
    targets = F.one_hot(labels).float()
    weights = known.T @ torch.linalg.solve(kernel, targets[reference] - targets.mean(0))
    return float(((features[~reference] @ weights).argmax(1) == labels[~reference]).float().mean())


MEASURES = {
    "ACM: suggest class mean, 4x4 positions": acm_score,
    "suggest class mean, globally pooled": lambda f, y, r: acm_score(pooled_globally(f), y, r),
    "linear probe, 4x4 positions": linear_probe,
    "scatter ratio, 4x4 positions": lambda f, y, r: scatter(f, y),
    "scatter ratio, globally pooled": lambda f, y, r: scatter(pooled_globally(f), y),
    "silhouette, 4x4 positions": lambda f, y, r: silhouette(f, y),
}


class Watched(ERM):
    """Plain training that writes down every measure of one layer group at the looks it is told."""

    def __init__(self, group: str, steps: list[int]):
        super().__init__()
        self.group, self.steps = group, steps
        self.found: dict[int, dict[str, float]] = {}

    def probes(self, step: int, steps_per_epoch: int) -> bool:
        return step in self.steps

    def on_probe(self, run) -> None:
        features = run.probe.activations(run.model, self.view)[0][self.group]
        self.found[run.step] = {
            name: measure(features, run.probe.labels, run.probe.reference) for name, measure in MEASURES.items()
        }


def measured(train: Split, options) -> dict[int, dict[str, float]]:
    """The measures by step of one run."""
    recipe = {setting.name: setting.default for setting in params.schema(params.Recipe)} | {"epochs": options.epochs}
    seeds = Seeds("acm_definitions", 0)
    model = models.build(
        "cnn", {"width": 16}, images=train.images, classes=10, generator=seeds.generator("init"), device="cpu"
    )
    last = options.epochs * (len(train) // recipe["batch"])
    method = Watched(options.group, [0, options.early, last])
    probe = Probe.draw(train, 2000, seeds.generator("probe"))
    few = train.pick(torch.arange(100))  # test images play no part here
    fit(model, method, train, few, recipe, seeds, probe=probe, precision="float32", label="erm")
    return method.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("poisons", nargs="+", type=Path)
    parser.add_argument("--group", default="block2")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--early", type=int, default=160)
    options = parser.parse_args()
    deterministic(1)
    runs = {path.name: measured(load_split(path / "train.safetensors")[0], options) for path in options.poisons}
    print(f"{options.group}, at initialisation / after {options.early} steps / at the end:\n")
    print(f"| measure | {' | '.join(runs)} |\n|---|{'---|' * len(runs)}")
    for name in MEASURES:
        print(
            f"| {name} | {' | '.join(' / '.join(f'{found[step][name]:.2f}' for step in sorted(found)) for found in runs.values())} |"
        )


if __name__ == "__main__":
    main()
