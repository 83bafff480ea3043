"""The control of PST: shallow layers that never learn anything."""

from relearn.errors import UserError
from relearn.methods.erm import ERM
from relearn.registry import GroupCount, group_count_error, register


@register
class RandomFrozen(ERM):
    """Plain training of the `full_rate_groups` deepest layer groups; the others stay frozen at their random weights."""

    def __init__(self, *, full_rate_groups: GroupCount = 2, **augmentation):
        super().__init__(**augmentation)
        self.full_rate_groups = full_rate_groups

    def rates(self, groups: list[str]) -> dict[str, float]:
        """0 for the frozen groups, 1 for the others. Raises UserError when none would be frozen."""
        if error := group_count_error(self.full_rate_groups, groups):
            raise UserError(f"random_frozen: full_rate_groups {error}")
        return {group: float(k >= len(groups) - self.full_rate_groups) for k, group in enumerate(groups)}
