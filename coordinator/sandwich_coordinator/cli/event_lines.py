"""One event as a line: user, place, content, then its type. Pure.

Events come from Discord and from bots: any field may be missing or of another type, and any text may contain control
sequences for the terminal.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from sandwich_coordinator.cli.paint import Paint
from sandwich_coordinator.cli.widths import cell_len, fitted
from sandwich_sdk.wire.plain_text import plain_text

NAME_WIDTH_MAX: Final = 32
JSON_CHARACTERS_MAX: Final = 2000
WIDTH_MIN: Final = 20
WIDTH_FOR_PLACE: Final = 60
"""On narrower terminals, application and shard are left out."""

_GUILD_EVENTS: Final = ("GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE")
_SHOWN: Final = frozenset({"author", "user", "member", "user_id", "content", "channel_id", "guild_id"})
_TEXTS: Final = frozenset(
    {"content", "title", "description", "name", "topic", "text", "reason", "nick", "username", "global_name", "state"}
)


def event_line(app: str, decoded: Mapping[str, Any], width: int, paint: Paint) -> str:
    """`ada #813 hello  MESSAGE_CREATE welcomer 3/4`, in at most `width` columns."""
    kind, data = str(decoded.get("t")), decoded.get("d")
    width = max(width, WIDTH_MIN)
    kind_part = fitted(plain_text(kind), width // 2)
    shard = _shard(decoded)
    place = plain_text(f" {app} {shard}") if width >= WIDTH_FOR_PLACE else ""
    parts: list[tuple[Callable[[str], str], str]] = [
        (paint.name, fitted(plain_text(author(data)), NAME_WIDTH_MAX)),
        (paint.faint, fitted(plain_text(_place(kind, data)), NAME_WIDTH_MAX)),
        (str, plain_text(_text(data)[:JSON_CHARACTERS_MAX])),
    ]
    left = width - cell_len(kind_part) - cell_len(place) - 2
    shown = []
    for painted, text in parts:
        if text and left > 1:
            text = fitted(text, left)
            left -= cell_len(text) + 1
            shown.append(painted(text))
    line = " ".join(shown)
    return f"{line}{'  ' if line else ''}{paint.bold(kind_part)}{paint.faint(place)}"


def author(data: object) -> str:
    """The name of the user who did it, else the id; "" when the event names no user."""
    for path in (("author",), ("member", "user"), ("user",), ("inviter",)):
        user = _at(data, *path)
        if isinstance(user, dict) and (name := user.get("username") or user.get("id")):
            return str(name)
    return str(_at(data, "user_id") or "")


def guilds(kind: str, data: object) -> set[str]:
    """The ids of the guilds that an event is about."""
    found = {_at(data, "guild_id"), _at(data, "guild", "id")}
    if kind in _GUILD_EVENTS:
        found.add(_at(data, "id"))
    return _ids(found)


def channels(kind: str, data: object) -> set[str]:
    """The ids of the channels that an event is about; a thread's channel is one of them."""
    found = {_at(data, "channel_id"), _at(data, "channel", "id"), _at(data, "channel", "parent_id")}
    if kind.startswith(("CHANNEL_", "THREAD_")):
        found |= {_at(data, "id"), _at(data, "parent_id")}
    return _ids(found)


def users(data: object) -> set[str]:
    """The ids of the users who did it, and of those affected."""
    found = {_at(data, "user_id"), _at(data, "member", "user", "id"), _at(data, "target_id")}
    found |= {_at(data, name, "id") for name in ("author", "user", "inviter", "target_user")}
    for name in ("members", "added_members"):
        listed = _at(data, name)
        if isinstance(listed, list):
            found |= {_at(member, "user", "id") or _at(member, "user_id") for member in listed}
    removed = _at(data, "removed_member_ids")
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


def _at(value: object, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if len(path) == 0 or isinstance(value, str | int | dict | list) else None


def _ids(found: set[Any]) -> set[str]:
    return {str(value) for value in found if isinstance(value, str | int) and value != ""}


def _place(kind: str, data: object) -> str:
    for name, mark in (("channel_id", "#"), ("guild_id", "guild ")):
        if isinstance(value := _at(data, name), str | int):
            return f"{mark}{value}"
    if found := sorted(guilds(kind, data)):
        return f"guild {found[0]}"
    return f"#{_at(data, 'id')}" if kind.startswith(("CHANNEL_", "THREAD_")) and _at(data, "id") else ""


def _text(data: object) -> str:
    content = _at(data, "content")
    if isinstance(content, str) and content:
        return content
    rest = {name: value for name, value in data.items() if name not in _SHOWN} if isinstance(data, dict) else data
    return msgspec.json.encode(rest).decode(errors="replace") if rest not in (None, {}) else ""


def _shard(decoded: Mapping[str, Any]) -> str:
    shard = _at(decoded, "__sandwich", "shard")
    return f"{shard[1]}/{shard[2]}" if isinstance(shard, list) and len(shard) == 3 else "?"
