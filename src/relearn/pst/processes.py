"""Data-parallel training in several processes: all of them take the decisions of the first."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import distributed, nn

from relearn.errors import UserError

Found = TypeVar("Found")
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


class Processes:
    """The processes among which DistributedDataParallel shares the batches of a model; each holds the same weights.

    `rank` is the number of this one among them. Without `group` there is one process, which asks nobody.
    """

    def __init__(self, group: "distributed.ProcessGroup | None" = None, device: torch.device | None = None):
        self.group, self.device = group, device
        self.rank = 0 if group is None else distributed.get_rank(group)

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return self.group is not None

    def agreed(self, compute: Callable[[], Found]) -> Found:
        """What `compute` gives in the first process, or the UserError it raises there; all of them must call this.

        Each computes it, so that none waits longer than the others. They may differ in batch-norm statistics, which
        DistributedDataParallel takes from the first only when the next batch comes.
        """
        if not self.several:
            return compute()
        found: list = []
        try:
            found.append(compute())
        except UserError as error:
            found.append(error)
        distributed.broadcast_object_list(found, self._first, self.group, self.device)
        if isinstance(found[0], UserError):
            raise found[0]
        return found[0]

    def copy_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite `tensors` with those of the first process."""
        for tensor in tensors if self.several else ():
            distributed.broadcast(tensor, self._first, self.group)

    @property
    def _first(self) -> int:
        return 0 if self.group is None else distributed.get_global_rank(self.group, 0)


def wrappers(model: nn.Module) -> Iterator[nn.Module]:
    """`model`, the module in it if torch.compile or data-parallel training wrapped it, and so on to the bare one."""
    yield model
    while (compiled := hasattr(model, "_orig_mod")) or isinstance(model, PARALLEL):
        model = model.get_submodule("_orig_mod" if compiled else "module")
        yield model


def processes_of(model: nn.Module) -> Processes:
    """The processes of a model that may be wrapped in DistributedDataParallel.

    Warns when there are several, and the model is not wrapped: each would decide for itself.
    """
    for module in wrappers(model):
        if isinstance(module, nn.parallel.DistributedDataParallel):
            group = module.process_group
            if distributed.get_world_size(group) > 1:
                return Processes(group, next(module.parameters()).device)
            return Processes()
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        warnings.warn(
            f"pst: there are {distributed.get_world_size()} processes, and this model is trained in one; "
            "where they share its batches, give PST the model that DistributedDataParallel wrapped",
            stacklevel=3,
        )
    return Processes()
