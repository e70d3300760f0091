"""Lengths of time in words. Pure."""

CLOCKS_MAY_DIFFER_S = 30.0
"""More than answers take, and than NTP leaves."""


def clock_difference(theirs: float, ours: float) -> str:
    """How another machine's clock differs from ours (Unix seconds), such as "1h 0m ahead of"; "": little."""
    if abs(theirs - ours) <= CLOCKS_MAY_DIFFER_S:
        return ""
    return f"{duration(round(abs(theirs - ours)))} {'ahead of' if theirs > ours else 'behind'}"


def duration(seconds: float) -> str:
    """Two units at most: 59s, 12m, 3h 20m, 4d 2h."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left}s"
    if left < 3600:
        return f"{left // 60}m"
    if left < 86_400:
        return f"{left // 3600}h {left % 3600 // 60}m"
    return f"{left // 86_400}d {left % 86_400 // 3600}h"
