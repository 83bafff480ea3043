"""One small training by PST, in a loop of one's own and in the loops of frameworks: the same batches and seeds."""

import copy

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from helpers.compare import stir
from helpers.pst_loop import EAGER, OPTIMIZERS, Net
from relearn.pst import PST, Contrastive

EPOCHS, STEPS, BATCH = 3, 5, 16  # of the 80 images of the fixture `data`
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
#: plain until step 4, then a stage of augmented images, and after 4 steps more one with pretrained groups
SETTINGS = EAGER | {
    "plain_first": True,
    "augmented_first": True,
    "full_rate_groups": [3],
    "gray": 1.0,
    "jitter": 0.3,
    "convolve": 0.5,
    "mean": MEAN,
    "std": STD,
    "probe_size": 40,
}
#: roll-backs in the middle of an epoch, to snapshots that are newer than step 0, are those of the default method
STAGED = {"anew": SETTINGS, "slowed": {**EAGER, "rate": 0.5, "full_rate_groups": [4, 3], "probe_size": 40}}


def settings_of(name: str) -> dict:
    """Those of `STAGED`; a pretraining is an object of each run's own."""
    pretraining = {"pretraining": Contrastive(epochs=1, batch=16)} if name == "anew" else {}
    return STAGED[name] | pretraining


def normalised(data: TensorDataset) -> TensorDataset:
    """The images as a user's transform leaves them."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return TensorDataset((data.tensors[0] - mean) / std, data.tensors[1])


def loader_of(data, batch: int = BATCH, **how) -> DataLoader:
    """Batches in the order of the images, so that no loop can draw others."""
    return DataLoader(data, batch, shuffle=False, **how)


def network() -> Net:
    """The same weights every time; without dropout, whose draws frameworks may shift."""
    stir(0)
    model = Net()
    model.drop.p = 0.0
    return model


def made(model: torch.nn.Module, optimizer: str = "sgd", steps: int = EPOCHS * STEPS):
    """Optimizer and scheduler (by step) of the runs that are compared."""
    made = OPTIMIZERS[optimizer](model.parameters())
    return made, torch.optim.lr_scheduler.OneCycleLR(made, 0.1, steps)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of parameters and buffers; Net counts its calls, which are more where probes are."""
    return copy.deepcopy(model.state_dict())


def by_hand(data, settings: dict, micro: int = 1, clip: float = 0.0) -> tuple[PST, dict]:
    """The library in a plain loop, with gradients accumulated over `micro` parts of each batch."""
    data, model = normalised(data), network()
    optimizer, scheduler = made(model)
    pst = PST(model, optimizer, data, steps_per_epoch=STEPS, scheduler=scheduler, **settings)
    for _ in pst.epochs(EPOCHS):
        model.train()
        for number, (images, labels) in enumerate(loader_of(data, BATCH // micro), 1):
            loss = F.cross_entropy(model(pst.view(images)), labels) / micro
            loss.backward()
            if number % micro:
                continue
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            if pst.step():
                break
    return pst, weights(model)
