"""Actions on presences, members and user names."""

from collections.abc import Iterator

from sandwich_simulator import entities
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.building import assignable_roles
from sandwich_simulator.entities import Json
from sandwich_simulator.events import Event

from .voice import move

RENAMES_GUILDS_MAX = 2_000
"""In larger worlds users keep their names: a change is sent in each of the user's guilds, which must then be built."""
_NAMED = (
    *("id", "username", "discriminator", "global_name", "avatar", "public_flags"),
    *("avatar_decoration_data", "collectibles", "primary_guild"),
)
"""The user fields that a presence carries after a change; clients rely on them."""


def presence(action: ActionContext) -> Iterator[Event]:
    """A member goes online, offline, or changes activity. Sometimes the event has only the fields that clients need."""
    guild, who = action.guild, action.someone()
    known = guild.presences.get(who)
    if known is None:
        shown = guild.presences[who] = entities.presence(action.rng, who, action.wall_ms)
    elif action.rng.random() < 0.4:
        del guild.presences[who]
        shown = {"user": {"id": who}, "status": "offline", "client_status": {}, "activities": []}
    else:
        new = entities.presence(action.rng, who, action.wall_ms)
        is_partial = action.rng.random() < 0.2
        shown = {key: new[key] for key in ("user", "status", "client_status", "activities")} if is_partial else new
        guild.presences[who] = known | shown
    yield action.event("PRESENCE_UPDATE", {**shown, "guild_id": guild.id})


def member_update(action: ActionContext) -> Iterator[Event]:
    """Changes a member's nick, roles or time-out. Optional fields are sometimes absent."""
    rng, member = action.rng, action.guild.members[action.someone()]
    roles = assignable_roles(action.guild)
    member["nick"] = entities.words(rng, 2) if rng.random() < 0.7 else None
    member["roles"] = sorted(rng.sample(roles, rng.randrange(len(roles) + 1)))
    if rng.random() < 0.1:
        until = member["communication_disabled_until"]
        member["communication_disabled_until"] = None if until else entities.iso(action.wall_ms + 600_000)
    data = {**member, "guild_id": action.guild.id}
    if rng.random() < 0.2:
        for name in ("deaf", "mute", "premium_since"):
            del data[name]
    yield action.event("GUILD_MEMBER_UPDATE", data)


def bot_member_update(action: ActionContext) -> Iterator[Event]:
    """Changes a bot's roles, and so perhaps the channels that it may view."""
    guild, rng = action.guild, action.rng
    member = guild.members[rng.choice(list(guild.views))]
    own = [key for key in member["roles"] if key in guild.roles and guild.roles[key]["managed"]]
    roles = assignable_roles(guild)
    member["roles"] = [*own, *sorted(rng.sample(roles, rng.randrange(min(3, len(roles) + 1))))]
    yield action.event("GUILD_MEMBER_UPDATE", {**member, "guild_id": guild.id})


def member_leave(action: ActionContext) -> Iterator[Event]:
    """A member leaves; presence and voice state go with it."""
    guild, who = action.guild, action.someone()
    if len(action.people) < 3 or who == guild.base["owner_id"]:
        return
    if who in guild.voice_states:
        yield from move(action, who, None)
    guild.presences.pop(who, None)
    user = guild.members.pop(who)["user"]
    guild.base["member_count"] -= 1
    yield action.event("GUILD_MEMBER_REMOVE", {"user": user, "guild_id": guild.id})


def member_again(action: ActionContext) -> Iterator[Event]:
    """GUILD_MEMBER_ADD of a user who is a member already; Discord's documentation says that this may happen."""
    member = action.guild.members[action.someone()]
    yield action.event("GUILD_MEMBER_ADD", {**member, "guild_id": action.guild.id})


def renamed(action: ActionContext) -> Iterator[Event]:
    """A user changes name or avatar: a member update in each of the user's guilds, with presences where online."""
    if len(action.world.guild_ids) > RENAMES_GUILDS_MAX:
        return
    old = action.guild.members[action.someone()]["user"]
    user = old | _changes(action)
    for guild in action.world.shared.rename(user):
        if guild.unavailable:
            continue
        guild_id, member = int(guild.id), guild.members[user["id"]]
        shown = guild.presences.get(user["id"])
        if shown is not None and action.rng.random() < 0.5:
            data: Json = {**shown, "user": {key: user[key] for key in _NAMED}, "guild_id": guild.id}
            yield Event("PRESENCE_UPDATE", data, guild_id)
        yield Event("GUILD_MEMBER_UPDATE", {**member, "guild_id": guild.id}, guild_id)


def bot_renamed(action: ActionContext) -> Iterator[Event]:
    """The bot changes its name: USER_UPDATE, and an update of its own member in every guild."""
    world = action.world
    if len(world.guild_ids) > RENAMES_GUILDS_MAX:
        return
    world.me = world.me | {"avatar": entities.hex_hash(action.rng), "username": entities.words(action.rng, 1)}
    extra: Json = {"verified": True, "mfa_enabled": True, "flags": 0, "email": None}
    yield Event("USER_UPDATE", world.me | extra, None)
    for guild_id in list(world.guild_ids):
        world.guild(guild_id)
    for guild in world.shared.rename(world.me):
        if not guild.unavailable:
            yield Event("GUILD_MEMBER_UPDATE", {**guild.members[world.id], "guild_id": guild.id}, int(guild.id))


def _changes(action: ActionContext) -> Json:
    rng = action.rng
    if rng.random() < 0.5:
        return {"avatar": entities.hex_hash(rng)}
    return {"username": f"{entities.words(rng, 1)}{rng.randrange(10_000)}", "global_name": entities.words(rng, 1)}
