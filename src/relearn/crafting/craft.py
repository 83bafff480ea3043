"""What a poison may use while it is crafted: generators, the device, models, progress, and checkpoints."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from relearn.data import Split, levels
from relearn.errors import UserError
from relearn.runtime import memory, structures
from relearn.runtime.progress import ProgressBar
from relearn.runtime.seeding import Seeds
from relearn.training import checkpoint, models
from relearn.training.divergence import FiniteGuard
from relearn.training.models import Normalised

CHECKPOINT_SECONDS = 120  # the state of a long poison is written at most so often

#: images (B, 3, H, W) float32 in 1/255, labels (B,), rows (B,) on the CPU -> their perturbation, like the images
Attack = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class CraftContext:
    """The context of one poison. `architectures` maps the names of params.yaml to (registered name, settings).

    Models compute in `precision`, "float32" or "bfloat16". `whole` is the training set, of which a poison with a
    `ratio` gets a share; None if it gets all. `mixed` are those same images as the poisons that the settings name have
    left them, by name. `load_earlier` loads the checkpoints of the surrogate before its last,
    oldest first. Checkpoints of the poison go to files whose names begin with `checkpoint_path`, under `settings_hash`,
    a hash of all that it depends on; without a path there are none.
    """

    label: str
    seeds: Seeds
    device: str
    classes: int
    architectures: dict[str, tuple[str, dict]] = field(default_factory=dict)
    precision: str = "float32"
    whole: Split | None = None
    mixed: dict[str, Split] = field(default_factory=dict)
    surrogate: Normalised | None = None
    load_earlier: Callable[[], list[Normalised]] = list
    checkpoint_path: Path | None = None
    settings_hash: str = ""
    _saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self):
        #: what a poison computes must be finite: note the loss of every step of training on it
        self.guard = FiniteGuard(self.label, "give smaller rates or steps to this poison")

    def generator(self, purpose: str, *more, device: str = "cpu") -> torch.Generator:
        """A generator on the CPU, so that draws are the same whatever the device; on `device` for views of a batch."""
        return self.seeds.generator(purpose, *more, device=device)

    def model(self, arch: str, train: Split, generator: torch.Generator) -> Normalised:
        """A fresh model of an architecture of params.yaml, for poisons that train their own."""
        use, settings = self.architectures[arch]
        return models.build(
            use,
            settings,
            images=train.images,
            classes=self.classes,
            generator=generator,
            device=self.device,
            precision=self.precision,
        )

    def trained_surrogate(self) -> Normalised:
        """The surrogate that params.yaml names, in evaluation mode, its weights fixed. Raises UserError without one."""
        if self.surrogate is None:
            raise UserError(f"{self.label} needs a surrogate; set `surrogate:` to a name of the section `surrogates:`")
        return self.surrogate.eval().requires_grad_(False)

    def ensemble(self, count: int) -> list[Normalised]:
        """`count` checkpoints of the surrogate, evenly spaced, the last one included, as `trained_surrogate`.

        Raises UserError when the surrogate has fewer.
        """
        found = [*self.load_earlier(), self.trained_surrogate()]
        if len(found) < count:
            raise UserError(
                f"{self.label} needs {count} checkpoints of its surrogate, which has {len(found)}; "
                f"set `checkpoints: {count}` there"
            )
        chosen = [found[math.ceil(len(found) * k / count) - 1] for k in range(1, count + 1)]
        return [model.eval().requires_grad_(False) for model in chosen]

    def progress(self, total: int, initial: int = 0) -> ProgressBar:
        """A bar (or log lines) over `total` passes, of which a run that was killed did `initial`."""
        return ProgressBar(total, self.label, initial)

    def check_memory(self, train: Split, copies: int, device: str) -> None:
        """Raises UserError when `copies` of the images as float32 are more than the memory of `device` holds.

        Training streams images from their file; crafting does not.
        """
        height, width = train.images.shape[1:3]
        what = f"{self.label}: noise for {len(train)} images of {height}x{width}, which crafting holds at once,"
        memory.check(4 * copies * train.images.numel(), what, "give fewer or smaller images", device)

    def on_device(self, train: Split) -> tuple[torch.Tensor, torch.Tensor]:
        """All images (N, 3, H, W) float32 in 1/255 and their labels, on the device, if their noise fits there too."""
        self.check_memory(train, 2, self.device)
        return levels(train.images.to(self.device)), train.labels.to(self.device)

    def map_batches(self, train: Split, batch: int, attack: Attack, part: str = "delta") -> torch.Tensor:
        """The perturbation (N, H, W, 3) float32 of all images, found batch by batch; a killed run resumes.

        What `attack` draws may depend on the rows alone, so that a resumed run draws the same.
        """
        self.check_memory(train, 1, "cpu")
        delta = torch.zeros(train.images.shape)
        saved = self.load_checkpoint(part)
        begin = saved.get("done", 0)
        if begin:
            delta[:begin] = saved["delta"].cpu()
        with self.progress(len(train), begin) as progress:
            # no batch is left to a run that was killed after its last one, where split gives an empty tensor
            for rows in torch.arange(begin, len(train)).split(batch) if begin < len(train) else ():
                found = attack(levels(train.images[rows].to(self.device)), train.labels[rows].to(self.device), rows)
                delta[rows] = found.permute(0, 2, 3, 1).cpu()
                self.guard.check()
                done = int(rows[-1]) + 1
                self.save_checkpoint(part, lambda done=done: {"done": done, "delta": delta[:done]})
                progress.advance_to(done)
        return delta

    def load_checkpoint(self, part: str) -> dict:
        """The state that a killed run saved under `part`; empty if there is none, or one of other settings."""
        path = self._path(part)
        if path is None or not path.exists():
            return {}
        saved = checkpoint.load(path, self.device)
        if saved.get("settings_hash") != self.settings_hash:
            return {}
        print(f"{self.label}: resuming from {path}", file=sys.stderr, flush=True)
        return _State(structures.checked(path, saved, {"state": structures.MAPPING})["state"], path)

    def save_checkpoint(self, part: str, state: Callable[..., dict], always: bool = False) -> None:
        """Write `state()` under `part` if the last time was long enough ago, or `always`.

        The state is nested dicts and lists of tensors, numbers and texts. Raises DivergedError instead when a step so
        far was not finite.
        """
        path = self._path(part)
        if path is not None and (always or time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS):
            self.guard.check()
            checkpoint.save(path, {"settings_hash": self.settings_hash, "state": state()})
            self._saved_at = time.monotonic()

    def delete_checkpoint(self, part: str = "*") -> None:
        """Remove what was saved under `part`, or all."""
        pattern = self._path(part)
        if pattern is not None:
            for path in pattern.parent.glob(pattern.name):
                path.unlink()

    def _path(self, part: str) -> Path | None:
        if self.checkpoint_path is None:
            return None
        return self.checkpoint_path.with_name(f"{self.checkpoint_path.name}.{part}.safetensors")


class _State(dict):
    """What a checkpoint holds; a part that is not there is the fault of the file."""

    def __init__(self, state: dict, path: Path):
        super().__init__(state)
        self.path = path

    def __missing__(self, key: str):
        raise UserError(f"{self.path} holds another state than this job's (no {key}); delete it and run again")
