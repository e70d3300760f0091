"""Checks requests to a shard. Pure. Every function raises RpcError (`invalid` or `refused`) with the reason.

Rules: https://discord.com/developers/docs/events/gateway-events#send-events
"""

import re
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from sandwich_coordinator.event_names import DOCUMENTED
from sandwich_coordinator.intents import INTENTS
from sandwich_node.gateway import opcodes
from sandwich_node.publishing.own_events import OwnEvent, own_event
from sandwich_sdk.guild_events import SOURCES
from sandwich_sdk.wire.rpc import INVALID, REFUSED, RpcError

QUERY_LIMIT_MAX = 100
USER_IDS_MAX = 100
TIMEOUT_MAX_S = 300.0
RELAY_BYTES_MAX = 512 * 1024
CLUSTERS_OWN = "SANDWICH_"
"""The prefix of the types of the cluster's own events."""
_TYPE = re.compile(r"[A-Z0-9_]{1,64}")
_CHANNEL_FIELDS = ("status", "voice_start_time")


def may_answer(reply: str) -> bool:
    """Whether an answer may be sent to this subject: not into one of Sandwich's streams, nor to NATS's own subjects.

    The node answers with its own permissions, on a subject that the client chose.
    """
    return reply != "" and not reply.startswith(("sandwich.", "$"))


class _Ask(Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class MembersAsk(_Ask):
    """Members of a guild: those whose name begins with `query`, those with `user_ids`, or (query "", limit 0) all.

    want     "members", or "count" when the cache is read afterwards
    timeout  seconds
    """

    guild_id: str
    query: str | None = None
    user_ids: list[str] | None = None
    limit: int = 0
    presences: bool = False
    want: Literal["members", "count"] = "members"
    timeout: float = 30.0

    @property
    def is_whole(self) -> bool:
        """Whether the request is for all members."""
        return self.query == "" and not self.limit


class PresenceAsk(_Ask):
    """The bot's presence: on one shard, or on all."""

    status: str = "online"
    activities: list[dict[str, Any]] = []
    afk: bool = False
    since: int | None = None
    shard: int | None = None


class VoiceAsk(_Ask):
    """Join, move (`channel_id`) or leave (null) a voice channel."""

    guild_id: str
    channel_id: str | None
    self_mute: bool = False
    self_deaf: bool = False
    timeout: float = 5.0


class SoundsAsk(_Ask):
    """The soundboard sounds of a guild."""

    guild_id: str
    timeout: float = 5.0


class ChannelInfoAsk(_Ask):
    """Ephemeral fields of a guild's channels."""

    guild_id: str
    fields: tuple[str, ...] = _CHANNEL_FIELDS
    timeout: float = 5.0


class RelayAsk(_Ask):
    """An own event for the stream, in the chain of a guild's shard, or of a given shard."""

    type: str
    data: Raw = Raw(b"null")
    guild_id: str | None = None
    shard: int | None = None


_A = TypeVar("_A", bound=_Ask)


def read(body: bytes, kind: type[_A]) -> _A:
    """The request in `body`."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError(INVALID, f"the request is not valid: {error}") from None


def snowflake(value: str, name: str) -> str:
    """A Discord id."""
    if not (value.isascii() and value.isdigit() and len(value) <= 20):
        raise RpcError(INVALID, f"{name} is not a Discord id")
    return value


def _seconds(value: float) -> float:
    if not 0 < value <= TIMEOUT_MAX_S:
        raise RpcError(INVALID, f"timeout must be above 0 and at most {TIMEOUT_MAX_S:.0f} seconds")
    return value


def needs(intents: int, name: str, what: str) -> None:
    """Refuse a command that Discord would ignore without an answer."""
    if not intents & INTENTS[name]:
        raise RpcError(REFUSED, f"{what} needs the intent {name}, which this application does not have")


def members(ask: MembersAsk, intents: int) -> dict[str, Any]:
    """Op 8 without its nonce (Request Guild Members)."""
    guild = snowflake(ask.guild_id, "guild_id")
    _seconds(ask.timeout)
    if (ask.query is None) == (ask.user_ids is None):
        raise RpcError(INVALID, "give either query or user_ids")
    data: dict[str, Any] = {"guild_id": guild}
    if ask.user_ids is not None:
        if not 1 <= len(ask.user_ids) <= USER_IDS_MAX:
            raise RpcError(INVALID, f"user_ids must be 1 to {USER_IDS_MAX}")
        data["user_ids"] = [snowflake(user, "user_ids") for user in ask.user_ids]
    else:
        if ask.query and not 1 <= ask.limit <= QUERY_LIMIT_MAX:
            raise RpcError(INVALID, f"a query needs a limit of 1 to {QUERY_LIMIT_MAX}")
        if not ask.query and not 0 <= ask.limit <= QUERY_LIMIT_MAX:
            raise RpcError(INVALID, f"limit must be 0 (all) to {QUERY_LIMIT_MAX}")
        data |= {"query": ask.query, "limit": ask.limit}
    if ask.is_whole:
        needs(intents, "GUILD_MEMBERS", "asking for all members")
    if ask.presences:
        needs(intents, "GUILD_PRESENCES", "asking for presences")
        data["presences"] = True
    return data


def presence(ask: PresenceAsk) -> dict[str, Any]:
    """Op 3 (Update Presence)."""
    # Imported here: nothing else in a worker needs the configuration's models, a tenth of its start. The first presence
    # keeps the worker's shards waiting for it, for some 0.15 s.
    from pydantic import ValidationError

    from sandwich_coordinator.config import PresenceConfig

    try:
        checked = PresenceConfig.model_validate(
            {"status": ask.status, "afk": ask.afk, "activities": ask.activities}, strict=False
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RpcError(INVALID, f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    shown = checked.model_dump(mode="json", exclude_none=True) | {"since": ask.since}
    if shown["status"] == "offline":
        shown["status"] = "invisible"
    return shown


def voice(ask: VoiceAsk, intents: int) -> dict[str, Any]:
    """Op 4 (Update Voice State)."""
    needs(intents, "GUILD_VOICE_STATES", "joining voice")
    _seconds(ask.timeout)
    channel = None if ask.channel_id is None else snowflake(ask.channel_id, "channel_id")
    return {
        "guild_id": snowflake(ask.guild_id, "guild_id"),
        "channel_id": channel,
        "self_mute": ask.self_mute,
        "self_deaf": ask.self_deaf,
    }


def sounds(ask: SoundsAsk) -> dict[str, Any]:
    """Op 31 (Request Soundboard Sounds)."""
    _seconds(ask.timeout)
    return {"guild_ids": [snowflake(ask.guild_id, "guild_id")]}


def channel_info(ask: ChannelInfoAsk) -> dict[str, Any]:
    """Op 43 (Request Channel Info)."""
    _seconds(ask.timeout)
    unknown = sorted(set(ask.fields) - set(_CHANNEL_FIELDS))
    if unknown or not ask.fields:
        raise RpcError(INVALID, f"fields are {' and '.join(_CHANNEL_FIELDS)}")
    return {"guild_id": snowflake(ask.guild_id, "guild_id"), "fields": list(ask.fields)}


def relay(ask: RelayAsk) -> OwnEvent:
    """The event, without a session and sequence."""
    if _TYPE.fullmatch(ask.type) is None:
        raise RpcError(INVALID, "type must be 1 to 64 characters of A-Z, 0-9 and '_'")
    if ask.type in DOCUMENTED or ask.type in SOURCES:
        raise RpcError(REFUSED, f"{ask.type} is Discord's: consumers would take it for what happened there")
    if ask.type.startswith(CLUSTERS_OWN):
        raise RpcError(REFUSED, f"{ask.type} is the cluster's: choose a type that does not begin with {CLUSTERS_OWN}")
    if len(ask.data) > RELAY_BYTES_MAX:
        raise RpcError(INVALID, f"data is larger than {RELAY_BYTES_MAX} bytes")
    try:
        return own_event(ask.type, bytes(ask.data))
    except ValueError as error:
        raise RpcError(INVALID, str(error)) from None


OPS = {
    "request_members": opcodes.REQUEST_GUILD_MEMBERS,
    "update_presence": opcodes.PRESENCE_UPDATE,
    "update_voice_state": opcodes.VOICE_STATE_UPDATE,
    "request_sounds": opcodes.REQUEST_SOUNDBOARD_SOUNDS,
    "request_channel_info": opcodes.REQUEST_CHANNEL_INFO,
}
"""Verbs that a shard sends to Discord."""
