"""Which events are published, on which lane, and which only change the cache. Pure."""

from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from sandwich_coordinator.event_names import matches_any
from sandwich_coordinator.types import EventsSpec, PrefixSpec
from sandwich_node.events.asks import MessageAsk
from sandwich_sdk.wire.subjects import DEFAULT_LANE

CACHE_ONLY = ""
"""The lane of an event that is not published: a lane without a name."""

_BOTS_WRITE = frozenset({"MESSAGE_CREATE", "MESSAGE_UPDATE"})
_NAMES_REMEMBERED_MAX = 512
ID_DIGITS_MAX = 20


class _Author(Struct, frozen=True, gc=False):
    bot: bool = False


class _Authored(Struct, gc=False):
    author: _Author = _Author()


class _Text(Struct, gc=False):
    content: str = ""
    guild_id: str | UnsetType = UNSET


_authored = msgspec.json.Decoder(_Authored).decode
_text = msgspec.json.Decoder(_Text).decode


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one event. `lane`: its lane, or CACHE_ONLY. `ask`: the lookup that it needs first.

    `is_read` is False for an event without the documented form, which is published unchanged.
    """

    lane: str
    ask: MessageAsk | None = None
    is_read: bool = field(default=True, compare=False)


class EventFilter:
    """The rules of one application. `bot` is its user id."""

    def __init__(self, spec: EventsSpec, bot: str) -> None:
        self.spec = spec
        self.ttls = {name: lane.max_age_s for name, lane in spec.lanes.items() if lane.max_age_s}
        self.prefixes = PrefixRule(spec.prefixes, bot) if spec.prefixes is not None else None
        self._lanes: dict[str, str | None] = {}
        self._looks_inside = {name for name in _BOTS_WRITE if spec.ignore_bots}
        if spec.prefixes is not None:
            self._looks_inside.add("MESSAGE_CREATE")

    def lane(self, event_type: str) -> str | None:
        """The lane for events of this type, CACHE_ONLY, or None when they are ignored."""
        try:
            return self._lanes[event_type]
        except KeyError:
            if len(self._lanes) >= _NAMES_REMEMBERED_MAX:
                self._lanes.clear()
            lane = self._lanes[event_type] = self._find(event_type)
            return lane

    def _find(self, event_type: str) -> str | None:
        spec = self.spec
        if matches_any(spec.ignore, event_type):
            return None
        if matches_any(spec.cache_only, event_type):
            return CACHE_ONLY
        found = (name for name, lane in spec.lanes.items() if matches_any(lane.types, event_type))
        return next(found, DEFAULT_LANE)

    def looks_inside(self, event_type: str) -> bool:
        """Whether `judge` must decide about each event of this type."""
        return event_type in self._looks_inside

    def judge(self, event_type: str, data: bytes | Raw, lane: str) -> Decision:
        """Decide about one event, by the JSON of its `d`. An unreadable event is published unchanged."""
        try:
            if self.spec.ignore_bots and _authored(data).author.bot:
                return Decision(CACHE_ONLY)
            if self.prefixes is not None and event_type == "MESSAGE_CREATE":
                message = _text(data)
                if isinstance(message.guild_id, str):
                    guild = message.guild_id
                    # The id becomes part of a key in Redis.
                    if not (guild.isascii() and guild.isdigit() and len(guild) <= ID_DIGITS_MAX):
                        return Decision(lane, is_read=False)
                    return Decision(lane, MessageAsk(guild, message.content))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return Decision(lane, is_read=False)
        return Decision(lane)


class PrefixRule:
    """Finds the prefix that a message begins with."""

    def __init__(self, spec: PrefixSpec, bot: str) -> None:
        self._fallback = (spec.fallback,) if spec.fallback else ()
        self._mentions = (f"<@{bot}>", f"<@!{bot}>") if spec.mention and bot else ()

    def match(self, content: str, own: frozenset[str] | None) -> str | None:
        """The longest prefix that `content` begins with; None when there is none.

        `own`: the guild's prefixes, which replace the fallback. None: they are unknown, and only the fallback and the
        mention count.
        """
        candidates = (*(own or self._fallback), *self._mentions)
        return max((prefix for prefix in candidates if prefix and content.startswith(prefix)), key=len, default=None)
