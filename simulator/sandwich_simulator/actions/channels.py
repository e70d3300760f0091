"""Actions on channels, categories and permission overwrites."""

from collections.abc import Iterator

from sandwich_simulator import entities
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.building import overwrites
from sandwich_simulator.entities import Json
from sandwich_simulator.events import Event

from .voice import move

CHANNELS_MAX = 14
CATEGORIES_MAX = 3
_TEXTS_MIN = 2


def channel(action: ActionContext) -> Iterator[Event]:
    """Changes, moves, creates or deletes a channel."""
    guild, roll = action.guild, action.rng.random()
    if roll < 0.35:
        yield from _topic_changed(action)
    elif roll < 0.5:
        yield from _moved_channel(action)
    elif roll < 0.75 and len(guild.channels) < CHANNELS_MAX:
        yield from _created(action)
    else:
        yield from _deleted(action)


def channel_overwrites(action: ActionContext) -> Iterator[Event]:
    """Changes the permission overwrites of a channel. The gateway sends what follows to bots that see more or less."""
    guild, rng = action.guild, action.rng
    found = guild.channels[rng.choice(list(guild.channels))]
    found["permission_overwrites"] = overwrites(rng, guild, action.world.shared.config.hidden_channels)
    yield _update(action, found)


def _update(action: ActionContext, found: Json) -> Event:
    found["version"] += 1
    return action.event("CHANNEL_UPDATE", {**found, "guild_id": action.guild.id})


def _topic_changed(action: ActionContext) -> Iterator[Event]:
    found = action.guild.channels[action.rng.choice(action.guild.channels_of(entities.TEXT))]
    found["topic"] = entities.words(action.rng, 8)
    yield _update(action, found)


def _category(action: ActionContext) -> str | None:
    return action.rng.choice([*action.guild.channels_of(entities.CATEGORY), None])


def _moved_channel(action: ActionContext) -> Iterator[Event]:
    guild, rng = action.guild, action.rng
    found = guild.channels[rng.choice(list(guild.channels))]
    found["position"] = rng.randrange(CHANNELS_MAX)
    if found["type"] != entities.CATEGORY:
        found["parent_id"] = _category(action)
    yield _update(action, found)


def _created(action: ActionContext) -> Iterator[Event]:
    guild, rng = action.guild, action.rng
    kinds = [entities.TEXT, entities.TEXT, entities.VOICE, entities.FORUM, entities.STAGE]
    if len(guild.channels_of(entities.CATEGORY)) < CATEGORIES_MAX:
        kinds.append(entities.CATEGORY)
    kind = rng.choice(kinds)
    parent = None if kind == entities.CATEGORY else _category(action)
    made = entities.channel(rng, action.new_id(), kind, position=len(guild.channels), parent=parent)
    made["permission_overwrites"] = overwrites(rng, guild, action.world.shared.config.hidden_channels)
    guild.channels[made["id"]] = made
    yield action.event("CHANNEL_CREATE", {**made, "guild_id": guild.id})


def _deleted(action: ActionContext) -> Iterator[Event]:
    """Deletes a channel with its threads, messages, stages, scheduled events and invites, without events for these.

    "You should observe the CHANNEL_DELETE event and clean up any associated resources" (a Discord engineer). Users in a
    voice channel leave it with events, and each child of a deleted category gets an update without a parent.
    """
    guild, rng = action.guild, action.rng
    kept = {guild.channels_of(entities.VOICE)[0], *guild.channels_of(entities.TEXT)[:_TEXTS_MIN]}
    choices = [key for key in guild.channels if key not in kept]
    if not choices:
        return
    gone = rng.choice(choices)
    for who in [key for key, state in guild.voice_states.items() if state["channel_id"] == gone]:
        yield from move(action, who, None)
    data, blind = {**guild.channels[gone], "guild_id": guild.id}, guild.unseen_by(gone)
    del guild.channels[gone]
    guild.voice_info.pop(gone, None)
    for places in (guild.threads, guild.archived):
        for key in [key for key, thread in places.items() if thread["parent_id"] == gone]:
            del places[key], guild.thread_members[key]
            guild.messages.drop(key)
    for things in (guild.stages, guild.invites, guild.events):
        for key in [key for key, thing in things.items() if thing["channel_id"] == gone]:
            del things[key]
            guild.subscribers.pop(key, None)
    guild.messages.drop(gone)
    yield action.event("CHANNEL_DELETE", data, unseen_by=blind)
    for child in guild.channels.values():
        if child["parent_id"] == gone:
            child["parent_id"] = None
            yield _update(action, child)
