"""The control of PST: shallow layers that never learn anything."""

from relearn.methods.erm import ERM
from relearn.registry import PositiveInt, register


@register
class RandomFrozen(ERM):
    """Plain training of the `full_rate_groups` deepest layer groups; the others stay frozen at their random weights."""

    def __init__(self, *, full_rate_groups: PositiveInt = 2, **augmentation):
        super().__init__(**augmentation)
        self.full_rate_groups = full_rate_groups

    def rates(self, groups: list[str]) -> dict[str, float]:
        """0 for the frozen groups, 1 for the others."""
        return {group: float(k >= len(groups) - self.full_rate_groups) for k, group in enumerate(groups)}
