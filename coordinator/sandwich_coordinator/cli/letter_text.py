"""Dead letters as `sandwich dead` shows them: rows, tables and one whole letter. Pure."""

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

from sandwich_coordinator.cli.render import duration, table
from sandwich_coordinator.operations.dead_letters import LetterContent, StoredLetter
from sandwich_sdk.wire.plain_text import plain_json, plain_text

ERROR_SHOWN = 60


def letter_row(stored: StoredLetter) -> dict[str, Any]:
    """A letter as JSON shows it."""
    letter = stored.letter
    shard_group, shard = stored.shard
    return {
        "app": stored.app,
        "number": stored.number,
        "kind": letter.kind,
        "group": letter.group,
        "type": letter.type or None,
        "id": letter.id or None,
        "shard_group": shard_group,
        "shard": shard,
        "stream_seq": letter.stream_seq,
        "tries": letter.tries,
        "at": letter.at,
        "error": letter.error,
    }


def content_row(content: LetterContent) -> dict[str, Any]:
    """A letter with what it holds as JSON shows it; `payload` is base64."""
    row = letter_row(content.stored)
    if content.unreadable:
        row["unreadable"] = content.unreadable
    if content.payload is None:
        return row | {"event": content.event}
    return row | {"headers": content.headers, "payload": base64.b64encode(content.payload).decode()}


def letters_text(found: Sequence[StoredLetter], total: int, now: float, *, filtered: bool = False) -> str:
    """The letters, newest first, as a table. `filtered`: there can be others."""
    if not found and filtered:
        return "no dead letters of this group and type"
    if not found:
        return "no dead letters: every event was handled"
    rows = [
        (
            each.app,
            each.number,
            f"{duration(now - each.letter.at)} ago",
            each.letter.group,
            each.letter.type or each.letter.kind,
            each.shard[1],
            each.letter.tries,
            each.letter.id or "-",
            short(each.letter.error),
        )
        for each in found
    ]
    heads = ("APP", "LETTER", "SINCE", "GROUP", "TYPE", "SHARD", "TRIES", "EVENT", "ERROR")
    lines = table(heads, rows)
    if total > len(found):
        lines.append(f"and {total - len(found)} older: see --limit")
    return "\n".join(lines)


def short(text: str) -> str:
    """An error, cut to the width of its column."""
    text = plain_text(text)
    return text if len(text) <= ERROR_SHOWN else text[: ERROR_SHOWN - 3] + "..."


def content_text(content: dict[str, Any]) -> str:
    """One letter with what it holds, from its `content_row`, for reading."""
    row = dict(content)
    inside = {name: row.pop(name) for name in ("event", "headers", "payload") if name in row}
    row["at"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
    width = max(map(len, row))
    lines = [plain_text(f"{name.ljust(width)}  {value}") for name, value in row.items() if value is not None]
    for name, value in inside.items():
        body = plain_text(value) if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        lines.append(f"{name}\n{plain_json(body)}")
    return "\n".join(lines)
