"""From events to frames: the bounded queue of events not yet in the stream, and how a batch becomes a payload.

Batches and frames are Structs, since one is made for each append: frozen dataclasses take several times as long.

Pure. The queue holds what was read from Discord and not yet acknowledged by the log. It is the only place in a node
where an event waits. A batch has events of one session only, so that a frame's headers name one session and one range.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import zstandard

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.cache.context import Op
from sandwich_node.events.asks import Ask
from sandwich_node.publishing.own_events import OwnEvent
from sandwich_sdk.wire.headers import GAP, FrameHeaders
from sandwich_sdk.wire.subjects import DEFAULT_LANE

BATCH_EVENTS_MAX = 512
BATCH_BYTES_MAX = 2 * 1024 * 1024
BUFFER_BYTES_MAX = 8 * 1024 * 1024
BUFFER_EVENTS_MAX = 16_384
COMPRESSION_LEVEL = 1
HOLD_OVER = -1
"""In place of a stream sequence: the chain's hold is over."""

_compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_content_size=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOrigin:
    """Where events come from: their shard, how many shards its group has, its route, and the bot.

    `bot` is the bot's user id, "" while it is not known.
    """

    shard: ShardId
    count: int
    route: str
    bot: str = ""


class Item(NamedTuple):
    """One event that was read. `line` is b"" if it is not published; `ops` are its cache operations.

    `ask`: what has to be answered before it leaves, or once it is stored. `is_own`: an own event; it has no sequence,
    `seq` is the session's before it. `apart`: in a frame of its own, since a reader that cannot read it gives up the
    whole frame.
    """

    session: str
    line: bytes
    type: str
    seq: int
    lane: str
    ops: tuple[Op, ...]
    size: int
    ask: Ask | None
    is_own: bool = False
    apart: bool = False


class Batch(msgspec.Struct, frozen=True):
    """Events of one session in order, or a frame without events (`kind`, with its `note`, on `lane`).

    hold       of the marker that begins the chain's hold: the stream's last sequence before; of its end: HOLD_OVER
    on_stored  called with the frame's stream sequence, before anything else is appended
    """

    session: str
    first_seq: int
    last_seq: int
    items: tuple[Item, ...] = ()
    kind: str = ""
    note: bytes = b""
    size: int = 0
    lane: str = DEFAULT_LANE
    hold: int | None = None
    on_stored: Callable[[int], None] | None = None

    def frame(self) -> "Frame":
        """The frame without events."""
        return Frame(self.session, self.first_seq, self.last_seq, kind=self.kind, note=self.note, lane=self.lane)


class Frame(msgspec.Struct, frozen=True):
    """One message of a shard's chain: events, or a gap, marker, fence, switch or end (`kind`) without any.

    last_seq  the checkpoint once it is stored; this may be past events that are not published
    ttl_s     the stream keeps it for at most so long; 0: as long as everything else
    behind    Redis has not applied its events yet
    """

    session: str
    first_seq: int
    last_seq: int
    lines: tuple[bytes, ...] = ()
    types: frozenset[str] = frozenset()
    kind: str = ""
    note: bytes = b""
    lane: str = DEFAULT_LANE
    ttl_s: float = 0.0
    behind: bool = False

    def headers(self, fence: Fence, part: tuple[int, int] | None = None, *, hold: int | None = None) -> FrameHeaders:
        """The frame's headers, as the owner with this fence writes them. `hold`: of the chain."""
        return FrameHeaders(
            session=self.session,
            first_seq=self.first_seq,
            last_seq=self.last_seq,
            count=len(self.lines),
            epoch=fence,
            kind=self.kind,
            types=self.types,
            part=part,
            behind=self.behind,
            hold=hold,
        )

    def payload(self) -> bytes:
        """The frame's payload: one zstd frame of newline-delimited JSON, or a gap's plain JSON note."""
        if self.kind:
            return self.note
        return _compressor.compress(b"".join(self.lines))


def frames_of(batch: Batch, lines: Sequence[bytes], ttls: Mapping[str, float], *, behind: bool = False) -> list[Frame]:
    """The frames that publish a batch, in order: one for each run of events of the same lane.

    `lines` are the items' lines as consumers get them; b"" is not published. Each frame's `last_seq` includes the
    unpublished events behind it, so that no event is between two frames.
    """
    frames: list[Frame] = []
    run: list[tuple[bytes, Item]] = []
    last_seq = batch.first_seq - 1
    for line, item in zip(lines, batch.items, strict=True):
        if line and run and (run[-1][1].lane != item.lane or item.apart or run[-1][1].apart):
            frames.append(_frame(batch.session, run, last_seq, ttls, behind))
            run = []
        if line:
            run.append((line, item))
        last_seq = item.seq
    if run:
        frames.append(_frame(batch.session, run, last_seq, ttls, behind))
    return frames


def _frame(
    session: str, run: list[tuple[bytes, Item]], last_seq: int, ttls: Mapping[str, float], behind: bool
) -> Frame:
    first = run[0][1]
    return Frame(
        session,
        # An own event has no sequence and follows `seq`: the frame begins behind it.
        first.seq + 1 if first.is_own else first.seq,
        last_seq,
        lines=tuple(line for line, _ in run),
        types=frozenset(item.type for _, item in run),
        lane=first.lane,
        ttl_s=ttls.get(first.lane, 0.0),
        behind=behind,
    )


@dataclass(slots=True)
class EventBuffer:
    """Events read and not yet acknowledged, in order, with a bound in bytes and in events.

    `push` always takes the event, which was already read, and returns False once the buffer is full: the reader then
    stops reading until `has_room`. An event whose sequence the session has already passed is dropped and counted.
    """

    origin: ShardOrigin
    bytes_max: int = BUFFER_BYTES_MAX
    events_max: int = BUFFER_EVENTS_MAX
    session: str = ""
    last_seq: int = 0
    bytes_held: int = 0
    events_held: int = 0
    repeated: int = 0
    _prefix: bytes = field(default=b"", repr=False)
    _own_prefix: bytes = field(default=b"", repr=False)
    _pending: deque[Item | Batch] = field(default_factory=deque, repr=False)

    def start_session(self, session: str, last_seq: int, *, bot: str = "") -> None:
        """Events pushed from now on belong to this session, which the shard has read up to `last_seq`."""
        self.session = session
        self.last_seq = last_seq
        origin = self.origin
        app, group, shard = origin.shard
        meta = {
            "v": 1,
            "app": app,
            "bot": bot or origin.bot,
            "route": origin.route,
            "shard": [group, shard, origin.count],
            "id": f"{session}:",
        }
        self._prefix = b',"__sandwich":' + msgspec.json.encode(meta)[:-2]
        self._own_prefix = b',"__sandwich":' + msgspec.json.encode(meta | {"id": "own:"})[:-2]

    def push(
        self,
        raw: bytes,
        event_type: str,
        seq: int,
        lane: str = DEFAULT_LANE,
        ops: tuple[Op, ...] = (),
        size: int = 0,
        ask: Ask | None = None,
        apart: bool = False,
    ) -> bool:
        """Take one dispatch as received; `raw` b"" when it is not published. `size`: about how many bytes `ops` hold.

        False: the buffer is full; stop reading until there is room.
        """
        if seq <= self.last_seq:
            self.repeated += 1
            return self.has_room
        line = b""
        if raw:
            if raw[-1] != 0x7D or b"\n" in raw:
                # Discord sends compact JSON. Any other form must still become one line that ends in '}'.
                # In JSON, a line break is never within a string.
                raw = raw.strip().replace(b"\n", b" ")
            line = b'%b%b%d"}}\n' % (raw[:-1], self._prefix, seq)
        self.last_seq = seq
        self._pending.append(Item(self.session, line, event_type, seq, lane, ops, size, ask, apart=apart))
        self.events_held += 1
        self.bytes_held += len(line) + size
        return self.bytes_held < self.bytes_max and self.events_held < self.events_max

    def push_own(self, event: OwnEvent, name: str, *, lane: str, ask: Ask | None) -> str:
        """Take an own event, behind what was read. Returns its id, made of `name`, which must be unique.

        Raises ValueError before the shard's first session.
        """
        if not self._own_prefix:
            raise ValueError("the shard has no session yet")
        line = b'%b%b%b"}}\n' % (event.raw[:-1], self._own_prefix, name.encode())
        self._pending.append(Item(self.session, line, event.type, self.last_seq, lane, (), 0, ask, True))
        self.events_held += 1
        self.bytes_held += len(line)
        return f"own:{name}"

    def push_gap(self, *, session: str, last_seq: int, note: bytes) -> None:
        """Queue a gap frame behind what is pending."""
        self._pending.append(Batch(session, last_seq, last_seq, kind=GAP, note=note))

    def push_kind(
        self,
        kind: str,
        note: bytes,
        *,
        lane: str = DEFAULT_LANE,
        hold: int | None = None,
        on_stored: Callable[[int], None] | None = None,
    ) -> None:
        """Queue a frame without events behind what is pending. Its checkpoint is what was read until now."""
        at = self.last_seq
        self._pending.append(
            Batch(self.session, at, at, kind=kind, note=note, lane=lane, hold=hold, on_stored=on_stored)
        )

    @property
    def has_room(self) -> bool:
        """Whether reading may go on: well below the bound, so that it does not stop again at once."""
        return self.bytes_held * 2 < self.bytes_max and self.events_held * 2 < self.events_max

    @property
    def empty(self) -> bool:
        """No event waits, and all are acknowledged."""
        return not self._pending and not self.events_held

    def take(self) -> Batch | None:
        """The next batch, oldest events first; None when nothing is pending. Give it back with `confirm`."""
        pending = self._pending
        if not pending:
            return None
        head = pending[0]
        if isinstance(head, Batch):
            pending.popleft()
            return head
        items: list[Item] = []
        size = 0
        while pending and len(items) < BATCH_EVENTS_MAX:
            item = pending[0]
            if isinstance(item, Batch):
                break
            if items and (size + len(item.line) + item.size > BATCH_BYTES_MAX or item.session != head.session):
                break
            pending.popleft()
            items.append(item)
            size += len(item.line) + item.size
        return Batch(head.session, head.seq, items[-1].seq, tuple(items), size=size)

    def confirm(self, batch: Batch) -> None:
        """The batch is in the stream: its memory is free."""
        self.bytes_held -= batch.size
        self.events_held -= len(batch.items)


def split_payload(payload: bytes, part_bytes: int) -> list[bytes]:
    """Cut a payload that is too large for one message into parts of at most `part_bytes`."""
    return [payload[start : start + part_bytes] for start in range(0, len(payload), part_bytes)]
