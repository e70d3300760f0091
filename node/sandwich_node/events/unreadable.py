"""Counts and logs unreadable events by type, without their content."""

import logging
from collections.abc import Callable

from sandwich_coordinator.event_names import DOCUMENTED

_log = logging.getLogger(__name__)

LOG_EVERY_S = 60.0
"""Between two log lines about the same type."""
_PASSED_OVER = "passed over"
OTHER = "other"
"""Counts all types that Discord does not document, since their number is unbounded."""


class Unreadable:
    """Totals of one shard since it started here. `clock` is monotonic, in seconds."""

    def __init__(self, shard: str, *, clock: Callable[[], float]) -> None:
        self.totals: dict[str, int] = {}
        self.passed_over = 0
        self._shard = shard
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def note(self, event_type: str, why: str | Exception) -> None:
        """Count one event. Only the type and place of an error are logged: its text may contain parts of the event."""
        name = event_type if event_type in DOCUMENTED else OTHER
        self.totals[name] = self.totals.get(name, 0) + 1
        if self._is_time_to_say(name):
            _log.warning(
                "shard %s: %s could not be read wholly (%s); it is published as it came; %d of this type so far",
                *(self._shard, event_type, why if isinstance(why, str) else _in_words(why), self.totals[name]),
            )

    def pass_over(self, sequence: int, why: str) -> None:
        """Count a dispatch that could not be published."""
        self.passed_over += 1
        if self._is_time_to_say(_PASSED_OVER):
            _log.warning("shard %s: event %d passed over: %s; %d so far", self._shard, sequence, why, self.passed_over)

    def _is_time_to_say(self, what: str) -> bool:
        now = self._clock()
        is_time = now - self._logged_at.get(what, float("-inf")) >= LOG_EVERY_S
        if is_time:
            self._logged_at[what] = now
        return is_time


def _in_words(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    code = trace.tb_frame.f_code
    return f"{type(error).__name__} in {code.co_qualname}"
