"""What a poison may use while it is crafted: generators, the device, models, progress, and a memory that outlives a kill."""

import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import torch

from relearn import checkpoint, models
from relearn.augment import levels
from relearn.data import Split
from relearn.errors import Fault
from relearn.models import Normalised
from relearn.progress import Progress
from relearn.seeding import Seeds

KEEP_SECONDS = 120  # at most so often is the state of a long poison written


@dataclass
class Craft:
    """The workshop of one poison. `architectures` maps the names of params.yaml to (registered name, settings).

    `earlier` loads the checkpoints of the surrogate before its last, oldest first. `memory` is where the state is kept
    while a poison is made, `identity` a hash of all that it depends on; without a `memory` nothing is kept.
    """

    label: str
    seeds: Seeds
    device: str
    classes: int
    architectures: dict[str, tuple[str, dict]] = field(default_factory=dict)
    surrogate: Normalised | None = None
    earlier: Callable[[], list[Normalised]] = list
    memory: Path | None = None
    identity: str = ""
    _kept: float = field(default_factory=time.monotonic)

    def generator(self, purpose: str, *more) -> torch.Generator:
        """A generator on the CPU, so that draws are the same whatever the device."""
        return self.seeds.generator(purpose, *more)

    def model(self, arch: str, train: Split, generator: torch.Generator) -> Normalised:
        """A fresh model of an architecture of params.yaml, for poisons that train their own."""
        use, settings = self.architectures[arch]
        return models.build(
            use, settings, images=train.images, classes=self.classes, generator=generator, device=self.device
        )

    def trained_surrogate(self) -> Normalised:
        """The surrogate that params.yaml names, in evaluation mode, its weights fixed. Raises Fault without one."""
        if self.surrogate is None:
            raise Fault(f"{self.label} needs a surrogate; give it `surrogate:`, a name of the section `surrogates:`")
        return self.surrogate.eval().requires_grad_(False)

    def ensemble(self, count: int) -> list[Normalised]:
        """`count` checkpoints of the surrogate, evenly spread, the last one included, as `trained_surrogate`. Raises Fault for fewer."""
        found = [*self.earlier(), self.trained_surrogate()]
        if len(found) < count:
            raise Fault(
                f"{self.label} asks for {count} checkpoints of its surrogate, which kept {len(found)}; say `checkpoints: {count}` there"
            )
        chosen = [found[math.ceil(len(found) * k / count) - 1] for k in range(1, count + 1)]
        return [model.eval().requires_grad_(False) for model in chosen]

    def progress(self, total: int, begin: int = 0) -> Progress:
        """A bar (or log lines) over `total` passes, of which a run that was killed did `begin`."""
        return Progress(total, self.label, begin)

    def each(self, train: Split, batch: int, attack: Callable, part: str = "delta") -> torch.Tensor:
        """The perturbation (N, H, W, 3) float32 of all images, found batch by batch; a killed run goes on at its last kept batch.

        `attack` gets images (B, 3, H, W) float32 in 1/255, labels (B,), both on the device, and rows (B,) on the CPU; it
        gives their perturbation, like the images. What it draws may depend on the rows alone, so that a resumed run
        draws the same.
        """
        delta = torch.zeros(train.images.shape)
        saved = self.resume(part)
        begin = saved.get("done", 0)
        if begin:
            delta[:begin] = saved["delta"].cpu()
        with self.progress(len(train), begin) as progress:
            for rows in torch.arange(begin, len(train)).split(batch):
                found = attack(levels(train.images[rows].to(self.device)), train.labels[rows].to(self.device), rows)
                delta[rows] = found.permute(0, 2, 3, 1).cpu()
                done = int(rows[-1]) + 1
                self.keep(part, lambda done=done: {"done": done, "delta": delta[:done]})
                progress.to(done)
        return delta

    def resume(self, part: str) -> dict:
        """The state kept under `part` by a run that was killed, and a line that says so; empty if there is none, or one of other settings."""
        path = self._path(part)
        saved = checkpoint.load(path, self.device) if path is not None and path.exists() else {}
        if saved.get("identity") != self.identity:
            return {}
        print(f"{self.label}: goes on from {path}", file=sys.stderr, flush=True)
        return saved["state"]

    def keep(self, part: str, state: Callable[[], dict], always: bool = False) -> None:
        """Write `state()`, nested dicts and lists of tensors, numbers and texts, if the last time was long enough ago, or `always`."""
        path = self._path(part)
        if path is not None and (always or time.monotonic() - self._kept >= KEEP_SECONDS):
            checkpoint.save(path, {"identity": self.identity, "state": state()})
            self._kept = time.monotonic()

    def forget(self, part: str = "*") -> None:
        """Remove what was kept under `part`, or all."""
        if self.memory is not None:
            for path in self.memory.parent.glob(self._path(part).name):
                path.unlink()

    def _path(self, part: str) -> Path | None:
        return self.memory and self.memory.with_name(f"{self.memory.name}.{part}.safetensors")
