"""What all parts of the report are told: sizes, and the architectures that they measure."""

from dataclasses import dataclass, field
from functools import cache

from relearn.runtime import cpu

#: as the report calls it -> registered name, settings
Architectures = dict[str, tuple[str, dict]]
SMALL: Architectures = {name + " w16": (name, {"width": 16}) for name in ("cnn", "speednet", "resnet18")}
LARGE: Architectures = {"speednet w32": ("speednet", {"width": 32}), "resnet18 w64": ("resnet18", {"width": 64})}


@dataclass(frozen=True)
class Options:
    """Sizes of the measurements; the defaults give a report in a few minutes.

    `repeats` is the number of rounds, in each of which all that is compared takes turns, in pieces of `piece` seconds.
    The training part measures `small` and `large` architectures, the others `small` ones. `growth` lists (images,
    classes, side), the first of which the others are compared with.
    """

    threads: int = 1
    repeats: int = 5
    batch: int = 128
    device: str = "cpu"
    piece: float = 0.2
    images: int = 4096
    matrix: int = 2048
    probe_size: int = 2000
    attacked: int = 128
    attack: dict = field(default_factory=lambda: {"batch": 64})  # settings of all poisons that attack a model
    images_in_memory: int = 50_000
    streamed: tuple[int, int] = (2048, 224)  # images and their side
    streamed_batch: int = 32
    streamed_network: tuple[str, dict] = ("cnn", {"width": 16})
    cells: tuple[int, ...] = (10, 100, 1000)
    small: Architectures = field(default_factory=lambda: SMALL)
    large: Architectures = field(default_factory=lambda: LARGE)
    growth: tuple[tuple[int, int, int], ...] = (
        (5_000, 10, 32),
        (20_000, 10, 32),
        (50_000, 10, 32),
        (5_000, 100, 32),
        (5_000, 10, 64),
    )

    @property
    def precisions(self) -> tuple[str, ...]:
        """float32, and bfloat16 where the device has it."""
        return ("float32", "bfloat16") if self.device != "cpu" or _bfloat16() else ("float32",)


@cache  # it says on standard error what the processor lacks: once is enough
def _bfloat16() -> bool:
    return cpu.usable_precision("bfloat16", "native") == "bfloat16"
