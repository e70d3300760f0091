"""How a chain's writer treats messages that no node wrote. Pure.

Any client that may publish on a chain's subjects can put a message there. Such a message is not part of the chain: the
writer looks at every message between its own last frame and the end, and goes on behind them.
"""

from dataclasses import dataclass, field

from sandwich_coordinator.ids import Fence
from sandwich_node.publishing.log import Fenced, Foreign, Tail
from sandwich_sdk.wire.headers import FrameHeaders


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """A chain's last frame, the sequence of the last message on its subjects, and how many of them no node wrote."""

    tail: Tail | None
    end: int
    foreign: int = 0

    def then(self, message: Tail | Foreign) -> "ChainEnd":
        """Where the chain ends when this message follows."""
        if isinstance(message, Tail):
            return ChainEnd(message, message.stream_seq)
        return ChainEnd(self.tail, message.stream_seq, self.foreign + 1)


@dataclass(slots=True)
class Walk:
    """A writer reads, in order, every message of its chain behind its last frame, up to a foreign end.

    fence    the writer's
    headers  of its append of unknown outcome
    landed   the sequence of that append; 0 when it is not among the messages
    left     a frame of an older owner; it can be behind ours only when the stream lost ours
    foreign  how many messages no node wrote
    """

    fence: Fence
    headers: FrameHeaders
    landed: int = 0
    left: Tail | None = None
    foreign: int = 0

    def see(self, message: Tail | Foreign) -> None:
        """Take the next message. Raises Fenced when a newer owner wrote it."""
        if isinstance(message, Foreign):
            self.foreign += 1
        elif message.headers.epoch > self.fence:
            raise Fenced(self.fence, Fence(message.headers.epoch))
        elif message.headers.epoch < self.fence:
            self.left = message
        elif message.headers == self.headers:
            self.landed = message.stream_seq


COPIES_MIN = 256
"""With so many copied frames, the whole stream counts as a copy."""


@dataclass(slots=True)
class _Window:
    """The content of one window: its last frame, its last copied frame, and how many foreign messages follow each."""

    found: Tail | None = None
    copied: Tail | None = None
    behind_found: int = 0
    behind_copied: int = 0

    def see(self, message: Tail | Foreign) -> None:
        if isinstance(message, Tail):
            self.found, self.behind_found = message, 0
            return
        self.behind_found += 1
        self.behind_copied += 1
        if message.copied is not None:
            self.copied, self.behind_copied = message.copied, 0


@dataclass(slots=True)
class Search:
    """Looks for a chain's last frame before a foreign end, in ever wider windows of the stream, from the end back.

    Pass it each message from `start` on, in order, until `see` asks for no more. Then call `widen`, until `is_over`.

    may_be_copy  the chain's first message is a copied frame. If no node's own frame follows, the whole stream was
                 copied, as when it moves to other servers, and its last copied frame is the chain's last.
    """

    end: int
    may_be_copy: bool = False
    start: int = 0
    _last: int = 0
    _width: int = 64
    _window: _Window = field(default_factory=_Window)
    _copied: ChainEnd | None = None
    _copies: int = 0
    _nearer: int = 0

    def __post_init__(self) -> None:
        self._last, self.start = self.end, max(1, self.end - self._width)

    def see(self, message: Tail | Foreign | None) -> int:
        """Take the next message of the window. Returns where to read on; 0 at the end of the window."""
        if message is None or message.stream_seq > self.end:
            return 0
        self._window.see(message)
        self._copies += isinstance(message, Foreign) and message.copied is not None
        return message.stream_seq + 1

    @property
    def is_over(self) -> bool:
        """A frame was found, or the stream's start was reached, or the stream is a copy."""
        is_copy = self.may_be_copy and self._copies >= COPIES_MIN
        return self._window.found is not None or self.start == 1 or is_copy

    def widen(self) -> None:
        """Go on with the window before this one."""
        self._copied = self._copied_end
        self._nearer += self._window.behind_found
        self._window = _Window()
        self.end = self.start - 1
        self._width *= 4
        self.start = max(1, self.start - self._width)

    @property
    def _copied_end(self) -> ChainEnd | None:
        if self._copied is not None or not self.may_be_copy or self._window.copied is None:
            return self._copied
        return ChainEnd(self._window.copied, self._last, self._nearer + self._window.behind_copied)

    @property
    def chain_end(self) -> ChainEnd:
        """Where the chain ends."""
        found = ChainEnd(self._window.found, self._last, self._nearer + self._window.behind_found)
        return found if found.tail is not None else self._copied_end or found
