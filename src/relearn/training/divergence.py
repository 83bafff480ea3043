"""Stops a job at the first loss or gradient that is not finite, without waiting for the device at every step."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from relearn.errors import NotFiniteError

EVERY = 100  # steps between two readings from a GPU
AT_ONCE = ("cpu",)  # devices that are read at every step, since that costs nothing


class DivergedError(NotFiniteError):
    """Training or crafting has left the finite numbers, so nothing of it may be written."""


class FiniteGuard:
    """Remembers on the device whether what each step computed was finite, and reads that seldom.

    On a CPU reading costs nothing, so there the first bad step raises. On a GPU it raises up to `EVERY` steps later,
    and names the same step. `check` reads what is left; call it before anything is written.
    """

    def __init__(self, label: str, remedy: str):
        self.label, self.remedy = label, remedy
        self._finite: list[torch.Tensor] = []
        self._places: list[tuple[str, str]] = []

    def note(self, values: torch.Tensor, what: str, place: str) -> None:
        """Note `what` (such as "loss") with its `values`, computed at `place` (such as "step 3 of 9, rate 0.1").

        Raises DivergedError, of this step or an earlier one, when the device has been read and values were not finite.
        """
        self._finite.append(values.detach().isfinite().all())
        self._places.append((what, place))
        if values.device.type in AT_ONCE or len(self._finite) >= EVERY:
            self.check()

    def check(self) -> None:
        """Read all that was noted. Raises DivergedError that names the first step whose values were not finite."""
        noted, places = self._finite, self._places
        if not noted:
            return
        self._finite, self._places = [], []
        found = torch.stack(noted).tolist()
        if not all(found):
            what, place = places[found.index(False)]
            raise self.error(f"the {what} is not finite at {place}")

    def check_number(self, value: float, what: str, place: str) -> None:
        """Raises DivergedError unless a number that is on the CPU anyway is finite."""
        if not math.isfinite(value):
            self.check()  # an earlier step says more
            raise self.error(f"the {what} is not finite at {place}")

    def check_weights(self, model: torch.nn.Module, place: str) -> None:
        """Raises DivergedError unless all parameters and buffers of `model` are finite, and all that was noted."""
        self.check()
        for name, tensor in model.state_dict().items():
            if not tensor.isfinite().all():
                raise self.error(f"the weights are not finite at {place} ('{name}')")

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """A block that measures a network after `place`: what it finds not finite becomes a DivergedError."""
        self.check()
        try:
            yield
        except NotFiniteError as error:
            raise error if isinstance(error, DivergedError) else self.error(f"after {place}, {error}") from None

    def error(self, found: str) -> DivergedError:
        """The error that says what was found, and what to do."""
        return DivergedError(f"{self.label}: {found}; nothing was written: {self.remedy}")
