"""What `sandwich cluster status --json` says. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Status:
    """Its exit code, and what this check looks at.

    problems   codes of what degrades the cluster: notices are left out
    nodes      a row for each registered node
    live       live shards by application
    """

    code: int
    problems: frozenset[str] = frozenset()
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    live: Mapping[str, int] = field(default_factory=dict)
    leader: str = ""
    summaries: tuple[str, ...] = ()

    @property
    def answering(self) -> frozenset[str]:
        """The nodes that answer."""
        return frozenset(name for name, row in self.nodes.items() if row["answers"])

    def __str__(self) -> str:
        live = ", ".join(f"{app} {count}" for app, count in sorted(self.live.items()))
        problems = ", ".join(sorted(self.problems)) or "no problem"
        return f"exit code {self.code}; {problems}; nodes {' '.join(sorted(self.answering))}; live: {live or 'none'}"


def read_status(code: int, text: str) -> Status:
    """The status in the output of the command; without JSON in it, only the exit code."""
    try:
        found, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    except ValueError:
        return Status(code)
    if "problems" not in found:
        return Status(code)
    return Status(
        code,
        frozenset(one["code"] for one in found["problems"] if one["severity"] != "notice"),
        {row["node"]: row for row in found["nodes"]},
        {row["app"]: row["shards"].get("live", 0) for row in found["apps"]},
        found["leader"] or "",
        tuple(one["summary"] for one in found["problems"]),
    )
