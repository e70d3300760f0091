"""A client's commands: op 3, 4, 8, 31 and 43 (docs/design/protocol.md, section 11). Pure; answers are dispatches."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import intents
from .action_context import ActionContext
from .actions import voice
from .clock import Now
from .entities import Json
from .gateway import Bot, Gateway
from .identify_rules import BAD_PAYLOAD, Rejected, is_integer
from .sessions import Session
from .snowflakes import shard_of
from .world import GuildState

PRESENCE_UPDATE, VOICE_STATE_UPDATE, REQUEST_GUILD_MEMBERS = 3, 4, 8
REQUEST_SOUNDBOARD_SOUNDS, REQUEST_CHANNEL_INFO = 31, 43
CHUNK_MEMBERS = 1000
QUERY_LIMIT_MAX = 100
NONCE_BYTES_MAX = 32
STATUSES = frozenset({"online", "dnd", "idle", "invisible", "offline"})


@dataclass(frozen=True, slots=True)
class Context:
    """Who sent the command, and when."""

    gateway: Gateway
    bot: Bot
    session: Session
    now: Now

    def send(self, name: str, data: Json) -> None:
        """Answers on the session that sent the command."""
        self.gateway.send_to(self.bot, self.session, name, data, self.now)

    def note_violation(self, kind: str) -> None:
        """Records a violation for which Discord does not close the connection."""
        shard = (self.session.shard, self.session.count)
        self.gateway.note("violation", kind, now=self.now, bot=self.bot, shard=shard)

    def guild(self, value: Any) -> GuildState | None:
        """The requested guild; None (no answer) when the bot or this shard does not have it."""
        if not isinstance(value, (str, int)) or not str(value).isdecimal():
            raise Rejected(BAD_PAYLOAD, "guild_id is a snowflake")
        guild_id = int(value)
        if not self.bot.world.has_guild(guild_id) or self.bot.world.is_unavailable(guild_id):
            return None
        if shard_of(guild_id, self.session.count) != self.session.shard:
            return None
        return self.bot.world.guild(guild_id)


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise Rejected(BAD_PAYLOAD, reason)


def update_presence(context: Context, d: Any) -> None:
    """Op 3. Checked only: a bot does not receive its own presence."""
    _require(isinstance(d, dict), "presence is an object")
    _require(d.get("status") in STATUSES, "status is online, dnd, idle, invisible or offline")
    _require(d.get("activities") is None or isinstance(d["activities"], list), "activities is a list")
    _require(d.get("since") is None or isinstance(d["since"], (int, float)), "since is milliseconds or null")


def update_voice_state(context: Context, d: Any) -> None:
    """Op 4: join, move or leave. Answers VOICE_STATE_UPDATE, and VOICE_SERVER_UPDATE after a join.

    A full channel, or one that the bot may not view, gets no answer.
    """
    _require(isinstance(d, dict), "voice state is an object")
    guild = context.guild(d.get("guild_id"))
    channel_id = None if d.get("channel_id") is None else str(d["channel_id"])
    if guild is None or (channel_id is not None and channel_id not in guild.channels):
        return
    me = context.bot.id
    if channel_id is not None and not (guild.sees(me, channel_id) and voice.has_room(guild, channel_id, me)):
        return
    settings: dict[str, bool | str] = {
        "session_id": context.session.id,
        "self_mute": bool(d.get("self_mute", False)),
        "self_deaf": bool(d.get("self_deaf", False)),
    }
    action = ActionContext(context.bot.world, guild, context.bot.world.rng, context.now.wall_ms)
    for event in voice.move(action, me, channel_id, **settings):
        context.gateway.publish(context.bot, event, context.now)
    if channel_id is not None:
        server = {"token": f"voice-{context.session.seq}", "guild_id": guild.id, "endpoint": "voice.invalid:443"}
        context.send("VOICE_SERVER_UPDATE", server)


def request_members(context: Context, d: Any) -> None:
    """Op 8: chunks of at most 1000; RATE_LIMITED for a second whole list of a guild within 30 s; else no answer."""
    _require(isinstance(d, dict), "a request is an object")
    _require(not isinstance(d.get("guild_id"), list), "exactly one guild")
    by_id, query = d.get("user_ids"), d.get("query")
    _require(by_id is not None or query is not None, "one of query and user_ids")
    _require(not by_id or not query, "one of query and user_ids")  # hikari sends an empty query beside user_ids
    guild = context.guild(d.get("guild_id"))
    extra: Json = {}
    nonce = d.get("nonce")
    if isinstance(nonce, str) and len(nonce.encode()) <= NONCE_BYTES_MAX:
        extra["nonce"] = nonce
    if guild is None:
        return
    if by_id:
        asked = by_id if isinstance(by_id, list) else [by_id]
        if len(asked) > QUERY_LIMIT_MAX:
            context.note_violation("request_members_ids")
        ids = list(dict.fromkeys(asked[:QUERY_LIMIT_MAX]))
        found = [guild.members[str(key)] for key in ids if str(key) in guild.members]
        # Ids that were not found are returned as they were sent: numbers as numbers.
        extra["not_found"] = [key for key in ids if str(key) not in guild.members]
    else:
        _require(isinstance(query, str) and is_integer(d.get("limit")), "query needs a limit")
        members = _by_query(context, guild, query, d["limit"], extra)
        if members is None:
            return
        found = members
    wants_presences = bool(d.get("presences")) and bool(context.session.intents & intents.GUILD_PRESENCES)
    _send_chunks(context, guild, found, extra, wants_presences=wants_presences)


def _by_query(context: Context, guild: GuildState, query: str, limit: int, extra: Json) -> list[Json] | None:
    if query or limit:
        prefix, count = query.lower(), min(limit or QUERY_LIMIT_MAX, QUERY_LIMIT_MAX)
        names = ((m, m["user"]["username"], m["nick"] or "") for m in guild.members.values())
        return [m for m, *either in names if any(name.lower().startswith(prefix) for name in either)][:count]
    if not context.session.intents & intents.GUILD_MEMBERS:
        return None
    wait_s = context.gateway.may_request_all_members(context.bot, int(guild.id), context.now)
    if not wait_s:
        return list(guild.members.values())
    meta: Json = {"guild_id": guild.id} | ({"nonce": extra["nonce"]} if "nonce" in extra else {})
    context.send("RATE_LIMITED", {"opcode": REQUEST_GUILD_MEMBERS, "retry_after": round(wait_s, 3), "meta": meta})
    context.note_violation("request_members_rate")
    return None


def _send_chunks(context: Context, guild: GuildState, found: list[Json], extra: Json, *, wants_presences: bool) -> None:
    count = max(1, -(-len(found) // CHUNK_MEMBERS))
    for index in context.gateway.faults.chunk_order(count, context.now.mono):
        part = found[index * CHUNK_MEMBERS : (index + 1) * CHUNK_MEMBERS]
        chunk: Json = {"members": part, "guild_id": guild.id, "chunk_index": index, "chunk_count": count, **extra}
        if wants_presences:
            chunk["presences"] = [guild.presences[m["user"]["id"]] for m in part if m["user"]["id"] in guild.presences]
        context.send("GUILD_MEMBERS_CHUNK", chunk)


def request_sounds(context: Context, d: Any) -> None:
    """Op 31: SOUNDBOARD_SOUNDS for each requested guild."""
    _require(isinstance(d, dict) and isinstance(d.get("guild_ids"), list), "guild_ids is a list")
    for value in d["guild_ids"]:
        if (guild := context.guild(value)) is not None:
            context.send("SOUNDBOARD_SOUNDS", {"soundboard_sounds": list(guild.sounds.values()), "guild_id": guild.id})


def request_channel_info(context: Context, d: Any) -> None:
    """Op 43: CHANNEL_INFO with the requested fields of the voice channels."""
    _require(isinstance(d, dict) and isinstance(d.get("fields"), list), "fields is a list")
    _require(set(map(str, d["fields"])) <= {"status", "voice_start_time"}, "fields are status and voice_start_time")
    guild = context.guild(d.get("guild_id"))
    if guild is not None:
        channels = voice.channel_info(guild, context.bot.id, list(map(str, d["fields"])))
        context.send("CHANNEL_INFO", {"guild_id": guild.id, "channels": channels})


COMMANDS: Mapping[int, Callable[[Context, Any], None]] = {
    PRESENCE_UPDATE: update_presence,
    VOICE_STATE_UPDATE: update_voice_state,
    REQUEST_GUILD_MEMBERS: request_members,
    REQUEST_SOUNDBOARD_SOUNDS: request_sounds,
    REQUEST_CHANNEL_INFO: request_channel_info,
}
