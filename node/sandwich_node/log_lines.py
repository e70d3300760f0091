"""Log records as values, kept in memory and sent between processes: redacted and plain, as in the text log.

An agent keeps the last lines of itself and its workers in a `LogRing`. A worker keeps those of a second in a
`LineBuffer` and reports them with its figures; a worker that crashes loses those of its last second, which are on
stderr all the same.
"""

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import msgspec

from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_node.logs import TextFormatter

MESSAGE_CHARACTERS_MAX = 2000
LINES_MAX = 5000
BYTES_MAX = 2 * 1024 * 1024
LINE_OVERHEAD = 200
"""What a line takes besides its message, about."""
WORKER_LINES_MAX = 200
"""Of one worker, in a second."""
_LOCATION = re.compile(r"([0-9]+/[0-9]+)(?:/[0-9]+)?")
LEVELS = ("debug", "info", "warning", "error", "critical")


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record. `at`: Unix seconds. `worker` None: the agent. `app`, `shard` ("0/3"): where the record names them."""

    at: float
    level: str
    logger: str
    message: str
    app: str = ""
    shard: str = ""
    worker: int | None = None
    seq: int = 0
    node: str = ""


class LogFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which lines are wanted. "" and None: any. `level`: at least this one. `apps`: of these only."""

    app: str = ""
    shard: str = ""
    level: str = "debug"
    text: str = ""
    since: float = 0.0
    apps: frozenset[str] | None = None

    def wants(self, line: LogLine) -> bool:
        """Whether a line is one of them."""
        return (
            line.at >= self.since
            and _rank(line.level) >= _rank(self.level)
            and (not self.app or line.app == self.app)
            and (not self.shard or self.shard in (line.shard, line.shard.rpartition("/")[2]))
            and (self.apps is None or line.app in self.apps)
            and (not self.text or self.text.casefold() in line.message.casefold())
        )


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else LEVELS.index("info")


class LineHandler(logging.Handler):
    """Makes each record a line, and gives it to `take`, under the handler's lock."""

    def __init__(self, take: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._take = take
        self.setFormatter(TextFormatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises: what cannot be formatted is reported as logging does."""
        try:
            app, shard = place_of(record)
            line = LogLine(
                at=record.created,
                level=record.levelname.lower(),
                logger=record.name,
                message=self.format(record)[:MESSAGE_CHARACTERS_MAX],
                app=app,
                shard=shard,
            )
        except Exception:
            self.handleError(record)
        else:
            self._take(line)


def place_of(record: logging.LogRecord) -> tuple[str, str]:
    """The application and the shard that a record names, by its arguments or its extra fields; "" where it does not."""
    app, shard = getattr(record, "app", None), getattr(record, "shard", None)
    args = record.args if isinstance(record.args, tuple) else ()
    for value, following in zip_longest(args, args[1:]):
        if isinstance(value, ShardId):
            return value.app, f"{value.group}/{value.shard}"
        if isinstance(value, GroupId):
            app = value.app
        if isinstance(value, str) and isinstance(following, str) and (found := _LOCATION.fullmatch(following)):
            return value, found[1]
    return app if isinstance(app, str) else "", str(shard) if isinstance(shard, str | int) else ""


class LineBuffer:
    """The lines since they were last taken, at most `most`; the others are counted."""

    def __init__(self, most: int = WORKER_LINES_MAX) -> None:
        self._most = most
        self._lines: list[LogLine] = []
        self._dropped = 0
        self._lock = threading.Lock()

    def add(self, line: LogLine) -> None:
        """Keep or count a line."""
        with self._lock:
            if len(self._lines) < self._most:
                self._lines.append(line)
            else:
                self._dropped += 1

    def take(self) -> tuple[list[LogLine], int]:
        """The lines, and how many there was no room for. Neither is given twice."""
        with self._lock:
            taken = self._lines, self._dropped
            self._lines, self._dropped = [], 0
        return taken


@dataclass(frozen=True, slots=True)
class Tail:
    """Lines, oldest first, and the number after which the next ones come."""

    lines: list[LogLine]
    next: int


class LogRing:
    """The last lines of a node, bounded in number and bytes. Any thread may add.

    `first`: the number of the first line. With the start's time in milliseconds, lines of a node that was started again
    come after all that it had before.
    """

    def __init__(self, first: int = 0, *, lines_max: int = LINES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._lines: deque[LogLine] = deque()
        self._next = first
        self._bytes = 0
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._lock = threading.Lock()

    def add(self, line: LogLine) -> None:
        """Keep a line, in place of the oldest ones where there is no room."""
        with self._lock:
            self._add(line)

    def add_of_worker(self, worker: int, lines: Iterable[LogLine], dropped: int, at: float) -> None:
        """Keep lines that a worker reported. `dropped`: how many more there were."""
        with self._lock:
            for line in lines:
                self._add(msgspec.structs.replace(line, worker=worker))
            if dropped:
                message = f"{dropped} more lines of this worker are in its log only: it wrote too many in a second"
                self._add(LogLine(at=at, level="warning", logger=__name__, message=message, worker=worker))

    def tail(self, wanted: LogFilter, *, limit: int, after: int | None = None) -> Tail:
        """The last `limit` lines that are wanted, of those numbered `after` or later."""
        found: list[LogLine] = []
        with self._lock:
            for line in self._newest(after):
                if wanted.wants(line):
                    found.append(line)
                    if len(found) >= limit:
                        break
            return Tail(found[::-1], self._next)

    def _newest(self, after: int | None) -> Iterator[LogLine]:
        for line in reversed(self._lines):
            if after is not None and line.seq < after:
                return
            yield line

    def _add(self, line: LogLine) -> None:
        self._lines.append(msgspec.structs.replace(line, seq=self._next))
        self._next += 1
        self._bytes += _size(line)
        while len(self._lines) > self._lines_max or self._bytes > self._bytes_max:
            self._bytes -= _size(self._lines.popleft())


def _size(line: LogLine) -> int:
    return LINE_OVERHEAD + len(line.message.encode(errors="surrogatepass"))
