"""Whole guilds: their own fields, outages, and bots that come and go."""

from collections.abc import Iterator

from sandwich_simulator import entities, visibility
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.building import bot_role
from sandwich_simulator.events import Event
from sandwich_simulator.guild_state import BotView, GuildState

from .voice import move

OUTAGES_MAX = 2
_OF_GUILD_CREATE = frozenset({"joined_at", "large", "member_count"})


def guild_update(action: ActionContext) -> Iterator[Event]:
    """The guild's own fields change; it is told with its roles, emojis and stickers, without what GUILD_CREATE adds."""
    guild = action.guild
    guild.base["name"] = entities.words(action.rng, 2).title()
    data = {key: value for key, value in guild.base.items() if key not in _OF_GUILD_CREATE}
    lists = {name: list(getattr(guild, name).values()) for name in ("roles", "emojis", "stickers")}
    yield action.event("GUILD_UPDATE", data | lists)


def outage(action: ActionContext) -> Iterator[Event]:
    """A guild is gone for a while, or is back as it was."""
    world = action.world
    down = [g for g in world.known_guilds() if g.unavailable and not world.shared.is_silent(int(g.id))]
    if down and (len(down) >= OUTAGES_MAX or action.rng.random() < 0.5):
        down[0].unavailable = False
        yield Event("GUILD_CREATE", {}, int(down[0].id))
    elif not action.guild.unavailable:
        action.guild.unavailable = True
        yield action.event("GUILD_DELETE", {"unavailable": True, "id": action.guild.id})


def told_again(action: ActionContext) -> Iterator[Event]:
    """A guild that is there comes once more, as after an outage that nobody was told of."""
    yield Event("GUILD_CREATE", {}, int(action.guild.id))


def come_and_go(action: ActionContext) -> Iterator[Event]:
    """The bot is removed from a guild, or added to one: to a new one, or to one where others of its world are."""
    world = action.world
    if world.has_surplus_guilds:
        yield from leave(action)
        return
    elsewhere = [guild for guild in world.shared.known_guilds() if not world.has_guild(int(guild.id))]
    there = [guild for guild in elsewhere if not guild.unavailable]
    if there and action.rng.random() < 0.5:
        chosen = action.rng.choice(there)
        yield from arrive(ActionContext(world, chosen, action.rng, action.wall_ms))
    else:
        new = world.join_guild()
        # "A bot can join an unavailable guild" (a Discord engineer): it comes as a stub, and whole when it is back.
        new.unavailable = world.shared.config.outage_stubs and action.rng.random() < 0.5
        yield Event("GUILD_CREATE", {}, int(new.id), joined=True)


def arrive(action: ActionContext) -> Iterator[Event]:
    """The bot is added to a guild where others are: they are told of its role and its member, it of the guild."""
    guild, world, me = action.guild, action.world, action.world.me
    own = bot_role(action.rng, action.new_id(), me)
    guild.roles[own["id"]] = own
    guild.members[me["id"]] = member = entities.member(action.rng, me, [own["id"]], action.wall_ms)
    guild.base["member_count"] += 1
    world.guild_ids[int(guild.id)] = None
    guild.views[me["id"]] = BotView(hidden=visibility.hidden_from(guild, me["id"]), joined=world.shared.moment)
    others = frozenset({me["id"]})
    yield action.event("GUILD_ROLE_CREATE", {"role": own, "guild_id": guild.id}, unseen_by=others)
    yield action.event("GUILD_MEMBER_ADD", {**member, "guild_id": guild.id}, unseen_by=others)
    yield Event("GUILD_CREATE", {}, int(guild.id), joined=True, only=me["id"])


def leave(action: ActionContext) -> Iterator[Event]:
    """The bot is removed. It is told so, sometimes also as a member; the others of its member and its role."""
    guild, world, me = action.guild, action.world, action.world.me
    if me["id"] in guild.voice_states:
        yield from move(action, me["id"], None)
    own = [key for key in guild.members[me["id"]]["roles"] if guild.roles.get(key, {}).get("managed")]
    removed = {"user": me, "guild_id": guild.id}
    _forget_bot(guild, me["id"])
    world.leave_guild(int(guild.id))
    told = [action.event("GUILD_DELETE", {"id": guild.id}, only=me["id"])]
    if action.rng.random() < 0.5:
        told.insert(action.rng.randrange(2), action.event("GUILD_MEMBER_REMOVE", removed, only=me["id"]))
    yield from told
    yield action.event("GUILD_MEMBER_REMOVE", removed)
    for role_id in own:
        del guild.roles[role_id]
        yield action.event("GUILD_ROLE_DELETE", {"role_id": role_id, "guild_id": guild.id})


def _forget_bot(guild: GuildState, bot: str) -> None:
    del guild.members[bot], guild.views[bot]
    guild.base["member_count"] -= 1
    for members in guild.thread_members.values():
        members.pop(bot, None)
