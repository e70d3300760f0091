"""The shipped alert rules with shorter durations, so that a drill takes seconds. Pure.

What is divided: `for`, ranges such as `[5m]`, and offsets. Expressions, thresholds and labels stay as they are shipped.
"""

import re
from collections.abc import Mapping
from typing import Any

UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = r"(?:\d+(?:ms|[smhdw]))+"
_PLACE = re.compile(rf"(\[|\boffset\s+)({_DURATION})\b")
_PART = re.compile(r"(\d+)(ms|[smhdw])")


def milliseconds(duration: str) -> int:
    """A duration of Prometheus, such as `1h30m`. Raises ValueError."""
    if not re.fullmatch(_DURATION, duration):
        raise ValueError(f"{duration!r} is no duration of Prometheus")
    return sum(int(number) * UNITS_MS[unit] for number, unit in _PART.findall(duration))


def shorter(duration: str, factor: float) -> str:
    """The duration divided by `factor`, at least a millisecond."""
    return f"{max(1, round(milliseconds(duration) / factor))}ms"


def shortened_query(query: str, factor: float) -> str:
    """The query with all its ranges and offsets divided by `factor`."""
    return _PLACE.sub(lambda found: found[1] + shorter(found[2], factor), query)


def shape(query: str) -> str:
    """The query without its durations: equal for a query and the shortened one."""
    return _PLACE.sub(r"\1_", query)


def durations(query: str) -> list[str]:
    """The query's ranges and offsets, in order."""
    return [found[1] for found in _PLACE.findall(query)]


def shortened(rules: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """A rule file's content with all durations divided by `factor`."""
    return {
        **rules,
        "groups": [{**group, "rules": [_rule(rule, factor) for rule in group["rules"]]} for group in rules["groups"]],
    }


def _rule(rule: Mapping[str, Any], factor: float) -> dict[str, Any]:
    found = {**rule, "expr": shortened_query(rule["expr"], factor)}
    if "for" in rule:
        found["for"] = shorter(rule["for"], factor)
    return found
