"""Does a probe show the trap? By thresholds on ACM; the definitions are ours (docs/pst.md)."""

from relearn.probing.probe_set import ProbeResult


def middle_group(result: ProbeResult) -> str:
    """The layer group that is watched by default: the middle one of those before the head, the shallower of two."""
    groups = list(result.acm)
    return groups[(len(groups) - 2) // 2]


def trapped(result: ProbeResult, watch: str, acm: float = 0.5, ratio: float = 0.85) -> bool:
    """Whether the group `watch` separates the labels by more than `acm`, and `ratio` times as well as the network."""
    return result.acm[watch] > max(acm, ratio * result.accuracy)
