"""A published checkpoint as the start of training."""

import sys
from collections.abc import Mapping
from typing import Literal

import torch

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import Checksum, GroupCount, InputPath, group_count_error, register
from relearn.training.models import Normalised
from relearn.training.transfer import inside, match_published
from relearn.training.weight_files import read_weights

#: mean and standard deviation of channels in [0, 1] that torchvision's checkpoints of ImageNet were trained with
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NAMED = 3  # tensors that a message names


@register
class Pretrained(ERM):
    """Plain training from the weights in `path`: a state dict of torchvision, of DeiT, or of ours (.pth, .safetensors).

    `sha256` is the SHA-256 of that file, or its first 8 digits or more. The `frozen_groups` shallowest layer groups
    stay as they are, parameters and batch-norm statistics; null lets all learn. What the file lacks for the head, the
    deepest group, is drawn anew, as for another number of classes; for other groups with `partial` alone.
    `normalisation` checkpoint takes mean and std of the file, or ImageNet's where it has none; images, those of the
    training images. Raises UserError for a file that is another one, cannot be read, or does not fit.
    """

    stop_statistics = True

    def __init__(
        self,
        *,
        path: InputPath,
        sha256: Checksum,
        frozen_groups: GroupCount | None = None,
        partial: bool = False,
        normalisation: Literal["checkpoint", "images"] = "checkpoint",
        **augmentation,
    ):
        super().__init__(**augmentation)
        self.path, self.sha256, self.frozen_groups = path, sha256, frozen_groups or 0
        self.partial, self.normalisation = partial, normalisation
        self.found: dict[str, float | str] = {}

    def initialise(
        self, model: Normalised, surrogate: dict[str, torch.Tensor], pretrained: dict[str, torch.Tensor]
    ) -> None:
        """Copy the weights of the file, and say on stderr what it lacks."""
        weights = read_weights(self.path, self.sha256)
        taken, lacking = match_published(model, weights)
        self._check(model, taken, lacking)
        model.load_state_dict(taken, strict=False)
        if self.normalisation == "checkpoint":
            for name, usual in zip(("mean", "std"), IMAGENET, strict=True):
                own, found = getattr(model, name), weights.get(name)
                own.copy_((torch.tensor(usual) if found is None or found.numel() != 3 else found).reshape(own.shape))
        counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
        begun = sum(count for name, count in counts.items() if name in taken)
        self.found = {"parameters_taken": begun, "parameters_drawn": sum(counts.values()) - begun}
        self.found["drawn"] = ", ".join(name.removeprefix("network.") for name in lacking)
        words = f"pretrained: {begun:,} of {sum(counts.values()):,} parameters are those of {self.path}"
        print(f"{words}; drawn anew: {_listed(lacking)}" if lacking else words, file=sys.stderr, flush=True)

    def rates(self, groups: list[str]) -> dict[str, float]:
        """0 for the frozen groups, 1 for the others. Raises UserError when none would learn."""
        if error := group_count_error(self.frozen_groups, groups):
            raise UserError(f"pretrained: frozen_groups {error}")
        return {group: float(k >= self.frozen_groups) for k, group in enumerate(groups)}

    def outcome(self) -> Mapping[str, float | str]:
        """How many parameters began as in the file, how many were drawn, and the names of the latter."""
        return self.found

    def _check(self, model: Normalised, taken: dict[str, torch.Tensor], lacking: dict[str, str]) -> None:
        groups = list(model.layer_groups())
        head = inside(model, groups[-1], lacking)
        others = {name: reason for name, reason in lacking.items() if name not in head}
        if not any(name in taken for name, _ in model.named_parameters()):
            raise UserError(
                f"pretrained: nothing in {self.path} fits the network ({_listed(lacking)}); "
                "give a checkpoint of the same architecture and width"
            )
        if others and not self.partial:
            raise UserError(
                f"pretrained: {self.path} lacks {len(others)} tensors of the network ({_listed(others)}); give a "
                "checkpoint of the same architecture, or set partial: true to begin these at random"
            )
        for group in groups[: self.frozen_groups]:
            if found := inside(model, group, others):
                raise UserError(
                    f"pretrained: frozen_groups: {self.frozen_groups} would freeze '{group}', where the file lacks "
                    f"{len(found)} tensors ({_listed({name: others[name] for name in found})}); let it learn"
                )


def _listed(lacking: Mapping[str, str]) -> str:
    """Some of the tensors, each with what is wrong with it."""
    named = [f"{name.removeprefix('network.')}: {reason}" for name, reason in list(lacking.items())[:NAMED]]
    more = len(lacking) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more else "")
