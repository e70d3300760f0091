"""Acting for a bot: requests to Discord through a shard, presence, voice, own events. By the cluster's RPC."""

from typing import Annotated, Any, Literal

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_node.api.asking import ERRORS, ask
from sandwich_node.api.models import Model
from sandwich_node.api.resources.groups import check_app
from sandwich_node.api.resources.lookups import Snowflake, checked
from sandwich_node.api.routing import Call, Route

TAG = "commands"
MEMBERS_TIMEOUT_S = 30.0
ShardNumber = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


class MembersRequest(Model):
    """Members of a guild, requested from Discord: those with `user_ids`, whose name begins with `query`, or all.

    Without both it is all of them, once in 30 s for each guild. `want` `count`: the answer has no members, which are
    then in the cache. `timeout`: seconds.
    """

    query: str | None = Field(default=None, max_length=100)
    user_ids: list[Snowflake] | None = Field(default=None, min_length=1, max_length=100)
    limit: int = Field(default=0, ge=0, le=100)
    presences: bool = False
    want: Literal["members", "count"] = "members"
    timeout: float = Field(default=MEMBERS_TIMEOUT_S, gt=0, le=300)


class FoundMembers(Model):
    """What Discord sent."""

    members: list[dict[str, Any]]
    presences: list[dict[str, Any]]
    not_found: list[str]
    count: int


class ChannelInfoRequest(Model):
    """Which ephemeral fields of a guild's voice channels."""

    fields: list[Literal["status", "voice_start_time"]] = Field(
        default=["status", "voice_start_time"], min_length=1, max_length=2
    )


class GatewayAnswer(Model):
    """What Discord answered."""

    answer: Any


class VoiceStateRequest(Model):
    """Join or move to a voice channel; `channel_id` null: leave."""

    channel_id: Snowflake | None
    self_mute: bool = False
    self_deaf: bool = False


class PresenceRequest(Model):
    """The bot's presence, on one shard, or on all. It lasts until a shard begins a new session."""

    status: Literal["online", "dnd", "idle", "invisible", "offline"] = "online"
    activities: list[dict[str, Any]] = Field(default=[], max_length=10)
    afk: bool = False
    since: int | None = Field(default=None, ge=0, le=2**53)
    shard: ShardNumber | None = None


class PresenceSet(Model):
    """On how many shards it was set, and why it was not on others."""

    shards: int
    failed: dict[str, str]


class RelayRequest(Model):
    """An own event among those of a guild or a shard. `type`: 1 to 64 of A-Z, 0-9 and `_`; none of Discord's."""

    type: str = Field(pattern=r"^[A-Z0-9_]{1,64}$")
    data: Any
    guild_id: Snowflake | None = None
    shard: ShardNumber | None = None


class Relayed(Model):
    """The id of the stored event."""

    id: str


async def _members(call: Call) -> FoundMembers:
    body: MembersRequest = call.body
    guild = _guild(call)
    fields: dict[str, Any] = {"guild_id": guild, "limit": body.limit, "presences": body.presences, "want": body.want}
    if body.user_ids is not None:
        fields["user_ids"] = body.user_ids
    if body.query is not None or body.user_ids is None:
        fields["query"] = body.query or ""
    found = await ask(call, call.app, "request_members", timeout=body.timeout, **fields)
    return FoundMembers(
        members=found.get("members") or [],
        presences=found.get("presences") or [],
        not_found=[str(user) for user in found.get("not_found") or ()],
        count=found["count"],
    )


async def _sounds(call: Call) -> GatewayAnswer:
    return GatewayAnswer(answer=await ask(call, call.app, "request_sounds", guild_id=_guild(call)))


async def _channel_info(call: Call) -> GatewayAnswer:
    fields = call.body.fields
    return GatewayAnswer(answer=await ask(call, call.app, "request_channel_info", guild_id=_guild(call), fields=fields))


async def _voice(call: Call) -> GatewayAnswer:
    body: VoiceStateRequest = call.body
    guild = _guild(call)
    call.changes.after = {"guild": guild, "voice_channel": body.channel_id}
    answer = await ask(
        call,
        call.app,
        "update_voice_state",
        guild_id=guild,
        channel_id=body.channel_id,
        self_mute=body.self_mute,
        self_deaf=body.self_deaf,
    )
    return GatewayAnswer(answer=answer)


async def _presence(call: Call) -> PresenceSet:
    body: PresenceRequest = call.body
    check_app(call.cluster.view(), call.app)
    fields = body.model_dump(exclude={"shard"})
    if body.shard is not None:
        fields["shard"] = body.shard
    call.changes.after = {"presence": body.status}
    found = await ask(call, call.app, "update_presence", **fields)
    if body.shard is not None or not found:
        return PresenceSet(shards=1, failed={})
    return PresenceSet(shards=found["shards"], failed={str(shard): why for shard, why in found["failed"].items()})


async def _relay(call: Call) -> Relayed:
    body: RelayRequest = call.body
    check_app(call.cluster.view(), call.app)
    fields: dict[str, Any] = {"type": body.type, "data": body.data}
    fields |= {name: value for name, value in (("guild_id", body.guild_id), ("shard", body.shard)) if value is not None}
    found = await ask(call, call.app, "relay", **fields)
    call.changes.after = {"event": body.type}
    return Relayed(id=found["id"])


def _guild(call: Call) -> str:
    check_app(call.cluster.view(), call.app)
    return checked(call, "guild_id")


def _route(
    path: str, summary: str, handler: Any, result: type[Model], body: type[Model] | None, *, asks: bool = False
) -> Route:
    """`asks`: it changes nothing."""
    return Route(
        method="POST",
        path=path,
        summary=summary,
        role=Role.OPERATOR,
        handler=handler,
        tag=TAG,
        body=body,
        result=result,
        audited="none" if asks else "some",
        errors=ERRORS,
    )


_GUILD = "/apps/{app}/guilds/{guild_id}"
ROUTES = (
    _route(
        f"{_GUILD}/request_members",
        "Request members from Discord",
        _members,
        FoundMembers,
        MembersRequest,
        asks=True,
    ),
    _route(
        f"{_GUILD}/request_sounds",
        "Request the soundboard sounds of a guild",
        _sounds,
        GatewayAnswer,
        None,
        asks=True,
    ),
    _route(
        f"{_GUILD}/request_channel_info",
        "Request fields of voice channels",
        _channel_info,
        GatewayAnswer,
        ChannelInfoRequest,
        asks=True,
    ),
    _route(f"{_GUILD}/voice_state", "Join, move to or leave a voice channel", _voice, GatewayAnswer, VoiceStateRequest),
    _route("/apps/{app}/presence", "Set the presence of a bot", _presence, PresenceSet, PresenceRequest),
    _route("/apps/{app}/events", "Publish an own event among those of a bot", _relay, Relayed, RelayRequest),
)
