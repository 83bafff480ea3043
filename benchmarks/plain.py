"""How the training loop compares with a plain one, written as research code usually is."""

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.options import Options
from benchmarks.runs import images_for, new_run
from benchmarks.timing import head, interleaved, ratios, row, seconds, spread
from relearn.data import Split
from relearn.runtime.torchvision_compat import torchvision
from relearn.training.fit import Run
from relearn.training.models import channel_statistics


def report(options: Options) -> Iterator[str]:
    """A table: CPU time of an image in the plain loop over that in ours."""
    train = images_for(options)
    loops = {name: PlainLoop(architecture, options) for name, architecture in options.small.items()}
    actions: dict[tuple[str, str], Callable[[], object]] = {(name, "plain"): loop for name, loop in loops.items()}
    for name, architecture in options.small.items():
        for precision in options.precisions:
            actions[name, precision] = new_run(architecture, train, options, precision=precision).advance
    try:
        times = interleaved(actions, options.repeats, options.piece)
    finally:
        for loop in loops.values():
            loop.end()
    yield (
        "## A plain loop\n\nDataLoader(num_workers=0) over PIL images, torchvision's transforms, SGD, float32, "
        f"`loss.item()` each step; batches of {options.batch}. A process of its own, which returns freed memory.\n"
    )
    columns = (f"its time over relearn's in {precision}" for precision in options.precisions)
    yield head("architecture", "plain, images/s", *columns)
    for name in options.small:
        plain = times[name, "plain"]
        found = (spread(ratios(plain, times[name, precision])) for precision in options.precisions)
        yield row(name, spread([options.batch / taken for taken in plain]), *found)


class PlainLoop:
    """The plain loop in a process of its own, which hands freed memory back as any program does."""

    def __init__(self, architecture: tuple[str, dict], options: Options):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, architecture, options), daemon=True)
        self.process.start()

    def seconds(self, times: int = 1) -> float:
        """The mean CPU time of so many steps."""
        self.connection.send(times)
        return self.connection.recv()

    def __call__(self) -> None:
        """A step."""
        self.seconds()

    def end(self) -> None:
        """End the process."""
        self.connection.send(0)
        self.process.join()


def _serve(connection: Connection, architecture: tuple[str, dict], options: Options) -> None:
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    train = images_for(options)
    step = plain_step(new_run(architecture, train, options), train)
    while times := connection.recv():
        connection.send(seconds(step, times))


class Images(Dataset):
    """Images and labels as torchvision's own datasets give them: a PIL image at a time, transformed."""

    def __init__(self, train: Split, transform: Callable):
        self.images, self.labels, self.transform = train.images.numpy(), train.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[row])), self.labels[row]


def plain_step(run: Run, train: Split) -> Callable[[], None]:
    """A step of the plain loop, with the network and the recipe of `run`, which is not used otherwise."""
    transforms = torchvision().transforms
    mean, std = (part.tolist() for part in channel_statistics(train.images))
    transform = transforms.Compose(
        [
            transforms.RandomCrop(train.images.shape[1], padding=run.recipe["crop_pad"]),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    loader = DataLoader(Images(train, transform), run.recipe["batch"], shuffle=True, num_workers=0, drop_last=True)
    # without the layout that relearn gives its models
    network: nn.Module = run.training.model.network.to(memory_format=torch.contiguous_format)  # type: ignore
    own = {name: run.recipe[name] for name in ("lr", "momentum", "nesterov", "weight_decay")}
    optimizer = torch.optim.SGD(network.parameters(), **own)
    batches = _forever(loader)
    total = 0.0

    def step() -> None:
        nonlocal total
        x, y = next(batches)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()

    return step


def _forever(loader: DataLoader) -> Iterator:
    while True:
        yield from loader
