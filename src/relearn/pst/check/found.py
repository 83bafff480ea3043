"""What a check is asked and what it has found so far."""

from dataclasses import dataclass, field

import torch

from relearn.data import Split
from relearn.errors import UserError
from relearn.pst.check.conclusion import Conclusion
from relearn.pst.check.defects import Defects, defects
from relearn.pst.check.inputs import Source, aligned, open_source
from relearn.pst.check.sizing import Sizes, Speed
from relearn.pst.check.trials import Trial
from relearn.pst.check.untrained import Untrained


@dataclass(frozen=True)
class Options:
    """What the command line gives; None for what the check chooses."""

    path: str
    clean: str | None = None
    original: str | None = None
    minutes: float = 10.0
    seed: int = 0
    out: str | None = None
    epochs: int | None = None
    images: int | None = None
    width: int | None = None
    threads: int | None = None


@dataclass
class Found:
    """Everything found, filled step by step; None or empty what the check did not come to.

    `order` are the rows of `source` that may be used, best first, and `data` the images of those that are. The
    `clean_images` are worth `clean_effective` images whose classes have the shares of the held-out ones.
    """

    options: Options
    source: Source
    order: torch.Tensor
    threads: int
    device: str
    precision: str
    conclusion: Conclusion
    data: Split = field(init=False)
    defects: Defects = field(init=False)
    original: Split | None = None
    clean_images: int = 0
    clean_effective: int = 0
    untrained: Untrained | None = None
    sizes: Sizes | None = None
    speed: Speed | None = None
    trials: dict[str, Trial] = field(default_factory=dict)

    def take(self, data: Split) -> None:
        """Use these images, and look at what is wrong with them."""
        self.data = data
        counts = torch.bincount(self.source.labels, minlength=len(self.source.classes))
        self.defects = defects(data, self.source.classes, counts)
        if self.options.original:
            self.original = self._original(self.options.original, data)

    def _original(self, path: str, data: Split) -> Split:
        """The images without perturbation that the user gave for those of `data`."""
        other = open_source(path, size=self.source.size)
        if not torch.equal(aligned(other, self.source.classes, "--original"), self.source.labels):
            raise UserError(
                f"check: --original has other images per class than '{self.options.path}', or in another order; "
                "give the same files without perturbation"
            )
        return other.split(data.index)
