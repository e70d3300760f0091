"""What a new owner of an upcoming group's shard finds of its hold and its release in the chain."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from sandwich_coordinator.backoff import Backoff
from sandwich_coordinator.ids import ShardId
from sandwich_node.events.identity import Identity
from sandwich_node.publishing.log import Log, LogError, StoredFrame
from sandwich_node.shards.hold import HoldNote, MarkerNote, ReleaseNote, identity_of_text
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import MARKER, SWITCH, UNREADABLE

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0

_decode = msgspec.json.Decoder(MarkerNote).decode


@dataclass(slots=True)
class OwnChain:
    """A chain from its hold on.

    hold      the stream's last sequence before the hold
    note      of the marker that began it
    release   the decision, once the release began
    switched  the lanes that have their switch frame
    """

    hold: int
    note: HoldNote | None = None
    release: ReleaseNote | None = None
    switched: set[str] = field(default_factory=set)
    _parts: list[bytes] = field(default_factory=list, repr=False)

    @property
    def before(self) -> list[Identity]:
        """The last events before the hold. Empty when they cannot be read."""
        try:
            return [identity_of_text(text) for text in self.note.before] if self.note is not None else []
        except ValueError:
            return []

    def see(self, frame: StoredFrame) -> None:
        """Take the chain's next frame."""
        if frame.headers.kind == SWITCH and self.release is not None:
            self.switched.add(frame.subject.split(".")[3])
        if frame.headers.kind != MARKER:
            return
        index, total = frame.headers.part or (1, 1)
        if index == 1:
            self._parts.clear()
        self._parts.append(frame.payload)
        if index < total or len(self._parts) != total:
            return
        try:
            note = _decode(b"".join(self._parts))
        except UNREADABLE as error:
            _log.error("marker %d on %s cannot be read: %s", frame.stream_seq, frame.subject, error)
            return
        self.note = note.hold or self.note
        if note.release is not None:
            self.release, self.switched = note.release, set()


async def read_own_chain(log: Log, shard: ShardId, hold: int, end: int) -> OwnChain:
    """The chain behind stream sequence `hold` up to `end`, which is in the stream. Raises LogError."""
    found, at = OwnChain(hold), hold + 1
    while at <= end:
        page = await log.read(subjects.stream_name(shard.app), subjects.chain_filter(*shard), at)
        for frame in page.frames:
            found.see(frame)
        if page.next_seq == at:
            # A replica that does not have it yet, or foreign messages at the end alone.
            if (await log.following(subjects.stream_name(shard.app), subjects.chain_filter(*shard), at)) is None:
                break
            await asyncio.sleep(RETRY_FIRST_S)
        at = page.next_seq
    return found


class Patience:
    """Tries again while the log is away. `waiting`: what it answers; "" for nothing."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.waiting = ""

    async def of(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """The answer of `ask`."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, self._rng)
        while True:
            try:
                answer = await ask()
            except LogError as error:
                self.waiting = str(error)
                await asyncio.sleep(backoff.next_s())
            else:
                self.waiting = ""
                return answer
