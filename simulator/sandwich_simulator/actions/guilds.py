"""Actions on whole guilds: their own fields, outages, and bots that join and leave."""

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
    """Changes the guild's own fields. GUILD_UPDATE has roles, emojis and stickers, but no GUILD_CREATE-only fields."""
    guild = action.guild
    guild.base["name"] = entities.words(action.rng, 2).title()
    data = {key: value for key, value in guild.base.items() if key not in _OF_GUILD_CREATE}
    lists = {name: list(getattr(guild, name).values()) for name in ("roles", "emojis", "stickers")}
    yield action.event("GUILD_UPDATE", data | lists)


def outage(action: ActionContext) -> Iterator[Event]:
    """Starts the outage of a guild, or ends one with the guild unchanged."""
    world = action.world
    down = [g for g in world.known_guilds() if g.unavailable and not world.shared.is_silent(int(g.id))]
    if down and (len(down) >= OUTAGES_MAX or action.rng.random() < 0.5):
        down[0].unavailable = False
        yield Event("GUILD_CREATE", {}, int(down[0].id))
    elif not action.guild.unavailable:
        action.guild.unavailable = True
        yield action.event("GUILD_DELETE", {"unavailable": True, "id": action.guild.id})


def guild_repeated(action: ActionContext) -> Iterator[Event]:
    """Sends GUILD_CREATE of an available guild again, as after an outage without a GUILD_DELETE."""
    yield Event("GUILD_CREATE", {}, int(action.guild.id))


def come_and_go(action: ActionContext) -> Iterator[Event]:
    """Removes the bot from a guild, or adds it to one: a new guild, or one that other bots of its world are in."""
    world = action.world
    if world.has_surplus_guilds:
        yield from leave(action)
        return
    others = [guild for guild in world.shared.known_guilds() if not world.has_guild(int(guild.id))]
    available = [guild for guild in others if not guild.unavailable]
    if available and action.rng.random() < 0.5:
        chosen = action.rng.choice(available)
        yield from arrive(ActionContext(world, chosen, action.rng, action.wall_ms))
    else:
        new = world.join_guild()
        # "A bot can join an unavailable guild" (a Discord engineer): first a stub, the whole guild after the outage.
        new.unavailable = world.shared.config.outage_stubs and action.rng.random() < 0.5
        yield Event("GUILD_CREATE", {}, int(new.id), joined=True)


def arrive(action: ActionContext) -> Iterator[Event]:
    """Adds the bot to a guild with other bots. They receive its role and member; it receives the guild."""
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
    """Removes the bot. It receives GUILD_DELETE and sometimes its member removal; other bots its member and role."""
    guild, world, me = action.guild, action.world, action.world.me
    if me["id"] in guild.voice_states:
        yield from move(action, me["id"], None)
    own = [key for key in guild.members[me["id"]]["roles"] if guild.roles.get(key, {}).get("managed")]
    removed = {"user": me, "guild_id": guild.id}
    _forget_bot(guild, me["id"])
    world.leave_guild(int(guild.id))
    own_events = [action.event("GUILD_DELETE", {"id": guild.id}, only=me["id"])]
    if action.rng.random() < 0.5:
        own_events.insert(action.rng.randrange(2), action.event("GUILD_MEMBER_REMOVE", removed, only=me["id"]))
    yield from own_events
    yield action.event("GUILD_MEMBER_REMOVE", removed)
    for role_id in own:
        del guild.roles[role_id]
        yield action.event("GUILD_ROLE_DELETE", {"role_id": role_id, "guild_id": guild.id})


def _forget_bot(guild: GuildState, bot: str) -> None:
    del guild.members[bot], guild.views[bot]
    guild.base["member_count"] -= 1
    for members in guild.thread_members.values():
        members.pop(bot, None)
