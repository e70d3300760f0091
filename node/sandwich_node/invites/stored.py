"""The state of a guild that is saved outside the process for the shard's next owner. Pure.

Counts are saved only while they are exact: a join or a deletion removes them until the next exact state is saved. They
are valid only for the session in which they were counted. An owner that RESUMEs this session receives every join since;
after an IDENTIFY, members may have joined without an event. For guilds without counts the state says whether the bot
may see them: a RESUME does not repeat this, and each refused request counts towards a ban of the whole IP address.
"""

from dataclasses import dataclass

import msgspec

from sandwich_node.invites.wire import VANITY, Invite

VERSION = 1
DENIED = b"-"
"""The state of a guild whose counts the bot may not see."""
WANTED_BY = {None: b"?", False: b"?0", True: b"?1"}
"""The state of a guild whose counts are visible but unknown, by whether it has a vanity URL (None: not known)."""
WANTED = frozenset(WANTED_BY.values())


@dataclass(frozen=True, slots=True)
class Kept:
    """One guild: its counts, or None and whether a request may be sent; `vanity` None: not known."""

    counts: dict[str, Invite] | None
    may_ask: bool = True
    vanity: bool | None = None


class _Counts(msgspec.Struct):
    v: int
    session: str
    counts: dict[str, Invite]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Counts).decode
_MARKS = {mark: Kept(None, vanity=vanity) for vanity, mark in WANTED_BY.items()} | {DENIED: Kept(None, may_ask=False)}


def encode_counts(counts: dict[str, Invite], session: str) -> bytes:
    """The saved form of counts: JSON."""
    return _encode(_Counts(VERSION, session, counts))


def decode_kept(state: bytes, session: str) -> Kept | None:
    """The saved state; None when it is of another session or version, or unreadable."""
    if (mark := _MARKS.get(state)) is not None:
        return mark
    try:
        found = _decode(state)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    is_ours = found.v == VERSION and found.session == session
    return Kept(found.counts, vanity=VANITY in found.counts) if is_ours else None
