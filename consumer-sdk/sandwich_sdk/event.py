"""An event as a consumer sees it, and a gap in a shard's events."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from sandwich_sdk.guild_events import derive
from sandwich_sdk.wire.frame import split_events
from sandwich_sdk.wire.headers import UNREADABLE, FrameHeaders, WireError
from sandwich_sdk.wire.surrogates import without_lone_surrogates

_T = TypeVar("_T")


class Shard(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The shard that received an event: shard group (generation), shard id, number of shards in the group."""

    group: int
    id: int
    count: int


_NO_EXTRA = msgspec.Raw(b"{}")


class _Meta(msgspec.Struct, gc=False):
    app: str
    bot: str
    route: str
    shard: Shard
    id: str


class _Line(msgspec.Struct, gc=False):
    t: str
    d: msgspec.Raw
    meta: _Meta = msgspec.field(name="__sandwich")
    s: int | None = None
    extra: msgspec.Raw = msgspec.field(name="__extra", default=_NO_EXTRA)


_decode_line = msgspec.json.Decoder(_Line).decode
_MISSING: Any = object()


def _read_line(raw: bytes) -> _Line:
    try:
        return _decode_line(raw)
    except msgspec.DecodeError:
        cleaned = without_lone_surrogates(raw)
        if cleaned == raw:
            raise
        return _decode_line(cleaned)


class Event:
    """One Discord dispatch. `data`, `extra` and `before` are decoded when they are first used.

    In them, a lone surrogate in a text (half of a character that a client cut) is U+FFFD. `raw` is unchanged.

    raw           the line as it was published: Discord's JSON with `__sandwich` and `__extra` added
    received_ns   when this consumer received the frame, ns since 1970; None when unknown
    published_ns  when the stream stored the frame, ns since 1970; None when unknown
    """

    __slots__ = ("_data", "_derived", "_extra", "_line", "published_ns", "raw", "received_ns")

    def __init__(self, raw: bytes, *, received_ns: int | None = None, published_ns: int | None = None) -> None:
        """Read one line of a frame. Raises WireError when it is not a valid event."""
        try:
            self._line = _read_line(raw)
        except UNREADABLE as error:
            raise WireError(f"bad event: {error}") from error
        self.raw = raw
        self.received_ns = received_ns
        self.published_ns = published_ns
        self._data = _MISSING
        self._extra: dict[str, Any] = _MISSING
        self._derived: str | None = _MISSING

    @property
    def type(self) -> str:
        """Discord's event name, such as MESSAGE_CREATE."""
        return self._line.t

    @property
    def derived(self) -> str | None:
        """GUILD_JOIN, GUILD_LEAVE, GUILD_AVAILABLE, GUILD_UNAVAILABLE, or None."""
        if self._derived is _MISSING:
            self._derived = derive(self._line.t, self._line.d, self._line.extra)
        return self._derived

    @property
    def seq(self) -> int:
        """Discord's sequence within the session; 0 for an own event (`relay`), which has none."""
        return self._line.s or 0

    @property
    def id(self) -> str:
        """Unique, and never used again: store it to make a handler idempotent."""
        return self._line.meta.id

    @property
    def app(self) -> str:
        """The application's name in the cluster."""
        return self._line.meta.app

    @property
    def bot(self) -> str:
        """User id of the bot, "" while unknown."""
        return self._line.meta.bot

    @property
    def route(self) -> str:
        """The application's route: free text from the configuration."""
        return self._line.meta.route

    @property
    def shard(self) -> Shard:
        """The shard that received the event."""
        return self._line.meta.shard

    @property
    def data(self) -> Any:
        """Discord's `d`, decoded once. Raises ValueError for a number out of range, RecursionError for deep nesting."""
        if self._data is _MISSING:
            self._data = msgspec.json.decode(self._line.d)
        return self._data

    def data_as(self, model: Callable[..., _T]) -> _T:
        """Discord's `d` as a msgspec Struct, dataclass or TypedDict. Raises msgspec.ValidationError."""
        decoded: _T = msgspec.json.decode(self._line.d, type=model)
        return decoded

    @property
    def extra(self) -> dict[str, Any]:
        """Fields that the cluster added (`before`, `lazy`, ...), or {}."""
        if self._extra is _MISSING:
            self._extra = msgspec.json.decode(self._line.extra)
        return self._extra

    @property
    def before(self) -> Any:
        """The object as it was before this event, or None if it was not cached."""
        return self.extra.get("before")

    def __repr__(self) -> str:
        return f"Event({self.type}, id={self.id!r}, shard={self.shard.id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Events were permanently lost: the session ended and Discord did not resume it.

    app, group, shard  the shard that lost them
    session            hash of the session that ended
    last_seq           sequence of the last event that was received in it
    detail             more from the cluster (`at`: when, in Unix seconds), or {}
    published_ns       when the stream stored the report, None when unknown
    """

    app: str
    group: int
    shard: int
    session: str
    last_seq: int
    detail: dict[str, Any]
    published_ns: int | None


def read_events(
    inflated: bytes, headers: FrameHeaders, *, received_ns: int | None = None, published_ns: int | None = None
) -> list[Event]:
    """The events of an inflated frame. Raises WireError when they do not match its headers."""
    lines = split_events(inflated)
    if len(lines) != headers.count:
        raise WireError(f"frame holds {len(lines)} events, its header says {headers.count}")
    return [Event(line, received_ns=received_ns, published_ns=published_ns) for line in lines]


def read_gap(subject: str, payload: bytes, headers: FrameHeaders, *, published_ns: int | None = None) -> Gap:
    """Read a gap frame. Raises WireError when its subject is not an event subject."""
    parts = subject.split(".")
    try:
        _, app, _, _, group, shard = parts
        detail = msgspec.json.decode(payload, type=dict[str, Any]) if payload else {}
        return Gap(
            app=app,
            group=int(group),
            shard=int(shard),
            session=headers.session,
            last_seq=headers.last_seq,
            detail=detail,
            published_ns=published_ns,
        )
    except UNREADABLE as error:
        raise WireError(f"bad gap frame: {error}") from error
