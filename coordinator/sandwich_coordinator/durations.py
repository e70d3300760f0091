"""Lengths of time in words. Pure."""


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
