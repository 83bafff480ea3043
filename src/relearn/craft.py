"""What a poison may use while it is crafted: generators, the device, models, progress."""

from dataclasses import dataclass, field

import torch

from relearn import models
from relearn.data import Split
from relearn.errors import Fault
from relearn.models import Normalised
from relearn.progress import Progress
from relearn.seeding import Seeds


@dataclass
class Craft:
    """The workshop of one poison. `architectures` maps the names of params.yaml to (registered name, settings)."""

    label: str
    seeds: Seeds
    device: str
    classes: int
    architectures: dict[str, tuple[str, dict]] = field(default_factory=dict)
    surrogate: Normalised | None = None

    def generator(self, purpose: str, *more) -> torch.Generator:
        """A generator on the CPU, so that draws are the same whatever the device."""
        return self.seeds.generator(purpose, *more)

    def model(self, arch: str, train: Split, generator: torch.Generator) -> Normalised:
        """A fresh model of an architecture of params.yaml, for poisons that train their own."""
        use, settings = self.architectures[arch]
        return models.build(use, settings, images=train.images, classes=self.classes, generator=generator, device=self.device)

    def trained_surrogate(self) -> Normalised:
        """The surrogate that params.yaml names, in evaluation mode, its weights fixed. Raises Fault without one."""
        if self.surrogate is None:
            raise Fault(f"{self.label} needs a surrogate; give it `surrogate:`, a name of the section `surrogates:`")
        return self.surrogate.eval().requires_grad_(False)

    def progress(self, total: int) -> Progress:
        """A bar (or log lines) over `total` passes."""
        return Progress(total, self.label)
