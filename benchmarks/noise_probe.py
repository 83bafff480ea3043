"""Can a linear classifier tell the class from the perturbation alone?

`python benchmarks/noise_probe.py cifar10_folder lsp pil` reads these poisons and `clean` from results/, so make them
first. For each poison it fits ridge regression on the perturbation of `--train` images, the same ones for all poisons,
and prints the accuracy on the perturbation of `--test` others.
"""

import argparse

import torch
import torch.nn.functional as F

from relearn import grid
from relearn.data import Split, load_split


def accuracy(clean: Split, poisoned: Split, rows: torch.Tensor, train: int) -> float:
    """Held-out accuracy, 0..1, of ridge regression in its dual form; its penalty is 0.01 of the mean squared norm."""
    change = (poisoned.images[rows].float() - clean.images[rows].float()).flatten(1) / 255
    change -= change[:train].mean(0)
    labels = clean.labels[rows]
    products = change @ change[:train].T
    kernel = products[:train] + 0.01 * products[:train].diagonal().mean() * torch.eye(train)
    weights = torch.linalg.solve(kernel, F.one_hot(labels[:train]).float())
    return float(((products[train:] @ weights).argmax(1) == labels[train:]).float().mean())


def main() -> None:
    """Print a row per poison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("poisons", nargs="+")
    for name, default in {"train": 3000, "test": 1000}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()

    def training_set(poison: str) -> Split:
        return load_split(grid.path("poison", "train", dataset=options.dataset, poison=poison))[0]

    clean = training_set("clean")
    rows = torch.randperm(len(clean), generator=torch.Generator().manual_seed(0))[: options.train + options.test]
    for poison in options.poisons:
        found = accuracy(clean, training_set(poison), rows, options.train)
        print(f"| {poison} | {100 * found:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
