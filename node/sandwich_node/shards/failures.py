"""A bound on what a worker logs about its shards' connections, however many shards there are. Pure."""

LINES_MAX = 10
WINDOW_S = 30.0


class FailureLog:
    """At most `LINES_MAX` lines in `WINDOW_S` for all shards of a worker; the next line says how many were left out."""

    def __init__(self) -> None:
        self._since = -WINDOW_S
        self._lines = 0
        self._left_out = 0

    def note(self, text: str, now: float) -> str | None:
        """The line to log now; None for none."""
        if now - self._since >= WINDOW_S:
            self._since, self._lines = now, 0
        if self._lines >= LINES_MAX:
            self._left_out += 1
            return None
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        return f"{text} ({left_out} more such lines left out before)" if left_out else text
