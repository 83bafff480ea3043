"""What the code of docs/recipes.md takes for granted, at a size for tests; every probe after step 0 shows a trap."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, TensorDataset

from helpers.projects import ROOT
from relearn.probing.verdict import TRAPPED, Verdict
from relearn.runtime.torchvision_compat import torchvision
from relearn.training import staging

PAGE = ROOT / "docs" / "recipes.md"


class Items(Dataset):
    """The same images, as mappings."""

    def __init__(self, data: TensorDataset):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> dict:
        image, label = self.data[row]
        return {"pixel_values": image, "labels": int(label)}


def blocks() -> dict[str, str]:
    """The code of the page by the heading it stands under, after the settings that all share, for few images."""
    found = {}
    for section in PAGE.read_text().split("\n## "):
        for block in section.split("```python\n")[1:]:
            heading = section.splitlines()[0]
            assert heading not in found, f"two blocks under {heading}"
            found[heading] = block.split("```")[0]
    shared = found.pop("# PST in common training loops")
    small = {"Contrastive(batch=128)": "Contrastive(batch=16, epochs=1)"}
    for written, run in small.items():
        assert written in shared
        shared = shared.replace(written, run)
    shared += 'settings |= {"probe_size": 40, "probe_steps": 2, "confirm": 1}\n'
    return {heading: shared + block for heading, block in found.items()}


def given() -> dict:
    """The names that the page does not define."""
    torchvision()  # where `import torchvision` alone fails, beside a CPU build of torch
    torch.manual_seed(0)
    staging.judge = lambda *_: Verdict(TRAPPED, "always", 0.0, 0.0)
    labels = torch.arange(80) % 10
    data = TensorDataset((torch.rand(80, 3, 32, 32) + labels.view(-1, 1, 1, 1) / 9) / 2 - 0.5, labels)
    convolutions = [
        nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in ((3, 4), (4, 4), (4, 8), (8, 8))
    ]
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    names = {"model": model, "train": data, "plain": data, "train_items": Items(data), "plain_items": Items(data)}
    names |= {"mean": [0.5] * 3, "std": [1.0] * 3, "epochs": 2, "batch": 16, "torch": torch, "F": F}
    loading = {"DataLoader": DataLoader, "DistributedSampler": DistributedSampler}
    return names | loading | {"DistributedDataParallel": DistributedDataParallel}
