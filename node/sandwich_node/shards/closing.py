"""A shard of a closing group: it reads up to a barrier, publishes that, and ends its chain (docs/design/scaling.md)."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_node.events.guild_arrivals import ShardGuilds
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.publishing.log import Log
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.shards.intake import ShardIntake
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import END, UNREADABLE
from sandwich_sdk.wire.subjects import DEFAULT_LANE

_log = logging.getLogger(__name__)

ENDED = "its group was replaced"


class EndNote(msgspec.Struct, frozen=True):
    """The note of an end frame. `lanes`: those that get one, in order; `lane`: its own."""

    lanes: tuple[str, ...]
    lane: str


_decode = msgspec.json.Decoder(EndNote).decode


class Deaf:
    """A `Gate` that drops events: those behind the barrier are the upcoming group's."""

    def dispatch(self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool) -> bool:
        """See `Gate`."""
        return True

    def begin_guilds(self, guilds: ShardGuilds) -> None:
        """See `Gate`."""

    async def drained(self) -> None:
        """See `Gate`."""


class Closing:
    """Owned by the shard's runner, from the moment the group closes.

    read_all  set once nothing more is to be read: the barrier is passed
    """

    def __init__(self, intake: ShardIntake, post: Callable[[ev.Event], None]) -> None:
        self.read_all = asyncio.Event()
        self._intake = intake
        self._post = post

    def begin(self, *, has_session: bool) -> None:
        """The machine runs: ask for the barrier. Without a session there is nothing more to read."""
        self._post(ev.BarrierRequested(1) if has_session else ev.StopRequested(ENDED, keep_session=False))

    def observe(self, report: fx.Report) -> bool:
        """Take what the machine reports. False: it is of no concern to anyone else."""
        match report:
            case fx.SessionLost() if self.read_all.is_set():
                # Nothing more was to come of it.
                return False
            case fx.BarrierPassed():
                self._intake.gate = Deaf()
                self.read_all.set()
            case fx.SessionLost() | fx.BarrierFailed():
                self._stop_soon()
            case fx.RequestIdentify():
                # There is no session to end, and none is begun.
                self._stop_soon()
                return False
        return True

    def _stop_soon(self) -> None:
        # Not at once: what the machine asked for together with this report comes first.
        asyncio.get_running_loop().call_soon(self._post, ev.StopRequested(ENDED, keep_session=False))


async def end_chain(publisher: ShardPublisher, lanes: tuple[str, ...], left: tuple[str, ...] | None = None) -> None:
    """Append the end frames, and wait until they are stored. `left`: only those of these lanes are missing."""
    for lane in lanes if left is None else left:
        publisher.push_kind(END, msgspec.json.encode(EndNote(lanes, lane)), lane=lane)
    await publisher.flushed()


async def lanes_left(log: Log, shard: ShardId, end: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The lanes of an ended chain whose last frame is `end`, and those without an end frame. Raises LogError."""
    page = await log.read(subjects.stream_name(shard.app), subjects.chain_filter(*shard), end)
    try:
        note = _decode(next(frame.payload for frame in page.frames if frame.stream_seq == end))
        return note.lanes, note.lanes[note.lanes.index(note.lane) + 1 :]
    except (StopIteration, ValueError, *UNREADABLE) as error:
        _log.error("the end frame of shard %s cannot be read: %r", shard, error)
        return (DEFAULT_LANE,), ()
