"""The table of results. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from verification.chaos.measure import percentile

TARGETS_S = {"death": 2.0, "machine": 9.0, "move": 1.5}
"""Target for the 95th percentile of the seconds until a shard streams again."""
_NAMES = {"death": "process death to resumed", "machine": "machine death to resumed", "move": "planned move, silence"}


@dataclass(slots=True)
class Result:
    """The result of one seed."""

    seed: int
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    owed: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    group_missed: int = 0
    group_repeated: int = 0
    identifies_extra: int = 0
    sessions_forgotten: int = 0
    sessions_spare: int = 0
    violations: int = 0
    unrecovered: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    agent_rss: dict[str, list[int]] = field(default_factory=dict)

    @property
    def correct(self) -> bool:
        """Whether nothing was lost, doubled or out of order, no session was given up, and all recovered."""
        wrong = self.lost or self.doubled or self.out_of_order or self.group_missed
        return self.owed > 0 and not (wrong or self.identifies_extra or self.violations or self.unrecovered)

    def as_json(self) -> dict[str, Any]:
        """The result as JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"correct": self.correct}


def table(results: Sequence[Result]) -> str:
    """The results as text."""
    faults: dict[str, int] = {}
    times: dict[str, list[float]] = {}
    for result in results:
        for name, count in result.faults.items():
            faults[name] = faults.get(name, 0) + count
        for name, values in result.recoveries.items():
            times.setdefault(name, []).extend(values)

    def total(name: str) -> int:
        return sum(getattr(result, name) for result in results)

    minutes = sum(result.seconds for result in results) / 60
    lines = [
        f"seeds {', '.join(str(result.seed) for result in results)}; {minutes:.1f} minutes of faults",
        "",
        *(f"  {count:4d}  {name}" for name, count in sorted(faults.items())),
        f"  {sum(faults.values()):4d}  faults",
        "",
        f"events owed                     {total('owed')}",
        f"lost / doubled / out of order   {total('lost')} / {total('doubled')} / {total('out_of_order')}",
        f"consumer group missed           {total('group_missed')} (handed out again: {total('group_repeated')})",
        f"IDENTIFYs beyond the first      {total('identifies_extra')} "
        f"(and {total('sessions_forgotten')} for sessions that Discord forgot, "
        f"{total('sessions_spare')} to resync the cache)",
        f"violations of Discord's rules   {total('violations')}",
    ]
    for name, values in sorted(times.items()):
        p95, target = percentile(values, 0.95), TARGETS_S[name]
        word = "met" if p95 <= target else "MISSED"
        lines.append(
            f"{_NAMES[name]:<31} p50 {percentile(values, 0.5):.2f} s, p95 {p95:.2f} s of {len(values)} shards "
            f"(target {target:g} s: {word})"
        )
    for result in results:
        for node, (early, late) in sorted((n, (v[0], v[-1])) for n, v in result.agent_rss.items() if v):
            lines.append(f"agent {node} of seed {result.seed:<16} {early >> 20} MiB early, {late >> 20} MiB at the end")
        lines += [f"seed {result.seed}: {text}" for text in result.unrecovered]
    lines.append("correct" if all(result.correct for result in results) else "NOT CORRECT")
    return "\n".join(lines)
