"""Messages, reactions, typing, pins."""

from collections.abc import Iterator

from sandwich_simulator import entities
from sandwich_simulator.entities import Json
from sandwich_simulator.events import Event
from sandwich_simulator.scene import Scene

_EMOJI = ("👍", "🔥", "🎉")


def message_of(scene: Scene, channel_id: str, author: str, content: str, *, is_starter: bool = False) -> Json:
    """A new message, already counted in its channel. The starter of a forum's post is not: it has the thread's id."""
    guild, rng = scene.guild, scene.rng
    thread = guild.threads.get(channel_id)
    place = thread or guild.channels[channel_id]
    message_id = channel_id if is_starter else scene.new_id()
    if thread is not None and not is_starter:
        thread["message_count"] += 1
        thread["total_message_sent"] += 1
    place["last_message_id"] = message_id
    member = {key: value for key, value in guild.members[author].items() if key != "user"}
    message: Json = {
        "type": 0,
        "tts": False,
        "timestamp": entities.iso(scene.wall_ms),
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


def message(scene: Scene) -> Iterator[Event]:
    """Somebody says something."""
    place = scene.rng.choice(scene.guild.channels_of(entities.TEXT) + list(scene.guild.threads))
    content = entities.words(scene.rng, scene.rng.randrange(1, 30))
    yield scene.event("MESSAGE_CREATE", message_of(scene, place, scene.someone(), content))


def _new_version(scene: Scene, old: Json, **changes: object) -> Event:
    """MESSAGE_UPDATE is the whole message as it is now, with its reactions, and its author as they are now."""
    new = {**old, **changes, "tts": False}
    author = scene.guild.members.get(old["author"]["id"])
    new.pop("member", None)
    if author is not None:
        member = {key: value for key, value in author.items() if key != "user"}
        new |= {"author": author["user"], "member": member}
    counts = scene.guild.messages.reactions(old["id"])
    new.pop("reactions", None)
    if counts:
        new["reactions"] = [
            {"emoji": {"id": None, "name": name}, "count": count, "me": False, "burst_colors": []}
            for name, count in counts.items()
        ]
    scene.guild.messages.put(new)
    return scene.event("MESSAGE_UPDATE", new)


def message_edit(scene: Scene) -> Iterator[Event]:
    """Somebody edits a message."""
    if (old := scene.guild.messages.choose(scene.rng)) is not None:
        content = entities.words(scene.rng, scene.rng.randrange(1, 30))
        yield _new_version(scene, old, content=content, edited_timestamp=entities.iso(scene.wall_ms))


def message_delete(scene: Scene) -> Iterator[Event]:
    """A message is deleted, now and then some of one channel at once. What was pinned goes without a word of pins."""
    guild = scene.guild
    found = guild.messages.choose(scene.rng)
    if found is None:
        return
    gone = [found]
    if scene.rng.random() < 0.1:
        gone = guild.messages.of(found["channel_id"])[:10]
    for each in gone:
        guild.messages.remove(each)
        thread = guild.threads.get(each["channel_id"])
        if thread is not None and each["id"] != each["channel_id"]:
            thread["message_count"] = max(0, thread["message_count"] - 1)
    place = {"channel_id": found["channel_id"], "guild_id": guild.id}
    if len(gone) == 1:
        yield scene.event("MESSAGE_DELETE", {"id": found["id"], **place})
    else:
        yield scene.event("MESSAGE_DELETE_BULK", {"ids": [m["id"] for m in gone], **place})


def reaction(scene: Scene) -> Iterator[Event]:
    """Somebody reacts to a message, or no longer does; rarely all reactions go."""
    guild = scene.guild
    found = guild.messages.choose(scene.rng)
    if found is None:
        return
    who, counts, roll = scene.someone(), guild.messages.reactions(found["id"]), scene.rng.random()
    place = {"message_id": found["id"], "channel_id": found["channel_id"], "guild_id": guild.id}
    name = scene.rng.choice(_EMOJI)
    emoji = {"name": name, "id": None}
    if roll < 0.01:
        counts.clear()
        yield scene.event("MESSAGE_REACTION_REMOVE_ALL", place)
    elif roll < 0.02:
        del counts[name]
        yield scene.event("MESSAGE_REACTION_REMOVE_EMOJI", {"emoji": emoji, **place})
    elif roll < 0.2 and counts[name]:
        counts[name] -= 1
        if not counts[name]:
            del counts[name]
        yield scene.event("MESSAGE_REACTION_REMOVE", _reaction_data(who, emoji, place))
    else:
        counts[name] += 1
        more: Json = {"message_author_id": found["author"]["id"], "member": guild.members[who]}
        yield scene.event("MESSAGE_REACTION_ADD", _reaction_data(who, emoji, place) | more)


def _reaction_data(who: str, emoji: Json, place: Json) -> Json:
    return {"user_id": who, "type": 0, "emoji": emoji, "burst": False, **place}


def typing(scene: Scene) -> Iterator[Event]:
    """Somebody begins to type."""
    who = scene.someone()
    data = {
        "user_id": who,
        "timestamp": scene.wall_ms // 1000,
        "member": scene.guild.members[who],
        "channel_id": scene.rng.choice(scene.guild.channels_of(entities.TEXT)),
        "guild_id": scene.guild.id,
    }
    yield scene.event("TYPING_START", data)


def pin(scene: Scene) -> Iterator[Event]:
    """A message is pinned, or no longer is: the message changes, and its channel says when the last pin was."""
    guild = scene.guild
    found = guild.messages.choose(scene.rng)
    if found is None:
        return
    place = guild.threads.get(found["channel_id"]) or guild.channels[found["channel_id"]]
    is_pinned = not found["pinned"]
    yield _new_version(scene, found, pinned=is_pinned)
    others = any(message["pinned"] for message in guild.messages.of(found["channel_id"]))
    stamp = entities.iso(scene.wall_ms) if is_pinned else place.get("last_pin_timestamp") if others else None
    place["last_pin_timestamp"] = stamp
    data: Json = {"last_pin_timestamp": stamp, "channel_id": found["channel_id"], "guild_id": guild.id}
    yield scene.event("CHANNEL_PINS_UPDATE", data)
