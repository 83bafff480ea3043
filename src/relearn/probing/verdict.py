"""Is a network trapped? By the accuracy that it keeps when perturbations are hidden; the definitions are ours.

The answer depends neither on the number of classes nor on the depth of the network, and says when it cannot tell
(docs/pst.md, with its rates of error).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # tables name the answers without torch
    from relearn.probing.probe_set import ProbeResult

KEPT = 0.5  #: a network that keeps a smaller share of its accuracy above chance is trapped
CLUSTERED = 0.8  #: from this ACM of the middle layer group on ...
KEPT_CLUSTERED = 0.7  #: ... a network that keeps a smaller share than this is trapped
LEARNED = 0.2  #: with less accuracy above chance than this share of the possible, there is nothing to judge
DEVIATIONS = 2  #: how many standard errors between an answer and the limit

TRAPPED, NOT_TRAPPED, CANNOT_TELL = ANSWERS = ("trapped", "not trapped", "cannot tell")


@dataclass(frozen=True)
class Verdict:
    """One of `ANSWERS`, and why; `kept` is the share of the accuracy above chance that is kept, with standard `error`.

    `kept` and `error` are None where the network has not learned enough to form a share.
    """

    answer: str
    reason: str
    kept: float | None = None
    error: float | None = None

    def __str__(self) -> str:
        """The answer and why."""
        return f"{self.answer} ({self.reason})"


def judge(result: "ProbeResult", limit: float = KEPT, clustered_limit: float = KEPT_CLUSTERED) -> Verdict:
    """Whether a network with this probe is trapped: whether it keeps less than `limit` in the view that hides.

    With accuracy a on the probe set, h on the same images in the view, and chance c, the share kept is
    (h - c) / (a - c). Two standard errors decide between the answers. Where the activations of the middle layer group
    are clustered by class as they are on a perturbation (ACM of `CLUSTERED` or more), the limit is `clustered_limit` if
    that is larger: the view hides such a perturbation in part.
    """
    if is_clustered(result):
        limit = max(limit, clustered_limit)
    chance, images = result.chance, result.images
    if chance >= 1:
        return Verdict(CANNOT_TELL, "all probe images are of one class")
    learned = (result.accuracy - chance) / (1 - chance)
    if learned < LEARNED:
        found = f"accuracy on training images {100 * result.accuracy:.1f} %, chance {100 * chance:.1f} %"
        return Verdict(CANNOT_TELL, f"not yet learned: {found}")
    kept = (result.hidden_accuracy - chance) / (result.accuracy - chance)
    spread = _error(result.hidden_accuracy, images) + abs(kept) * _error(result.accuracy, images)
    error = spread / (result.accuracy - chance)
    found = f"keeps {kept:.2f} ± {DEVIATIONS * error:.2f} of its accuracy with perturbations hidden, limit {limit:g}"
    if kept + DEVIATIONS * error < limit:
        return Verdict(TRAPPED, found, kept, error)
    if kept - DEVIATIONS * error > limit:
        return Verdict(NOT_TRAPPED, found, kept, error)
    return Verdict(CANNOT_TELL, f"too few probe images ({images}): {found}", kept, error)


def is_clustered(result: "ProbeResult") -> bool:
    """Whether ACM of the middle layer group is at least `CLUSTERED`, as it seldom is without a perturbation."""
    return bool(result.acm) and result.acm[middle_group(result)] >= CLUSTERED


def middle_group(result: "ProbeResult") -> str:
    """The group whose ACM stands for the network: the middle one of those before the head, the shallower of two."""
    groups = list(result.acm)
    return groups[max(0, len(groups) - 2) // 2]


def _error(accuracy: float, images: int) -> float:
    """The standard error of an accuracy on so many images; two successes and two failures more keep it above 0."""
    share = (accuracy * images + 2) / (images + 4)
    return math.sqrt(share * (1 - share) / (images + 4))
