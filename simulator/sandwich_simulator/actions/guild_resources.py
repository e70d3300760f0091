"""Actions on a guild's other resources: roles, emojis, stickers, sounds, stages and scheduled events."""

from collections.abc import Iterator

from sandwich_simulator import entities
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.entities import Json
from sandwich_simulator.events import Event

ROLES_MAX = 10
EMOJIS_MAX = 8
STICKERS_MAX = 4
SOUNDS_MAX = 5
EVENTS_MAX = 3


def role(action: ActionContext) -> Iterator[Event]:
    """Renames, creates or deletes a role. Members lose a deleted role without an event of their own."""
    guild, rng, roll = action.guild, action.rng, action.rng.random()
    plain = [key for key, role in guild.roles.items() if key != guild.id and not role["managed"]]
    if roll < 0.4 and plain:
        found = guild.roles[rng.choice(plain)]
        found["name"] = entities.words(rng, 2)
        yield action.event("GUILD_ROLE_UPDATE", {"role": found, "guild_id": guild.id})
    elif roll < 0.7 and len(guild.roles) < ROLES_MAX:
        made = entities.role(rng, action.new_id(), len(guild.roles))
        guild.roles[made["id"]] = made
        yield action.event("GUILD_ROLE_CREATE", {"role": made, "guild_id": guild.id})
    elif len(plain) > 2:
        gone = rng.choice(plain)
        del guild.roles[gone]
        for member in guild.members.values():
            if gone in member["roles"]:
                member["roles"] = [key for key in member["roles"] if key != gone]
        yield action.event("GUILD_ROLE_DELETE", {"role_id": gone, "guild_id": guild.id})


def expressions(action: ActionContext) -> Iterator[Event]:
    """Changes emojis or stickers. The event carries the whole list."""
    guild, rng = action.guild, action.rng
    if rng.random() < 0.6:
        if len(guild.emojis) >= EMOJIS_MAX:
            del guild.emojis[next(iter(guild.emojis))]
        emoji = entities.emoji(rng, action.new_id())
        guild.emojis[emoji["id"]] = emoji
        yield action.event("GUILD_EMOJIS_UPDATE", {"guild_id": guild.id, "emojis": list(guild.emojis.values())})
        return
    if len(guild.stickers) >= STICKERS_MAX:
        del guild.stickers[next(iter(guild.stickers))]
    else:
        sticker = entities.sticker(rng, action.new_id(), guild.id)
        guild.stickers[sticker["id"]] = sticker
    yield action.event("GUILD_STICKERS_UPDATE", {"guild_id": guild.id, "stickers": list(guild.stickers.values())})


def sound(action: ActionContext) -> Iterator[Event]:
    """Creates, changes or deletes a soundboard sound; sometimes changes several at once."""
    guild, rng, roll = action.guild, action.rng, action.rng.random()
    ids = list(guild.sounds)
    if roll < 0.3 and len(ids) < SOUNDS_MAX:
        made = entities.sound(rng, action.new_id(), guild.id)
        guild.sounds[made["sound_id"]] = made
        yield action.event("GUILD_SOUNDBOARD_SOUND_CREATE", made)
    elif roll < 0.5 and ids:
        gone = rng.choice(ids)
        del guild.sounds[gone]
        yield action.event("GUILD_SOUNDBOARD_SOUND_DELETE", {"sound_id": gone, "guild_id": guild.id})
    elif ids:
        chosen = [guild.sounds[key] for key in rng.sample(ids, rng.randrange(1, len(ids) + 1))]
        for each in chosen:
            each["volume"] = round(rng.random(), 2)
        if len(chosen) == 1:
            yield action.event("GUILD_SOUNDBOARD_SOUND_UPDATE", chosen[0])
        else:
            yield action.event("GUILD_SOUNDBOARD_SOUNDS_UPDATE", {"soundboard_sounds": chosen, "guild_id": guild.id})


def stage(action: ActionContext) -> Iterator[Event]:
    """Starts a stage, changes its topic, or ends it."""
    guild, rng = action.guild, action.rng
    if guild.stages and rng.random() < 0.4:
        found = guild.stages[next(iter(guild.stages))]
        found["topic"] = entities.words(rng, 3)
        yield action.event("STAGE_INSTANCE_UPDATE", found)
    elif guild.stages:
        yield action.event("STAGE_INSTANCE_DELETE", guild.stages.pop(next(iter(guild.stages))))
    elif places := guild.channels_of(entities.STAGE):
        made = entities.stage_instance(rng, action.new_id(), guild.id, rng.choice(places))
        guild.stages[made["id"]] = made
        yield action.event("STAGE_INSTANCE_CREATE", made)


def scheduled_event(action: ActionContext) -> Iterator[Event]:
    """Creates, changes or deletes a scheduled event. An update does not repeat the number of interested users.

    Status 3 or 4 ends the event; no GUILD_SCHEDULED_EVENT_DELETE follows.
    """
    guild, rng, roll = action.guild, action.rng, action.rng.random()
    if len(guild.events) < EVENTS_MAX and roll < 0.6:
        start_ms = action.wall_ms + 86_400_000
        places = [None, *(guild.channels[key] for key in guild.channels_of(entities.VOICE, entities.STAGE))]
        made = entities.scheduled_event(
            rng, action.new_id(), guild.id, action.someone(), start_ms, channel=rng.choice(places)
        )
        guild.events[made["id"]] = made
        yield action.event("GUILD_SCHEDULED_EVENT_CREATE", made)
    elif guild.events and roll < 0.85:
        found = guild.events[rng.choice(list(guild.events))]
        found["description"] = entities.words(rng, 6)
        # Discord's valid transitions: scheduled to active or canceled, active to completed.
        found["status"] = rng.choice((1, 2, 4) if found["status"] == 1 else (2, 3))
        if found["status"] in (3, 4):
            del guild.events[found["id"]]
            guild.subscribers.pop(found["id"], None)
        data = {key: value for key, value in found.items() if key != "user_count"}
        yield action.event("GUILD_SCHEDULED_EVENT_UPDATE", data)
    elif guild.events:
        gone = rng.choice(list(guild.events))
        guild.subscribers.pop(gone, None)
        yield action.event("GUILD_SCHEDULED_EVENT_DELETE", guild.events.pop(gone))


def interest(action: ActionContext) -> Iterator[Event]:
    """Adds or removes a member's interest in a scheduled event."""
    guild, rng = action.guild, action.rng
    if not guild.events:
        return
    found, who = guild.events[rng.choice(list(guild.events))], action.someone()
    interested = guild.subscribers.setdefault(found["id"], set())
    data: Json = {"user_id": who, "guild_scheduled_event_id": found["id"], "guild_id": guild.id}
    if who in interested:
        interested.discard(who)
    else:
        interested.add(who)
    if "user_count" in found:
        found["user_count"] = len(interested)
    yield action.event(f"GUILD_SCHEDULED_EVENT_USER_{'ADD' if who in interested else 'REMOVE'}", data)
