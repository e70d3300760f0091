"""Notices as the body of one request: a Discord message, or JSON with a signature. Pure.

Discord's limits: https://docs.discord.com/developers/resources/message#embed-object-embed-limits and the endpoint that
executes a webhook (2,000 characters of content, ten embeds, 6,000 characters in all of them).
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from string import Template
from typing import Any

import msgspec

from sandwich_coordinator.webhooks.facts import Notice
from sandwich_sdk.wire.plain_text import plain_text

CONTENT_MAX = 2000
EMBEDS_MAX = 10
EMBED_CHARACTERS_MAX = 550
"""Ten of them stay below Discord's 6,000 characters."""
GENERIC_MAX = 100
TEMPLATE_CHARACTERS_MAX = 500
PLACEHOLDERS = ("cluster", "kind", "state", "severity", "app", "subject", "summary", "advice", "time")
SIGNATURE_HEADER = "Sandwich-Signature"
TIMESTAMP_HEADER = "Sandwich-Timestamp"
_COLOURS = {"critical": 0xD83C3E, "warning": 0xE0A030, "notice": 0x5865F2}
_ENDED = 0x3BA55C
_ROLE = re.compile(r"<@&([0-9]{15,20})>")
_WORDS = {"began": "", "ended": "Over: ", "happened": ""}


def check_template(text: str) -> str:
    """The template, "" for none. Raises ValueError for a placeholder that does not exist."""
    if len(text) > TEMPLATE_CHARACTERS_MAX:
        raise ValueError(f"a template has at most {TEMPLATE_CHARACTERS_MAX} characters")
    template = Template(text)
    if not template.is_valid():
        raise ValueError("a $ begins a placeholder: write $$ for a dollar sign")
    unknown = sorted(set(template.get_identifiers()) - set(PLACEHOLDERS))
    if unknown:
        raise ValueError(f"there is no placeholder ${unknown[0]}; there are: $" + ", $".join(PLACEHOLDERS))
    return text


def rendered(template: str, notice: Notice, cluster: str) -> str:
    """One notice in the words of a template. Values are plain text and never read as a template."""
    values = {
        "cluster": cluster,
        "kind": notice.kind,
        "state": notice.state,
        "severity": notice.severity,
        "app": notice.app,
        "subject": notice.subject,
        "summary": notice.summary,
        "advice": notice.advice,
        "time": _time(notice.at),
    }
    return Template(template).substitute({name: plain_text(value) for name, value in values.items()})


def discord_message(notices: Sequence[Notice], *, cluster: str, template: str, missed: int) -> bytes:
    """The body for a Discord webhook: embeds, or lines where there is a template. Mentions are those of the template.

    `missed`: how many notices before these could not be delivered.
    """
    body: dict[str, Any] = {"allowed_mentions": {"parse": [], "roles": sorted(set(_ROLE.findall(template)))[:100]}}
    before = f"{missed} notices before this could not be delivered" if missed else ""
    if template:
        lines = [before] if before else []
        body["content"] = _fitted([*lines, *(rendered(template, notice, cluster) for notice in notices)])
    else:
        body["embeds"] = [_embed(notice, cluster) for notice in notices[:EMBEDS_MAX]]
        left = len(notices) - EMBEDS_MAX
        body["content"] = "\n".join(filter(None, [before, f"and {left} more" if left > 0 else ""]))
    return msgspec.json.encode(body)


def _embed(notice: Notice, cluster: str) -> dict[str, Any]:
    footer = f"{cluster} · {notice.severity} · {notice.subject}"[:120]
    title = plain_text(f"{_WORDS[notice.state]}{notice.summary}")[:200]
    return {
        "title": title,
        "description": plain_text(notice.advice)[: EMBED_CHARACTERS_MAX - len(title) - len(footer)],
        "color": _ENDED if notice.state == "ended" else _COLOURS[notice.severity],
        "timestamp": _time(notice.at),
        "footer": {"text": footer},
    }


def _fitted(lines: Sequence[str]) -> str:
    """As many lines as fit, and how many more there are."""
    room = CONTENT_MAX - len(f"\nand {len(lines)} more")
    shown: list[str] = []
    for line in lines:
        cut = line if shown or len(line) <= room else line[: room - 1] + "…"
        if len("\n".join([*shown, cut])) > room:
            break
        shown.append(cut)
    left = len(lines) - len(shown)
    return "\n".join([*shown, *([f"and {left} more"] if left else ())])


def generic_message(notices: Sequence[Notice], *, cluster: str, template: str, missed: int, sent_at: float) -> bytes:
    """The body for another server. `more`: how many notices are left out."""
    shown = notices[:GENERIC_MAX]
    values = [
        msgspec.structs.asdict(notice) | ({"text": rendered(template, notice, cluster)} if template else {})
        for notice in shown
    ]
    more = len(notices) - len(shown)
    return msgspec.json.encode(
        {"v": 1, "cluster": cluster, "sent_at": sent_at, "notices": values, "more": more, "missed": missed}
    )


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """The value of `Sandwich-Signature`: `v1=` and HMAC-SHA256 over `<timestamp>.<body>` in hexadecimal digits."""
    return "v1=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
