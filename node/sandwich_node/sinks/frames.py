"""From events to frames: the bounded queue of events not yet in the stream, and how a batch becomes a payload.

Pure. The queue holds what was read from Discord and not yet acknowledged by JetStream; it is the only place in a node
where an event waits. A batch never mixes sessions, so that a frame's headers name one session and one range of it.
"""

from collections import deque
from dataclasses import dataclass, field

import msgspec
import zstandard

from sandwich_sdk.wire.headers import GAP, MARKER, FrameHeaders

BATCH_EVENTS_MAX = 512
BATCH_BYTES_MAX = 2 * 1024 * 1024
BUFFER_BYTES_MAX = 8 * 1024 * 1024
BUFFER_EVENTS_MAX = 16_384
COMPRESSION_LEVEL = 1

_compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_content_size=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardAddress:
    """Where a shard's events belong. `bot` is the bot's user id, "" while unknown."""

    app: str
    group: int
    shard: int
    count: int
    route: str
    bot: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes into one frame. `kind` is "" for events; a gap or marker has no lines."""

    session: str
    first_seq: int
    last_seq: int
    lines: tuple[bytes, ...] = ()
    types: frozenset[str] = frozenset()
    kind: str = ""
    note: bytes = b""
    size: int = 0

    def headers(self, epoch: int, part: tuple[int, int] | None = None) -> FrameHeaders:
        """The frame's headers for the writer with this claim revision."""
        return FrameHeaders(
            session=self.session,
            first_seq=self.first_seq,
            last_seq=self.last_seq,
            count=len(self.lines),
            epoch=epoch,
            kind=self.kind,
            types=self.types,
            part=part,
        )

    def payload(self) -> bytes:
        """The frame's payload: one zstd frame of newline-delimited JSON, or a gap's plain JSON note."""
        if self.kind:
            return self.note
        return _compressor.compress(b"".join(self.lines))


@dataclass(slots=True)
class EventBuffer:
    """Events read and not yet acknowledged, in order, with a bound in bytes and in events.

    `push` always takes the event (it was already read) and answers False once the buffer is full: the reader then
    stops reading until `has_room`. An event whose sequence the session has passed already is dropped and counted.
    """

    address: ShardAddress
    bytes_max: int = BUFFER_BYTES_MAX
    events_max: int = BUFFER_EVENTS_MAX
    session: str = ""
    last_seq: int = 0
    bytes_held: int = 0
    events_held: int = 0
    repeated: int = 0
    _prefix: bytes = field(default=b"", repr=False)
    _pending: deque[tuple[bytes, str, int] | Batch] = field(default_factory=deque, repr=False)

    def start_session(self, session: str, last_seq: int, *, bot: str = "") -> None:
        """Events pushed from now on belong to this session, which the shard has read up to `last_seq`."""
        self.session = session
        self.last_seq = last_seq
        address = self.address
        meta = {
            "v": 1,
            "app": address.app,
            "bot": bot or address.bot,
            "route": address.route,
            "shard": [address.group, address.shard, address.count],
            "id": f"{session}:",
        }
        self._prefix = b',"__sandwich":' + msgspec.json.encode(meta)[:-2]

    def push(self, raw: bytes, event_type: str, seq: int) -> bool:
        """Take one dispatch as received. False: full, stop reading until there is room."""
        if seq <= self.last_seq:
            self.repeated += 1
            return self.has_room
        if raw[-1] != 0x7D or b"\n" in raw:
            # Discord sends compact JSON; whatever else stands there must still be one line that ends in '}'.
            raw = msgspec.json.format(raw, indent=-1)
        line = b'%b%b%d"}}\n' % (raw[:-1], self._prefix, seq)
        self.last_seq = seq
        self._pending.append((line, event_type, seq))
        self.events_held += 1
        self.bytes_held += len(line)
        return self.bytes_held < self.bytes_max and self.events_held < self.events_max

    def push_control(self, kind: str, *, session: str, last_seq: int, note: bytes = b"") -> None:
        """Queue a gap or marker frame behind what is pending."""
        assert kind in (GAP, MARKER)
        self._pending.append(Batch(session, last_seq, last_seq, kind=kind, note=note))

    @property
    def has_room(self) -> bool:
        """Whether reading may go on: well below the bound, so that it does not flap."""
        return self.bytes_held * 2 < self.bytes_max and self.events_held * 2 < self.events_max

    @property
    def empty(self) -> bool:
        """Nothing waits and nothing is unacknowledged."""
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
        lines: list[bytes] = []
        types: set[str] = set()
        size = 0
        last = head[2]
        while pending and len(lines) < BATCH_EVENTS_MAX:
            item = pending[0]
            if isinstance(item, Batch):
                break
            line, event_type, seq = item
            if lines and (size + len(line) > BATCH_BYTES_MAX or event_type == "READY"):
                break
            pending.popleft()
            lines.append(line)
            types.add(event_type)
            size += len(line)
            last = seq
        session = _session_of(lines[0])
        return Batch(session, head[2], last, tuple(lines), frozenset(types), size=size)

    def confirm(self, batch: Batch) -> None:
        """The batch is in the stream: its memory is free."""
        self.bytes_held -= batch.size
        self.events_held -= len(batch.lines)


def _session_of(line: bytes) -> str:
    """The session hash of an event line, from the end of it: ...,"id":"<hash>:<s>"}}."""
    start = line.rindex(b'"id":"') + 6
    return line[start : line.index(b":", start)].decode()


def split_payload(payload: bytes, part_bytes: int) -> list[bytes]:
    """Cut a payload that is too large for one message into parts of at most `part_bytes`."""
    return [payload[start : start + part_bytes] for start in range(0, len(payload), part_bytes)]
