"""Actions on messages, reactions, typing and pins."""

from collections.abc import Iterator

from sandwich_simulator import entities
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.entities import Json
from sandwich_simulator.events import Event

_EMOJI = ("👍", "🔥", "🎉")


def message_of(action: ActionContext, channel_id: str, author: str, content: str, *, is_starter: bool = False) -> Json:
    """A new message, counted in its channel. A forum post's starter message is not counted; it has the thread's id."""
    guild, rng = action.guild, action.rng
    thread = guild.threads.get(channel_id)
    place = thread or guild.channels[channel_id]
    message_id = channel_id if is_starter else action.new_id()
    if thread is not None and not is_starter:
        thread["message_count"] += 1
        thread["total_message_sent"] += 1
    place["last_message_id"] = message_id
    member = {key: value for key, value in guild.members[author].items() if key != "user"}
    message: Json = {
        "type": 0,
        "tts": False,
        "timestamp": entities.iso(action.wall_ms),
        "pinned": False,
        "nonce": str(rng.getrandbits(60)),
        "mentions": [],
        "mention_roles": [],
        "mention_everyone": False,
        "member": member,
        "id": message_id,
        "flags": 0,
        "embeds": [],
        "edited_timestamp": None,
        "content": content,
        "components": [],
        "channel_type": place["type"],
        "channel_id": channel_id,
        "author": guild.members[author]["user"],
        "attachments": [],
        "guild_id": guild.id,
    }
    guild.messages.put(message)
    return message


def message(action: ActionContext) -> Iterator[Event]:
    """A member sends a message."""
    place = action.rng.choice(action.guild.channels_of(entities.TEXT) + list(action.guild.threads))
    content = entities.words(action.rng, action.rng.randrange(1, 30))
    yield action.event("MESSAGE_CREATE", message_of(action, place, action.someone(), content))


def _new_version(action: ActionContext, old: Json, **changes: object) -> Event:
    """MESSAGE_UPDATE with the whole message as it is now, including reactions and current author."""
    new = {**old, **changes, "tts": False}
    author = action.guild.members.get(old["author"]["id"])
    new.pop("member", None)
    if author is not None:
        member = {key: value for key, value in author.items() if key != "user"}
        new |= {"author": author["user"], "member": member}
    counts = action.guild.messages.reactions(old["id"])
    new.pop("reactions", None)
    if counts:
        new["reactions"] = [
            {"emoji": {"id": None, "name": name}, "count": count, "me": False, "burst_colors": []}
            for name, count in counts.items()
        ]
    action.guild.messages.put(new)
    return action.event("MESSAGE_UPDATE", new)


def message_edit(action: ActionContext) -> Iterator[Event]:
    """Edits a message."""
    if (old := action.guild.messages.choose(action.rng)) is not None:
        content = entities.words(action.rng, action.rng.randrange(1, 30))
        yield _new_version(action, old, content=content, edited_timestamp=entities.iso(action.wall_ms))


def message_delete(action: ActionContext) -> Iterator[Event]:
    """Deletes a message, sometimes several of one channel. A deleted pinned message sends no CHANNEL_PINS_UPDATE."""
    guild = action.guild
    found = guild.messages.choose(action.rng)
    if found is None:
        return
    gone = [found]
    if action.rng.random() < 0.1:
        gone = guild.messages.of(found["channel_id"])[:10]
    for each in gone:
        guild.messages.remove(each)
        thread = guild.threads.get(each["channel_id"])
        if thread is not None and each["id"] != each["channel_id"]:
            thread["message_count"] = max(0, thread["message_count"] - 1)
    place = {"channel_id": found["channel_id"], "guild_id": guild.id}
    if len(gone) == 1:
        yield action.event("MESSAGE_DELETE", {"id": found["id"], **place})
    else:
        yield action.event("MESSAGE_DELETE_BULK", {"ids": [m["id"] for m in gone], **place})


def reaction(action: ActionContext) -> Iterator[Event]:
    """Adds or removes a reaction; rarely removes all."""
    guild = action.guild
    found = guild.messages.choose(action.rng)
    if found is None:
        return
    who, counts, roll = action.someone(), guild.messages.reactions(found["id"]), action.rng.random()
    place = {"message_id": found["id"], "channel_id": found["channel_id"], "guild_id": guild.id}
    name = action.rng.choice(_EMOJI)
    emoji = {"name": name, "id": None}
    if roll < 0.01:
        counts.clear()
        yield action.event("MESSAGE_REACTION_REMOVE_ALL", place)
    elif roll < 0.02:
        del counts[name]
        yield action.event("MESSAGE_REACTION_REMOVE_EMOJI", {"emoji": emoji, **place})
    elif roll < 0.2 and counts[name]:
        counts[name] -= 1
        if not counts[name]:
            del counts[name]
        yield action.event("MESSAGE_REACTION_REMOVE", _reaction_data(who, emoji, place))
    else:
        counts[name] += 1
        more: Json = {"message_author_id": found["author"]["id"], "member": guild.members[who]}
        yield action.event("MESSAGE_REACTION_ADD", _reaction_data(who, emoji, place) | more)


def _reaction_data(who: str, emoji: Json, place: Json) -> Json:
    return {"user_id": who, "type": 0, "emoji": emoji, "burst": False, **place}


def typing(action: ActionContext) -> Iterator[Event]:
    """A member starts typing."""
    who = action.someone()
    data = {
        "user_id": who,
        "timestamp": action.wall_ms // 1000,
        "member": action.guild.members[who],
        "channel_id": action.rng.choice(action.guild.channels_of(entities.TEXT)),
        "guild_id": action.guild.id,
    }
    yield action.event("TYPING_START", data)


def pin(action: ActionContext) -> Iterator[Event]:
    """Pins or unpins a message: the message changes, and its channel's `last_pin_timestamp`."""
    guild = action.guild
    found = guild.messages.choose(action.rng)
    if found is None:
        return
    place = guild.threads.get(found["channel_id"]) or guild.channels[found["channel_id"]]
    is_pinned = not found["pinned"]
    yield _new_version(action, found, pinned=is_pinned)
    others = any(message["pinned"] for message in guild.messages.of(found["channel_id"]))
    stamp = entities.iso(action.wall_ms) if is_pinned else place.get("last_pin_timestamp") if others else None
    place["last_pin_timestamp"] = stamp
    data: Json = {"last_pin_timestamp": stamp, "channel_id": found["channel_id"], "guild_id": guild.id}
    yield action.event("CHANNEL_PINS_UPDATE", data)
