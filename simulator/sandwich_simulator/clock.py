"""The only module that reads a clock."""

import time
from typing import NamedTuple


class Now(NamedTuple):
    """One moment: monotonic seconds for decisions, wall nanoseconds for ids and the journal."""

    mono: float
    wall_ns: int

    @property
    def wall_ms(self) -> int:
        """Wall milliseconds, the unit of a snowflake."""
        return self.wall_ns // 1_000_000


def read_clock() -> Now:
    """The present moment."""
    return Now(time.monotonic(), time.time_ns())
