"""The queue of one socket's outgoing items. Pure; it calls `wake` when the shell has something to write."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Raw:
    """A frame that bypasses the compressor, to send corrupt data."""

    data: bytes
    text: bool = False


@dataclass(frozen=True, slots=True)
class CompressPayloads:
    """From this item on payloads are compressed one by one (IDENTIFY with `compress: true`)."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close with a code after all items pushed before."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """End the TCP connection without a close frame; `reset` sends RST where the system supports it."""

    reset: bool = False


Item = bytes | Raw | Close | Cut | CompressPayloads


class Outbox:
    """A bounded queue. A client that lets it overflow is disconnected, as Discord does with slow readers."""

    def __init__(self, bytes_max: int) -> None:
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._bytes_max = bytes_max
        self._closed = False
        self._cut = False
        self.wake: Callable[[], None] = _no_writer

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be pushed."""
        return self._closed

    @property
    def is_cut(self) -> bool:
        """Whether a Cut is queued: the items before it may no longer be written."""
        return self._cut

    def push(self, item: Item) -> None:
        """Queues an item; ignored after Close, Cut or an overflow."""
        if self._closed:
            return
        if isinstance(item, (bytes, Raw)):
            self._bytes += len(item if isinstance(item, bytes) else item.data)
            if self._bytes > self._bytes_max:
                self._items.clear()
                item = Cut()
        if isinstance(item, (Close, Cut)):
            self._closed = True
            self._cut = isinstance(item, Cut)
        self._items.append(item)
        self.wake()

    def take(self, limit: int) -> list[Item]:
        """Removes up to `limit` items from the front."""
        items = self._items
        taken = [items.popleft() for _ in range(min(limit, len(items)))]
        self._bytes -= sum(
            len(i) if isinstance(i, bytes) else len(i.data) for i in taken if isinstance(i, (bytes, Raw))
        )
        return taken


def _no_writer() -> None:
    """The initial `wake`: no writer uses this outbox yet."""
