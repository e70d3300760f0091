"""The events that a withheld shard keeps, from its hold on until they are released. Pure."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from sandwich_coordinator.ranges import format_ranges, parse_ranges
from sandwich_node.events.guild_arrivals import ShardGuilds
from sandwich_node.events.identity import Identity
from sandwich_node.publishing.old_chains import OldEnd
from sandwich_node.shards.resume import LostEvents
from sandwich_sdk.wire.frame import session_hash

HELD_BYTES_MAX = 16 * 1024 * 1024
HELD_EVENTS_MAX = 32_768
BEFORE_MAX = 2048
"""Events of before the hold that are remembered: more than the old group can be late with when L is read."""
_EVENT_BYTES = 300
"""About what an event takes beside its text."""


@dataclass(slots=True, eq=False)
class HeldEvent:
    """One dispatch as received. `identity` is None for an event that is not published, or of this session alone.

    is_twin    the old group has published it
    is_asked   whether it is published is decided late: the old group may have left it out
    """

    raw: bytes
    data: msgspec.Raw
    type: str
    seq: int
    session_id: str
    damaged: bool
    identity: Identity | None
    is_asked: bool = False
    is_twin: bool = False

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.raw) + _EVENT_BYTES


@dataclass(slots=True, eq=False)
class HeldLoss:
    """The session ended here, and `lost` follows it. `is_due`: consumers have to know."""

    lost: LostEvents
    is_due: bool = True


@dataclass(slots=True, eq=False)
class HeldStart:
    """A session with these guilds began here."""

    guilds: ShardGuilds


Held = HeldEvent | HeldLoss | HeldStart


@dataclass(slots=True)
class Hold:
    """What is kept, in order, with a bound in bytes and in events.

    `put` always takes an event, which was already read, and returns False once the hold is full. `widen` doubles the
    bound: what the old group received before its end must still be read.
    """

    bytes_max: int = field(default_factory=lambda: HELD_BYTES_MAX)
    events_max: int = field(default_factory=lambda: HELD_EVENTS_MAX)
    bytes_held: int = 0
    events_held: int = 0
    _kept: deque[Held] = field(default_factory=deque, repr=False)

    def put(self, held: Held) -> bool:
        """Keep it. False: the hold is full."""
        self._kept.append(held)
        if isinstance(held, HeldEvent):
            self.events_held += 1
            self.bytes_held += held.size
        return self.has_room

    def take(self) -> Held | None:
        """The oldest; None when nothing is kept."""
        if not self._kept:
            return None
        held = self._kept.popleft()
        if isinstance(held, HeldEvent):
            self.events_held -= 1
            self.bytes_held -= held.size
        return held

    @property
    def has_room(self) -> bool:
        """Whether reading may go on."""
        return self.bytes_held < self.bytes_max and self.events_held < self.events_max

    def widen(self) -> None:
        """Take twice as much from now on."""
        self.bytes_max *= 2
        self.events_max *= 2

    @property
    def events(self) -> list[HeldEvent]:
        """The events that are kept."""
        return [held for held in self._kept if isinstance(held, HeldEvent)]

    @property
    def began(self) -> int | None:
        """How many of these came before the last session that began in the hold; None when none did."""
        events, found = 0, None
        for held in self._kept:
            if isinstance(held, HeldStart):
                found = events
            events += isinstance(held, HeldEvent)
        return found

    def __iter__(self) -> Iterator[Held]:
        return iter(self._kept)


class HoldNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """The note of the marker that begins a hold.

    group, count, ids  the group that is replaced: its number, its shard count, its shards as ranges
    before             the identities of the last events before the hold, as text
    recent             how many of these were received since the stream's last sequence was read
    """

    group: int = 0
    count: int = 0
    ids: str = ""
    before: tuple[str, ...] = ()
    recent: int = 0


class ReleaseNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """The note of the marker that begins a release: what a next owner has to leave out.

    twins  the held events that the old group has published: session (hash) -> their sequences, as ranges
    ends   where the chains of the old shards ended
    lanes  the lanes that get a switch frame
    """

    twins: dict[str, str]
    ends: dict[int, OldEnd]
    lanes: tuple[str, ...]


class MarkerNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """The note of a marker. `at`: when it was written (Unix seconds)."""

    at: int
    hold: HoldNote | None = None
    release: ReleaseNote | None = None


def identity_text(one: Identity) -> str:
    """An identity as text."""
    return f"{one[0]}:{one[1].hex()}"


def identity_of_text(text: str) -> Identity:
    """The identity. Raises ValueError for another text."""
    guild, _, digest = text.partition(":")
    return int(guild), bytes.fromhex(digest)


def release_note(events: list[HeldEvent], ends: dict[int, OldEnd], lanes: tuple[str, ...]) -> ReleaseNote:
    """The decision about these events."""
    twins: dict[str, list[int]] = {}
    for event in events:
        if event.is_twin:
            twins.setdefault(session_hash(event.session_id), []).append(event.seq)
    ranges = {session: format_ranges(sequences) for session, sequences in twins.items()}
    return ReleaseNote(twins=ranges, ends=ends, lanes=lanes)


def twins_of(note: ReleaseNote, session: str) -> frozenset[int]:
    """The sequences of a session (hash) that are left out."""
    return frozenset(parse_ranges(note.twins.get(session, "")))
