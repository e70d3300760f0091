"""What the cache has of guilds and users, and where a guild is. Answered by the cluster's RPC, from the cache."""

import asyncio
from typing import Annotated, Any

from pydantic import Field

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.operations.errors import NotFound, Unavailable
from sandwich_coordinator.sealing import SealingError
from sandwich_node.api.asking import ERRORS, ask
from sandwich_node.api.models import Model
from sandwich_node.api.problem_details import ApiError, code_of
from sandwich_node.api.resources.groups import check_app
from sandwich_node.api.routing import Call, Route
from sandwich_node.api.shown.shards import UNCLAIMED

TAG = "lookups"
AT_ONCE = 16
NAMES_MAX = 200
MEMBERS_MAX = 1000
NO_ANSWER = (ApiError, Unavailable, SealingError)
"""What a question to one application can end with."""
Snowflake = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]

COLLECTIONS = {
    "channels": ("fetch_channels", "fetch_channel", "channel_id"),
    "threads": ("fetch_threads", "fetch_thread", "thread_id"),
    "roles": ("fetch_roles", "fetch_role", "role_id"),
    "voice_states": ("fetch_voice_states", "fetch_voice_state", "user_id"),
    "emojis": ("fetch_emojis", "", ""),
    "stickers": ("fetch_stickers", "", ""),
    "scheduled_events": ("fetch_scheduled_events", "", ""),
    "stages": ("fetch_stages", "", ""),
    "sounds": ("fetch_sounds", "", ""),
    "members": ("", "fetch_member", "user_id"),
}
"""By name: the verb for all, the verb for one, and the name of its id. Members have a route of their own."""


class Location(Model):
    """The shard of a guild for one application, and the node that runs it now; null: no node."""

    app: str
    group: int
    shard: int
    state: str
    node: str | None


class GuildLocations(Model):
    """The applications that are in a guild."""

    guild_id: str
    locations: list[Location]
    unanswered: list[str]


class Guild(Model):
    """A guild as Discord describes it, without its collections, and where it is."""

    guild_id: str
    guild: dict[str, Any]
    location: Location


class Items(Model):
    """A collection of a guild, as Discord describes its items."""

    guild_id: str
    items: list[dict[str, Any]]


class Item(Model):
    """One item of a guild, as Discord describes it."""

    guild_id: str
    item: dict[str, Any]


class Members(Model):
    """Members of a guild from the cache. `complete`: these are all that were asked for."""

    guild_id: str
    members: list[dict[str, Any]]
    complete: bool


class MembersQuery(Model):
    """Which members: those whose name begins with `query`, or the ids in `user_ids`, separated by commas."""

    query: str | None = Field(default=None, max_length=100)
    user_ids: str | None = Field(default=None, max_length=2100, pattern=r"^[0-9]{1,20}(,[0-9]{1,20}){0,99}$")
    limit: int = Field(default=100, ge=1, le=MEMBERS_MAX)


class PermissionsQuery(Model):
    """In which channel; null: in the guild."""

    channel_id: Snowflake | None = None


class Permissions(Model):
    """What a member may do, as Discord's bits in a decimal number."""

    guild_id: str
    user_id: str
    permissions: str


class User(Model):
    """A user as Discord describes them."""

    user_id: str
    user: dict[str, Any]


class MutualQuery(Model):
    """Of which application, and whether with the guilds' names and icons."""

    app: str | None = Field(default=None, max_length=64)
    names: bool = False


class AppMutualQuery(Model):
    """Whether with the guilds' names and icons."""

    names: bool = False


class MutualGuild(Model):
    """A guild that a user shares with applications. `name`, `icon`: null where they were not asked for."""

    guild_id: str
    apps: list[str]
    name: str | None
    icon: str | None


class MutualGuilds(Model):
    """The guilds that a user shares with the applications. `unanswered`: applications whose cache did not answer."""

    user_id: str
    guilds: list[MutualGuild]
    unanswered: list[str]


def checked(call: Call, name: str) -> str:
    """A Discord id in the path. Raises ApiError."""
    text = call.path[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and 0 < int(text) < 2**64):
        raise ApiError("not-found", f"{name}: {text[:32]!r} is no id of Discord, which is a number")
    return text


def _apps(call: Call, only: str | None) -> list[str]:
    """The applications to ask. Raises NotFound."""
    view = call.cluster.view()
    if only is not None and (only not in view.apps or not call.identity.sees(only)):
        raise NotFound("application", only, filter(call.identity.sees, view.apps))
    return [name for name in sorted(view.apps) if call.identity.sees(name) and only in (None, name)]


async def _of_each(call: Call, apps: list[str], verb: str, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    """What each application answers, and those that did not. Raises what the first one did when none answers."""
    found: dict[str, Any] = {}
    unanswered: list[str] = []
    errors: list[Exception] = []
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(app: str) -> None:
        try:
            async with turns:
                found[app] = await ask(call, app, verb, **fields)
        except NO_ANSWER as error:
            # Refused: it keeps no cache.
            if code_of(error) not in ("not-found", "refused"):
                unanswered.append(app)
                errors.append(error)

    async with asyncio.TaskGroup() as tasks:
        for app in apps:
            tasks.create_task(one(app))
    if errors and not found and len(errors) == len(apps):
        raise errors[0]
    return found, sorted(unanswered)


def _location(call: Call, app: str, at: dict[str, Any]) -> Location:
    claim = call.cluster.view().claims.get(ShardId(app, at["group"], at["shard"]))
    return Location(
        app=app,
        group=at["group"],
        shard=at["shard"],
        state=claim.record.state if claim is not None else UNCLAIMED,
        node=claim.record.node if claim is not None else None,
    )


async def _where(call: Call) -> GuildLocations:
    guild = checked(call, "guild_id")
    found, unanswered = await _of_each(call, _apps(call, None), "where_is_guild", guild_id=guild)
    if not found and not unanswered:
        raise ApiError("not-found", f"no application is in guild {guild}, or has seen it yet")
    locations = [_location(call, app, at) for app, at in sorted(found.items())]
    return GuildLocations(guild_id=guild, locations=locations, unanswered=unanswered)


async def _guild(call: Call) -> Guild:
    guild = checked(call, "guild_id")
    check_app(call.cluster.view(), call.app)
    async with asyncio.TaskGroup() as tasks:
        at = tasks.create_task(_caught(call, "where_is_guild", guild_id=guild))
        found = tasks.create_task(_caught(call, "fetch_guild", guild_id=guild))
    for result in (at.result(), found.result()):
        if isinstance(result, Exception):
            raise result
    return Guild(guild_id=guild, guild=found.result(), location=_location(call, call.app, at.result()))


async def _caught(call: Call, verb: str, **fields: Any) -> Any:
    """The answer, or why there is none: a task group would put the error into a group."""
    try:
        return await ask(call, call.app, verb, **fields)
    except Exception as error:
        return error


def _verbs(call: Call) -> tuple[str, str, str]:
    check_app(call.cluster.view(), call.app)
    name = call.path["collection"]
    if name not in COLLECTIONS:
        raise ApiError("not-found", f"a guild has no {name[:32]!r}; it has {', '.join(COLLECTIONS)}")
    return COLLECTIONS[name]


async def _collection(call: Call) -> Items:
    guild, (verb, _, _) = checked(call, "guild_id"), _verbs(call)
    return Items(guild_id=guild, items=await ask(call, call.app, verb, guild_id=guild))


async def _item(call: Call) -> Item:
    guild, item, (_, verb, name) = checked(call, "guild_id"), checked(call, "item_id"), _verbs(call)
    if not verb:
        raise ApiError("not-found", f"single {call.path['collection']} are not looked up: ask for all of them")
    fields: dict[str, Any] = {"guild_id": guild, name: item}
    return Item(guild_id=guild, item=await ask(call, call.app, verb, **fields))


async def _members(call: Call) -> Members:
    query: MembersQuery = call.query
    guild = checked(call, "guild_id")
    check_app(call.cluster.view(), call.app)
    fields: dict[str, Any] = {"guild_id": guild}
    if query.user_ids is not None:
        if query.query is not None:
            raise ApiError("invalid", "give either query or user_ids")
        fields["user_ids"] = query.user_ids.split(",")
    else:
        fields |= {"query": query.query or "", "limit": query.limit}
    found = await ask(call, call.app, "fetch_members", **fields)
    return Members(guild_id=guild, members=found["members"], complete=found["complete"])


async def _permissions(call: Call) -> Permissions:
    guild, user = checked(call, "guild_id"), checked(call, "user_id")
    check_app(call.cluster.view(), call.app)
    channel = call.query.channel_id
    more: dict[str, Any] = {} if channel is None else {"channel_id": channel}
    found = await ask(call, call.app, "permissions", guild_id=guild, user_id=user, **more)
    return Permissions(guild_id=guild, user_id=user, permissions=str(found["permissions"]))


async def _user(call: Call) -> User:
    user = checked(call, "user_id")
    check_app(call.cluster.view(), call.app)
    return User(user_id=user, user=await ask(call, call.app, "fetch_user", user_id=user))


async def _mutual(call: Call) -> MutualGuilds:
    user = checked(call, "user_id")
    apps = _apps(call, call.path.get("app") or call.query.app)
    found, unanswered = await _of_each(call, apps, "mutual_guilds", user_id=user)
    shared: dict[str, list[str]] = {}
    for app, by_app in sorted(found.items()):
        for guild in by_app.get(app, ()):
            shared.setdefault(guild, []).append(app)
    named = await _named(call, shared) if call.query.names else {}
    guilds = [
        MutualGuild(guild_id=guild, apps=shared[guild], **named.get(guild, {"name": None, "icon": None}))
        for guild in sorted(shared, key=int)
    ]
    return MutualGuilds(user_id=user, guilds=guilds, unanswered=unanswered)


async def _named(call: Call, shared: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Name and icon of the first guilds, some at a time."""
    named: dict[str, dict[str, Any]] = {}
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(guild: str, app: str) -> None:
        try:
            async with turns:
                found = await ask(call, app, "fetch_guild", guild_id=guild)
        except NO_ANSWER:
            return
        named[guild] = {"name": found.get("name"), "icon": found.get("icon")}

    async with asyncio.TaskGroup() as tasks:
        for guild in sorted(shared, key=int)[:NAMES_MAX]:
            tasks.create_task(one(guild, shared[guild][0]))
    return named


def _route(path: str, summary: str, handler: Any, result: type[Model], **more: Any) -> Route:
    return Route(
        method="GET",
        path=path,
        summary=summary,
        role=Role.VIEWER,
        handler=handler,
        tag=TAG,
        result=result,
        errors=ERRORS,
        **more,
    )


_GUILD = "/apps/{app}/guilds/{guild_id}"
ROUTES = (
    _route("/guilds/{guild_id}", "Which applications are in a guild, and which shards have it", _where, GuildLocations),
    _route(
        "/users/{user_id}/mutual_guilds",
        "The guilds that a user shares with the applications",
        _mutual,
        MutualGuilds,
        query=MutualQuery,
        description=f"With `names=true` the first {NAMES_MAX} guilds have their names and icons.",
    ),
    _route("/apps/{app}/users/{user_id}", "A user, from the cache", _user, User),
    _route(
        "/apps/{app}/users/{user_id}/mutual_guilds",
        "The guilds that a user shares with an application",
        _mutual,
        MutualGuilds,
        query=AppMutualQuery,
    ),
    _route(_GUILD, "A guild, from the cache", _guild, Guild),
    _route(f"{_GUILD}/members", "Members of a guild, from the cache", _members, Members, query=MembersQuery),
    _route(
        f"{_GUILD}/members/{{user_id}}/permissions",
        "What a member may do in a guild or channel",
        _permissions,
        Permissions,
        query=PermissionsQuery,
    ),
    _route(
        f"{_GUILD}/{{collection}}",
        "A collection of a guild, from the cache",
        _collection,
        Items,
        description=f"One of {', '.join(name for name, (verb, _, _) in COLLECTIONS.items() if verb)}.",
    ),
    _route(
        f"{_GUILD}/{{collection}}/{{item_id}}",
        "One item of a guild, from the cache",
        _item,
        Item,
        description=f"Of {', '.join(name for name, (_, verb, _) in COLLECTIONS.items() if verb)}.",
    ),
)
