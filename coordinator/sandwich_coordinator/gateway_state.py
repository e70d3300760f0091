"""What a leader knows of a token's look-ups at Discord."""

from dataclasses import dataclass

from sandwich_coordinator.types import BudgetRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayState:
    """What this leader knows of one token's look-ups; kept by the shell. `ended_at` is monotonic.

    `answer` is the last answer, to be recorded; for a refusal that retrying cannot help (401) its `error` is set.
    `failures` counts look-ups in a row that brought no answer; `error` says why. Before `retry_at` (monotonic) Discord
    does not want to be asked again.

    `before` and `under_way`: the budget when the look-up of `answer` began, and how many buckets were held then: starts
    that Discord may not have counted.
    """

    in_flight: bool = False
    ended_at: float | None = None
    answer: BudgetRecord | None = None
    failures: int = 0
    error: str = ""
    retry_at: float = 0.0
    before: BudgetRecord | None = None
    under_way: int = 0
