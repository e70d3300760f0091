"""Which of an application's events are wanted: by type, guild, channel, user and text. Pure.

Events come from Discord and from bots: any field may be missing or of another type.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sandwich_coordinator.event_names import matches_any

_GUILD_EVENTS: Final = ("GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE")
_TEXTS: Final = frozenset(
    {"content", "title", "description", "name", "topic", "text", "reason", "nick", "username", "global_name", "state"}
)


@dataclass(frozen=True, kw_only=True)
class EventFilter:
    """The events to show: types (patterns; none: all), guild, channel, user and text ("": any)."""

    types: frozenset[str] = frozenset()
    guild: str = ""
    channel: str = ""
    user: str = ""
    text: str = ""

    def may_want(self, types: frozenset[str]) -> bool:
        """Whether a frame with events of these types can have one; it has them all, or none are named."""
        return not self.types or not types or any(matches_any(self.types, kind) for kind in types)

    def wants(self, kind: str, data: object) -> bool:
        """Whether an event of this type and content is shown."""
        return (
            (not self.types or matches_any(self.types, kind))
            and (not self.guild or self.guild in guilds(kind, data))
            and (not self.channel or self.channel in channels(kind, data))
            and (not self.user or self.user in users(data))
            and (not self.text or has_text(data, self.text))
        )


def guilds(kind: str, data: object) -> set[str]:
    """The ids of the guilds that an event is about."""
    found = {at(data, "guild_id"), at(data, "guild", "id")}
    if kind in _GUILD_EVENTS:
        found.add(at(data, "id"))
    return _ids(found)


def channels(kind: str, data: object) -> set[str]:
    """The ids of the channels that an event is about; a thread's channel is one of them."""
    found = {at(data, "channel_id"), at(data, "channel", "id"), at(data, "channel", "parent_id")}
    if kind.startswith(("CHANNEL_", "THREAD_")):
        found |= {at(data, "id"), at(data, "parent_id")}
    return _ids(found)


def users(data: object) -> set[str]:
    """The ids of the users who did it, and of those affected."""
    found = {at(data, "user_id"), at(data, "member", "user", "id"), at(data, "target_id")}
    found |= {at(data, name, "id") for name in ("author", "user", "inviter", "target_user")}
    for name in ("members", "added_members"):
        listed = at(data, name)
        if isinstance(listed, list):
            found |= {at(member, "user", "id") or at(member, "user_id") for member in listed}
    removed = at(data, "removed_member_ids")
    return _ids(found | set(map(str, removed if isinstance(removed, list) else ())))


def has_text(data: object, wanted: str) -> bool:
    """Whether its text (content, embeds, names, topics, ...) contains this text, case ignored."""
    folded = wanted.casefold()
    return any(folded in text.casefold() for text in _texts(data))


def _texts(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            for name, part in inner.items():
                if name in _TEXTS and isinstance(part, str):
                    yield part
                else:
                    waiting.append(part)
        elif isinstance(inner, list):
            waiting += inner


def at(value: object, *path: str) -> Any:
    """The value at a path of an event; None where it is missing, or is no string, number, object or list."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if len(path) == 0 or isinstance(value, str | int | dict | list) else None


def _ids(found: set[Any]) -> set[str]:
    return {str(value) for value in found if isinstance(value, str | int) and value != ""}
