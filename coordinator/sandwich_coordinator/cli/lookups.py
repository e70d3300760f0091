"""The output of `sandwich guild` and `sandwich user`. Pure. Names are untrusted: they are truncated and made plain."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandwich_coordinator.cli.render import rows_text
from sandwich_coordinator.cli.widths import fitted
from sandwich_coordinator.operations.cached_guilds import LISTS
from sandwich_sdk.wire.plain_text import plain_text

WIDTH: Final = 80
NAME_WIDTH_MIN: Final = 16

_WHERE_COLUMNS: Final = {
    "app": "APP", "namespace": "NAMESPACE", "group": "GROUP", "shard": "SHARD", "state": "STATE", "node": "NODE",
}  # fmt: skip
_CHANNEL_TYPES: Final = {
    0: "text", 2: "voice", 4: "category", 5: "announcement", 13: "stage", 14: "directory", 15: "forum", 16: "media",
}  # fmt: skip
_HIDDEN_FLAG: Final = 1 << 17


def plain(text: object, width: int) -> str:
    """A name of at most `width` columns, without characters that control a terminal."""
    return fitted(plain_text(text, mark="?"), width)


def where_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The applications that are in a guild, as a table."""
    return rows_text(rows, _WHERE_COLUMNS, "")


def guild_text(found: Mapping[str, Any]) -> str:
    """One guild of one namespace, with the requested collections."""
    guild = found["guild"] or {}
    sizes = ", ".join(f"{name} {count}" for name, count in found["cached"].items() if count)
    state = "unavailable (an outage of Discord): this is how it was before" if guild.get("unavailable") else "available"
    lines = [
        plain(guild.get("name") or "(its own data is not cached)", WIDTH),
        f"  id         {plain(found['id'], 20)}",
        plain_text(f"  namespace  {found['namespace']}"),
        f"  state      {state if guild else 'not known'}",
        f"  owner      {plain(guild.get('owner_id') or '-', 20)}",
        f"  members    {plain(guild.get('member_count') or '-', 20)}",
        *textwrap.wrap(sizes or "nothing of it", WIDTH, initial_indent="  cached     ", subsequent_indent=" " * 13),
    ]
    for row in found["where"]:
        node = f"on {row['node']}, {row['state']}" if row["node"] else row["state"]
        lines.append(plain_text(f"  {row['app']}: shard {row['shard']} of group {row['group']}, {node}"))
    return "\n\n".join(["\n".join(lines), *(_list_text(name, found) for name in LISTS if name in found)])


def mutual_text(rows: Sequence[Mapping[str, Any]], user: str, apps: Sequence[str]) -> str:
    """The guilds that a user shares with these applications, as a table."""
    if not rows:
        return f"user {user} shares no cached guild with {', '.join(apps)}"
    columns = {"guild": "GUILD", "namespace": "NAMESPACE", "apps": "APPLICATIONS"}
    if len({row["namespace"] for row in rows}) == 1:
        del columns["namespace"]
    return _named([{**row, "apps": ", ".join(row["apps"])} for row in rows], columns)


def _list_text(name: str, found: Mapping[str, Any]) -> str:
    items = found[name]
    if not items:
        return f"no {name} are cached"
    if name == "members":
        rows = [{"id": item["user"].get("id"), "name": _member_name(item)} for item in items]
        more = found["cached"].get("members", 0) - len(items)
        return _named(rows, {"id": "MEMBER"}) + (f"\nand {more} more" if more > 0 else "")
    if name == "roles":
        return _named(items, {"id": "ROLE"})
    return _named([{**item, "type": _channel_type(item)} for item in items], {"id": "CHANNEL", "type": "TYPE"})


def _channel_type(channel: Mapping[str, Any]) -> str:
    number, flags = channel.get("type"), channel.get("flags")
    kind = _CHANNEL_TYPES.get(number, "other") if isinstance(number, int) else "other"
    return f"{kind}, hidden" if isinstance(flags, int) and flags & _HIDDEN_FLAG else kind


def _member_name(member: Mapping[str, Any]) -> str | None:
    username, nick = member["user"].get("username"), member.get("nick")
    return f"{username} ({nick})" if username and nick else username or nick


def _named(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A table with the name as the last column, so that wide characters do not shift other columns."""
    cells = [{key: plain(row.get(key), WIDTH) for key in columns} for row in rows]
    used = sum(2 + max(len(head), *(len(row[key]) for row in cells)) for key, head in columns.items())
    width = max(NAME_WIDTH_MIN, WIDTH - used)
    named = [{**cell, "name": plain(row.get("name") or "-", width)} for cell, row in zip(cells, rows, strict=True)]
    return rows_text(named, {**columns, "name": "NAME"}, "")
