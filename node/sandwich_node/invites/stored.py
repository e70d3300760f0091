"""What is kept of a guild outside the process, so that the shard's next owner can go on. Pure.

Counts are kept only while they are exact: a join or a deletion takes them back before the next state is kept. They are
good for the session they were counted in alone: who RESUMEs it hears of every join since; after another IDENTIFY
somebody may have joined unheard. Of other guilds it is kept whether the bot may see the counts, which a next owner is
not told again: asking in vain counts towards a ban of the whole address.
"""

from dataclasses import dataclass

import msgspec

from sandwich_node.invites.wire import VANITY, Invite

VERSION = 1
DENIED = b"-"
"""Of a guild whose counts the bot may not see."""
WANTED_BY = {None: b"?", False: b"?0", True: b"?1"}
"""Of one whose counts may be had and are not known, by whether it has a vanity URL (None: not known)."""
WANTED = frozenset(WANTED_BY.values())


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one guild: its counts, or None and whether they may be had; `vanity` None: not known."""

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
    """Counts as they are kept: JSON."""
    return _encode(_Counts(VERSION, session, counts))


def decode_kept(state: bytes, session: str) -> Kept | None:
    """What was kept; None when it is of another session or version, or not readable."""
    if (mark := _MARKS.get(state)) is not None:
        return mark
    try:
        found = _decode(state)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    is_ours = found.v == VERSION and found.session == session
    return Kept(found.counts, vanity=VANITY in found.counts) if is_ours else None
