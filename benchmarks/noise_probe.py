"""Can a linear map tell the class from the noise alone? `python benchmarks/noise_probe.py cifar10_folder lsp pil`, after these are made.

For each poison a ridge classifier on the published change of `--train` images, drawn once for all, and its accuracy on `--test` others.
"""

import argparse

import torch
import torch.nn.functional as F

from relearn import data, grid


def accuracy(clean: data.Split, poisoned: data.Split, rows: torch.Tensor, train: int) -> float:
    """Held-out accuracy of ridge regression in its dual form; the regulariser is a hundredth of the mean squared norm."""
    change = (poisoned.images[rows].float() - clean.images[rows].float()).flatten(1) / 255
    change -= change[:train].mean(0)
    labels = clean.labels[rows]
    products = change @ change[:train].T
    fitted = products[:train] + 0.01 * products[:train].diagonal().mean() * torch.eye(train)
    weights = torch.linalg.solve(fitted, F.one_hot(labels[:train]).float())
    return float(((products[train:] @ weights).argmax(1) == labels[train:]).float().mean())


def main() -> None:
    """Print a row per poison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("poisons", nargs="+")
    for name, default in {"train": 3000, "test": 1000}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    clean, poisoned = (
        [data.load_split(grid.path("poison", "train", dataset=options.dataset, poison=poison))[0] for poison in names]
        for names in (["clean"], options.poisons)
    )
    rows = torch.randperm(len(clean[0]), generator=torch.Generator().manual_seed(0))[: options.train + options.test]
    for poison, split in zip(options.poisons, poisoned):
        print(f"| {poison} | {100 * accuracy(clean[0], split, rows, options.train):.0f} % |", flush=True)


if __name__ == "__main__":
    main()
