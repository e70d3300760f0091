"""What makes an event the same event in two sessions of one bot, whatever their shard counts and intents. Pure.

Two sessions number events differently (`s`), and their intents shape some payloads: without MESSAGE_CONTENT, messages
have no content; without GUILD_MEMBERS, THREAD_MEMBERS_UPDATE has only the bot's own membership (Discord: Gateway,
Gateway Intents). So a table names the fields that identify an event and that no intent changes. All other events are
identified by their whole payload. docs/design/scaling.md, "What two sessions do not see alike", has the sources.

Different events may have one identity: mute, unmute, mute; two embeds of one message resolved. The caller counts them.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

Identity = tuple[int, bytes]
"""The guild's id (0 without a guild) and a digest of 16 bytes."""

DIGEST_BYTES = 16
_ID_DIGITS_MAX = 20

SESSION_BOUND = frozenset(
    {
        *("READY", "RESUMED"),
        # Answers to a request go to the session that sent it.
        *("GUILD_MEMBERS_CHUNK", "SOUNDBOARD_SOUNDS", "CHANNEL_INFO", "RATE_LIMITED"),
    }
)
"""Events of one session that no other session of the bot receives."""

GUILDLESS_PREFIXES = ("ENTITLEMENT_", "SUBSCRIPTION_")
"""Discord sends these to shard 0, even those that name a guild (Discord: Gateway, Sharding)."""

_NAMED_BY_ID = frozenset({"GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE"})
"""Their `id` is the guild's; all other events of a guild have `guild_id`."""

_MESSAGE = ("id", "channel_id")
_REACTION = ("channel_id", "message_id", "user_id", "emoji", "burst", "type")
_VOTE = ("channel_id", "message_id", "user_id", "answer_id")
_GUILD = ("id", "unavailable", "joined_at")

IDENTIFYING_FIELDS: Mapping[str, tuple[str, ...]] = {
    "AUTO_MODERATION_ACTION_EXECUTION": (
        *("user_id", "rule_id", "action", "channel_id", "message_id", "alert_system_message_id", "matched_keyword"),
    ),
    "GUILD_AUDIT_LOG_ENTRY_CREATE": ("id",),
    "GUILD_CREATE": _GUILD,
    "GUILD_DELETE": _GUILD,
    "INTERACTION_CREATE": ("id",),
    "MESSAGE_CREATE": _MESSAGE,
    "MESSAGE_DELETE": _MESSAGE,
    "MESSAGE_POLL_VOTE_ADD": _VOTE,
    "MESSAGE_POLL_VOTE_REMOVE": _VOTE,
    "MESSAGE_REACTION_ADD": _REACTION,
    "MESSAGE_REACTION_REMOVE": _REACTION,
    "MESSAGE_UPDATE": (*_MESSAGE, "edited_timestamp", "pinned", "flags"),
    "PRESENCE_UPDATE": ("user", "status", "activities", "client_status"),
    "THREAD_MEMBERS_UPDATE": ("id", "member_count"),
    "TYPING_START": ("channel_id", "user_id", "timestamp"),
    "VOICE_STATE_UPDATE": (
        *("user_id", "channel_id", "session_id", "deaf", "mute", "self_deaf", "self_mute", "self_stream"),
        *("self_video", "suppress", "request_to_speak_timestamp"),
    ),
}
"""Event type: the fields that identify an event. An event without the first one is identified by its whole payload."""


class _Guilded(msgspec.Struct, gc=False):
    guild_id: Any = UNSET


class _Outage(msgspec.Struct, gc=False):
    unavailable: Any = UNSET


def _decoder(event_type: str, fields: tuple[str, ...]) -> Callable[[bytes], Any]:
    named = [(name, Any, UNSET) for name in fields]
    return msgspec.json.Decoder(msgspec.defstruct(event_type, named, bases=(_Guilded,), gc=False)).decode


_decoders = {name: (fields[0], _decoder(name, fields)) for name, fields in IDENTIFYING_FIELDS.items()}
_decode_outage = msgspec.json.Decoder(_Outage).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode


def identity(event_type: str, data: bytes, *, lazy: bool = False, unavailable: bool = False) -> Identity | None:
    """The identity of one event, by its type and the JSON of its `d`; None for an event of one session only.

    lazy, unavailable  of a GUILD_CREATE or GUILD_DELETE: as `Arrival` has them in a shard, and `__extra` on the wire

    The first event of a guild that READY announced goes to the session that got the READY. If it said that the guild is
    in an outage, the GUILD_CREATE behind it is the outage's end, which all sessions receive.

    Never raises: an event that cannot be parsed is identified by its bytes, in guild 0.
    """
    if event_type in SESSION_BOUND:
        return None
    if lazy and (event_type == "GUILD_DELETE" or (event_type == "GUILD_CREATE" and not (unavailable and _is_up(data)))):
        return None
    try:
        guild_id, canonical = _read(event_type, data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        guild_id, canonical = 0, bytes(data)
    name = event_type.encode(errors="backslashreplace")
    return guild_id, hashlib.blake2b(b"%b\0%b" % (name, canonical), digest_size=DIGEST_BYTES).digest()


def _is_up(guild: bytes) -> bool:
    """Whether a GUILD_CREATE has the guild, and does not say that it is in an outage."""
    try:
        return _decode_outage(guild).unavailable is not True
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def _read(event_type: str, data: bytes) -> tuple[int, bytes]:
    """The guild, and what identifies the event as JSON with sorted keys. Raises when `data` is no JSON."""
    known = _decoders.get(event_type)
    if known is not None:
        required, decode = known
        found = decode(data)
        if getattr(found, required) is not UNSET:
            return _guild(found.id if event_type in _NAMED_BY_ID else found.guild_id), _encode(found)
    payload = _decode(data)
    canonical = _encode(payload)
    if not isinstance(payload, dict) or event_type.startswith(GUILDLESS_PREFIXES):
        return 0, canonical
    return _guild(payload.get("id" if event_type in _NAMED_BY_ID else "guild_id")), canonical


def _guild(value: Any) -> int:
    is_id = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _ID_DIGITS_MAX
    return int(value) if is_id else 0
