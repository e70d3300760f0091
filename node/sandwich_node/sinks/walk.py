"""What a chain's writer makes of messages that no node wrote. Pure.

Any client that may publish on a chain's subjects can put a message there. It is not part of the chain: the writer looks
at what lies between its own last frame and the end, and goes on behind it.
"""

from dataclasses import dataclass

from sandwich_node.sinks.log import Fenced, Foreign, Tail
from sandwich_sdk.wire.headers import FrameHeaders


@dataclass(frozen=True, slots=True)
class Stand:
    """A chain's last frame, the sequence of the last message on its subjects, and how many of them no node wrote."""

    tail: Tail | None
    end: int
    foreign: int = 0

    def then(self, message: Tail | Foreign) -> "Stand":
        """Where the chain ends when this message follows."""
        if isinstance(message, Tail):
            return Stand(message, message.stream_seq)
        return Stand(self.tail, message.stream_seq, self.foreign + 1)


@dataclass(slots=True)
class Walk:
    """A writer's look, in order, at every message of its chain behind `last`, up to a foreign end.

    epoch    the writer's
    headers  of its append of unknown outcome
    landed   that append is among the messages
    left     a frame of an older owner, which can be behind ours only when the stream lost ours
    foreign  messages that no node wrote
    """

    epoch: int
    headers: FrameHeaders
    landed: int = 0
    left: Tail | None = None
    foreign: int = 0

    def see(self, message: Tail | Foreign) -> None:
        """Take the next message. Raises Fenced when a newer owner wrote it."""
        if isinstance(message, Foreign):
            self.foreign += 1
        elif message.headers.epoch > self.epoch:
            raise Fenced(self.epoch, message.headers.epoch)
        elif message.headers.epoch < self.epoch:
            self.left = message
        elif message.headers == self.headers:
            self.landed = message.stream_seq


@dataclass(slots=True)
class Search:
    """Looks for a chain's last frame before a foreign end: in ever wider windows of the stream, from the end back.

    Feed it each message from `start` on, until `see` has no more to ask for; then `widen`, until `is_over`.
    """

    end: int
    start: int = 0
    found: Tail | None = None
    _width: int = 64
    _behind: int = 1
    _window: int = 0

    def __post_init__(self) -> None:
        self.start = max(1, self.end - self._width)

    def see(self, message: Tail | Foreign | None) -> int:
        """Take the first message from where we looked on; where to look next, 0 when the window is through."""
        if message is None or message.stream_seq >= self.end:
            return 0
        if isinstance(message, Tail):
            self.found, self._window = message, 0
        else:
            self._window += 1
        return message.stream_seq + 1

    @property
    def is_over(self) -> bool:
        """The frame was found, or the stream's begin was reached."""
        return self.found is not None or self.start == 1

    @property
    def foreign(self) -> int:
        """Messages that no node wrote, behind the frame."""
        return self._behind + self._window

    def widen(self) -> None:
        """Go on with what is before the window."""
        self.end, self._behind, self._window = self.start, self.foreign, 0
        self._width *= 4
        self.start = max(1, self.end - self._width)
