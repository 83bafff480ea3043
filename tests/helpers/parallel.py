"""Training by PST in several processes on one machine, each with a share of every batch."""

import copy
import warnings
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import distributed, nn
from torch.utils.data import TensorDataset

from helpers.training import ALWAYS_TRAPPED, by_limit
from relearn.errors import NotFiniteError
from relearn.probing.verdict import NOT_TRAPPED, TRAPPED, Verdict
from relearn.pst import PST, Contrastive
from relearn.pst.processes import processes_of
from relearn.training import staging

BATCH, STEPS, EPOCHS = 16, 4, 2
STAGES = ALWAYS_TRAPPED | {
    "dense_epochs": 9.0,
    "probe_steps": 3,
    "full_rate_groups": [3],
    "augmented_first": True,
    "plain_first": True,
    "gray": 1.0,  # of all images, so that nothing is drawn
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "probe_size": 40,
}


def network(norm=lambda width: nn.GroupNorm(2, width)) -> nn.Sequential:
    """Four convolutions and a head, by default without batch norm: its statistics are those of each share."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, width in ((3, 4), (4, 4), (4, 8), (8, 8)):
        layers.append(nn.Sequential(nn.Conv2d(before, width, 3, 2, 1), norm(width), nn.ReLU()))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).double()


def images_and_labels() -> TensorDataset:
    """64 images of ten classes, each with a colour of its class."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(64) % 10
    colours = torch.rand(10, 3, 1, 1, generator=generator)
    noise = torch.rand(64, 3, 16, 16, generator=generator)
    return TensorDataset((colours[labels] + noise) / 2, labels)


def parts(pst: PST, rank: int, world: int, micro: int):
    """The batches of the next step in this process: `micro` parts of its share."""
    rows = torch.randperm(64, generator=torch.Generator().manual_seed(pst.training.step))[:BATCH]
    return rows.chunk(world)[rank].chunk(micro)


def train(rank: int = 0, world: int = 1, micro: int = 1, norm=None, **more) -> dict:
    """Train to the end of the last stage; what every process ends with."""
    data, model = images_and_labels(), network(**({"norm": norm} if norm else {}))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, STEPS * EPOCHS)
    wrapped = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    settings = STAGES | {"pretraining": Contrastive(epochs=1, batch=16)} | more
    pst = PST(wrapped, optimizer, data, steps_per_epoch=STEPS, scheduler=scheduler, **settings)
    norms = []
    for _ in pst.epochs(EPOCHS):
        model.train()
        for _ in range(STEPS):
            optimizer.zero_grad()
            for rows in parts(pst, rank, world, micro):
                images, labels = data[rows]
                loss = F.cross_entropy(wrapped(pst.view(images.double())), labels) / micro
                loss.backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
            optimizer.step()
            scheduler.step()
            if pst.step():
                break
    return {"weights": copy.deepcopy(model.state_dict()), "probes": pst.probes, "norms": norms, "stage": pst.stage}


def in_process(rank: int, world: int, folder: str) -> None:
    """Run all tasks as one of `world` processes, and save what they give."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    staging.judge = by_limit
    found = {
        "whole": train(rank, world),
        "micro_batches": train(rank, world, micro=2),
        "asked": what_one_process_may_ask(rank),
        "minds": of_two_minds(rank),
        "errors": errors_of_each(rank),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def of_two_minds(rank: int) -> dict:
    """Each process finds something else; the first sees a trap at steps_taken 3, the second at no time."""
    data, model = images_and_labels(), network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    settings = {**STAGES, "augmented_first": False, "confirm": 1, "kept_trapped": 0.5}
    pst = PST(nn.parallel.DistributedDataParallel(model), optimizer, data, steps_per_epoch=STEPS, **settings)
    staging.judge = lambda found, *limits: Verdict(
        TRAPPED if found.accuracy == 0.25 else NOT_TRAPPED, "as told", 0.5, 0.0
    )
    measure = pst.training.measure
    if rank == 0:
        pst.training.measure = lambda: replace(measure(), accuracy=0.25 if pst.training.steps_taken == 3 else 0.5)
        pst.training.measure, told = measure, pst.training.measure
        pst._processes.agreed = (lambda ask: lambda _: ask(told))(pst._processes.agreed)
    taken = []
    for epoch in pst.epochs(1):
        for _ in range(STEPS):
            pst.step()
            taken.append((epoch, pst.training.step, pst.stage))
            if not pst.in_epoch:
                break
    return {"taken": taken}


def what_one_process_may_ask(rank: int) -> dict:
    """The first alone asks for the verdict, of a network whose batch norm is shared in training; draws differ."""
    wrapped = nn.parallel.DistributedDataParallel(network(nn.BatchNorm2d))
    model = nn.SyncBatchNorm.convert_sync_batchnorm(wrapped.module)  # which DDP would refuse on a CPU
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    settings = STAGES | {"gray": 0.0, "jitter": 0.5, "plain_first": False}
    pst = PST(torch.compile(wrapped), optimizer, images_and_labels(), steps_per_epoch=STEPS, **settings)
    found = pst.measure() if rank == 0 else None
    view = pst.view(images_and_labels().tensors[0][:8])
    return {"hidden": found.hidden_accuracy if found else None, "view": view, "weights": model.state_dict()}


def errors_of_each(rank: int) -> dict:
    """What all processes agree on where the second cannot compute it, and where the first cannot."""
    told: list[str] = []
    processes = processes_of(nn.parallel.DistributedDataParallel(network()))

    def compute(failing: int) -> str:
        if rank == failing:
            raise NotFiniteError(f"not finite in {rank}")
        return f"found in {rank}"

    for failing in (1, 0):
        try:
            told.append(processes.agreed(lambda failing=failing: compute(failing)))
        except NotFiniteError as error:
            told.append(str(error))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alone = processes_of(network())
    return {"told": told, "warned": [str(warning.message) for warning in caught], "alone": not alone.several}
