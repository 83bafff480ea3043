"""Random generators derived from coordinates and a purpose, and torch's switches for determinism."""

import hashlib
import os

import torch


def derive(*coordinates) -> int:
    """A seed below 2**63 from any coordinates, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, coordinates)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Seeds:
    """A family of generators under common coordinates, one stream per purpose."""

    def __init__(self, *coordinates):
        self.coordinates = coordinates

    def generator(self, purpose: str, *more, device: str = "cpu") -> torch.Generator:
        """A fresh generator for `purpose` (say "augment", 1200): equal arguments give equal streams."""
        return torch.Generator(device=device).manual_seed(derive(*self.coordinates, purpose, *more))


def deterministic(threads: int) -> None:
    """Fix what else bytes depend on: the number of threads, and deterministic kernels on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    # decaying momentum and dead channels leave denormal numbers, which halve the speed of a CPU
    torch.set_flush_denormal(True)
    # use_deterministic_algorithms would load torch's compiler as well, seconds at every start
    torch.set_deterministic_debug_mode("error")
    # filling takes a fifth of the time, for bytes that nothing reads
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
