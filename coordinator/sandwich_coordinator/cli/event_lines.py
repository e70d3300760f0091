"""One event as a line: user, place, content, then its type. Pure.

Events come from Discord and from bots: any field may be missing or of another type, and any text may contain control
sequences for the terminal.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sandwich_coordinator.cli.paint import Paint
from sandwich_coordinator.cli.widths import cell_len, fitted
from sandwich_coordinator.event_filter import at, guilds
from sandwich_sdk.wire.plain_text import plain_text

NAME_WIDTH_MAX: Final = 32
JSON_CHARACTERS_MAX: Final = 2000
WIDTH_MIN: Final = 20
WIDTH_FOR_PLACE: Final = 60
"""On narrower terminals, application and shard are left out."""

_SHOWN: Final = frozenset({"author", "user", "member", "user_id", "content", "channel_id", "guild_id"})


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
        user = at(data, *path)
        if isinstance(user, dict) and (name := user.get("username") or user.get("id")):
            return str(name)
    return str(at(data, "user_id") or "")


def _place(kind: str, data: object) -> str:
    for name, mark in (("channel_id", "#"), ("guild_id", "guild ")):
        if isinstance(value := at(data, name), str | int):
            return f"{mark}{value}"
    if found := sorted(guilds(kind, data)):
        return f"guild {found[0]}"
    return f"#{at(data, 'id')}" if kind.startswith(("CHANNEL_", "THREAD_")) and at(data, "id") else ""


def _text(data: object) -> str:
    content = at(data, "content")
    if isinstance(content, str) and content:
        return content
    rest = {name: value for name, value in data.items() if name not in _SHOWN} if isinstance(data, dict) else data
    return msgspec.json.encode(rest).decode(errors="replace") if rest not in (None, {}) else ""


def _shard(decoded: Mapping[str, Any]) -> str:
    shard = at(decoded, "__sandwich", "shard")
    return f"{shard[1]}/{shard[2]}" if isinstance(shard, list) and len(shard) == 3 else "?"
