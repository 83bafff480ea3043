"""Which measure of activations shows the trap? Several measures on the same runs of plain training.

`python benchmarks/acm_definitions.py results/poisons/cifar10_folder/{clean,lsp,em,em_classwise,cuda}` trains the small
cnn on each of these poisoned training sets (artifacts of the workflow; the first should be clean). It prints each
measure of one layer group at initialisation, after `--early` steps, and at the end. A measure is useful when it is
clearly higher on every poison than on clean images. All measures use the probe set: 2,000 training images as they are,
no clean data.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from relearn import params
from relearn.data import Split, load_split
from relearn.methods.erm import ERM
from relearn.probing.acm import POSITIONS, acm_score, standardised
from relearn.probing.probe_set import ProbeSet
from relearn.runtime.seeding import Seeds, deterministic
from relearn.training import models
from relearn.training.fit import fit
from relearn.training.state import TrainingState


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
    "ACM: nearest class mean, 4x4 positions": acm_score,
    "nearest class mean, globally pooled": lambda f, y, r: acm_score(pooled_globally(f), y, r),
    "linear probe, 4x4 positions": linear_probe,
    "scatter ratio, 4x4 positions": lambda f, y, r: scatter(f, y),
    "scatter ratio, globally pooled": lambda f, y, r: scatter(pooled_globally(f), y),
    "silhouette, 4x4 positions": lambda f, y, r: silhouette(f, y),
}


class MeasuredERM(ERM):
    """Plain training that records every measure of one layer group at the probes after the given steps."""

    def __init__(self, group: str, probe_after: list[int]):
        super().__init__()
        self.group, self.probe_after = group, probe_after
        self.values: dict[int, dict[str, float]] = {}  # by step, then by the name of the measure

    def should_probe(self, step: int, steps_per_epoch: int) -> bool:
        return step in self.probe_after

    def on_probe(self, training: TrainingState) -> None:
        probe_set = training.probe_set
        outputs = {self.group: training.groups[self.group].output}
        features = probe_set.activations(training.model, self.eval_transform, outputs)[0][self.group]
        self.values[training.step] = {
            name: measure(features, probe_set.labels, probe_set.reference) for name, measure in MEASURES.items()
        }


def measured(train: Split, options: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Train once; the measures by step."""
    recipe = {setting.name: setting.default for setting in params.schema(params.Recipe)} | {"epochs": options.epochs}
    seeds = Seeds("acm_definitions", 0)
    model = models.build(
        "cnn", {"width": 16}, images=train.images, classes=10, generator=seeds.generator("init"), device="cpu"
    )
    last = options.epochs * (len(train) // recipe["batch"])
    method = MeasuredERM(options.group, [0, options.early, last])
    probe_set = ProbeSet.draw(train, 2000, seeds.generator("probe"))
    test = train.pick(torch.arange(100))  # the loop needs a test split; nothing here reads its accuracy
    fit(model, method, train, test, recipe, seeds, probe_set=probe_set, label="erm")
    return method.values


def main() -> None:
    """Print a table with a row per measure and a column per poison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("poisons", nargs="+", type=Path, help="folders that hold a train.safetensors")
    parser.add_argument("--group", default="block2", help="the layer group to measure")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--early", type=int, default=160, help="steps before the second measurement")
    options = parser.parse_args()
    deterministic(1)
    runs = {path.name: measured(load_split(path / "train.safetensors")[0], options) for path in options.poisons}
    print(f"{options.group}, at initialisation / after {options.early} steps / at the end:\n")
    print(f"| measure | {' | '.join(runs)} |\n|---|{'---|' * len(runs)}")
    for name in MEASURES:
        columns = (" / ".join(f"{values[step][name]:.2f}" for step in sorted(values)) for values in runs.values())
        print(f"| {name} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
