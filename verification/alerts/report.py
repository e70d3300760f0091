"""What the drills found, as a table. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """One alert in its drill. Seconds; None: it did not happen in time.

    fired_s    from the beginning of the cause to the alert
    cleared_s  from the beginning of the cause's end to the end of the alert; 0 for one that had cleared before
    too_early  it is about a state, and cleared while the cause lasted
    """

    alert: str
    cause: str
    factor: float
    fired_s: float | None = None
    cleared_s: float | None = None
    too_early: bool = False
    trouble: str = ""
    """Why the drill could not be made."""
    others: list[str] = field(default_factory=list)
    """Other alerts that fired meanwhile: of the drill's application and without one; of all, when it has none."""

    @property
    def passed(self) -> bool:
        """Whether it fired and cleared, as its cause did."""
        happened = self.fired_s is not None and self.cleared_s is not None
        return happened and not self.trouble and not self.too_early


def table(outcomes: Sequence[Outcome], undone: Sequence[str] = ()) -> str:
    """The outcomes as a table in Markdown, and what went wrong. `undone`: alerts whose drill did not end."""
    lines = ["| alert | cause | durations divided by | fired after | cleared after | fired as well |"]
    lines.append("|---|---|---|---|---|---|")
    for each in outcomes:
        others = ", ".join(f"`{name}`" for name in each.others)
        cleared = "too early" if each.too_early else _seconds(each.cleared_s)
        cells = [f"`{each.alert}`", each.cause, f"{each.factor:g}", _seconds(each.fired_s), cleared]
        lines.append(f"| {' | '.join([*cells, others])} |".replace("|  |", "| |"))
    failed = [each for each in outcomes if not each.passed]
    lines.append("")
    lines += [f"{each.alert}: {in_words(each)}" for each in failed]
    lines += [f"{alert}: its drill did not end" for alert in undone]
    lines.append(f"{len(outcomes) - len(failed)} of {len(outcomes) + len(undone)} alerts fired and cleared")
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} s"


def in_words(outcome: Outcome) -> str:
    """What came of the drill."""
    if outcome.trouble:
        return outcome.trouble
    if outcome.fired_s is None:
        return "it did not fire"
    if outcome.too_early:
        return f"fired after {_seconds(outcome.fired_s)}, and cleared while the cause lasted"
    if outcome.cleared_s is None:
        return "it did not clear"
    return f"fired after {_seconds(outcome.fired_s)}, cleared after {_seconds(outcome.cleared_s)}"
