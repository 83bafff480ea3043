"""The control of PST: shallow layers that never learn anything."""

from relearn.methods.erm import ERM
from relearn.registry import PositiveInt, register


@register
class RandomFrozen(ERM):
    """Plain training of the `keep` deepest layer groups; all shallower ones stay frozen at their random initialisation."""

    def __init__(self, *, keep: PositiveInt = 2, **augmentation):
        super().__init__(**augmentation)
        self.keep = keep

    def rates(self, groups: list[str]) -> dict[str, float]:
        return {group: float(k >= len(groups) - self.keep) for k, group in enumerate(groups)}
