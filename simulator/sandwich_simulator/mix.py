"""What happens in a world: a weighted mix of events, each of which changes the state it reports. Seeded, no I/O."""

import random
from collections.abc import Callable, Iterator
from itertools import accumulate

from . import entities
from .entities import Json
from .gateway import Event
from .world import GuildState, World

CHANNELS_MAX = 14
ROLES_MAX = 10
THREADS_MAX = 6
INVITES_MAX = 8
EVENTS_MAX = 3
EMOJIS_MAX = 8
OUTAGES_MAX = 2
TRIES = 20

Happening = Callable[["Scene"], Iterator[Event]]


class Scene:
    """One guild at one moment, with what the happenings need to tell their story."""

    def __init__(self, world: World, guild: GuildState, rng: random.Random, wall_ms: int) -> None:
        self.world = world
        self.guild = guild
        self.rng = rng
        self.wall_ms = wall_ms
        self.people = [key for key in guild.members if key != world.me["id"]]

    def event(self, name: str, data: Json) -> Event:
        """An event of this guild."""
        return Event(name, data, int(self.guild.id))

    def new_id(self) -> str:
        """A fresh id."""
        return self.world.new_id(self.wall_ms)

    def someone(self) -> str:
        """A member other than the bot (the bot when it is alone)."""
        return self.rng.choice(self.people) if self.people else str(self.world.me["id"])


def message_of(scene: Scene, channel_id: str, author: str, content: str) -> Json:
    """A new message, already counted in its channel."""
    guild, rng = scene.guild, scene.rng
    message_id = scene.new_id()
    place = guild.threads.get(channel_id) or guild.channels[channel_id]
    place["last_message_id"] = message_id
    if channel_id in guild.threads:
        place["message_count"] += 1
        place["total_message_sent"] += 1
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
    guild.messages.append(message)
    return message


def _message(scene: Scene) -> Iterator[Event]:
    place = scene.rng.choice(scene.guild.channels_of(entities.TEXT) + list(scene.guild.threads))
    content = entities.words(scene.rng, scene.rng.randrange(1, 30))
    yield scene.event("MESSAGE_CREATE", message_of(scene, place, scene.someone(), content))


def _message_edit(scene: Scene) -> Iterator[Event]:
    if scene.guild.messages:
        message = scene.rng.choice(scene.guild.messages)
        message["content"] = entities.words(scene.rng, scene.rng.randrange(1, 30))
        message["edited_timestamp"] = entities.iso(scene.wall_ms)
        yield scene.event("MESSAGE_UPDATE", message)


def _message_delete(scene: Scene) -> Iterator[Event]:
    guild = scene.guild
    if not guild.messages:
        return
    message = scene.rng.choice(guild.messages)
    gone = [message]
    if scene.rng.random() < 0.1:
        gone = [m for m in guild.messages if m["channel_id"] == message["channel_id"]][:10]
    for each in gone:
        guild.messages.remove(each)
        if (thread := guild.threads.get(each["channel_id"])) is not None:
            thread["message_count"] = max(0, thread["message_count"] - 1)
    place = {"channel_id": message["channel_id"], "guild_id": guild.id}
    if len(gone) == 1:
        yield scene.event("MESSAGE_DELETE", {"id": message["id"], **place})
    else:
        yield scene.event("MESSAGE_DELETE_BULK", {"ids": [m["id"] for m in gone], **place})


def _reaction(scene: Scene) -> Iterator[Event]:
    if not scene.guild.messages:
        return
    message, who = scene.rng.choice(scene.guild.messages), scene.someone()
    data: Json = {
        "user_id": who,
        "type": 0,
        "message_id": message["id"],
        "emoji": {"name": scene.rng.choice(("👍", "🔥", "🎉")), "id": None},
        "channel_id": message["channel_id"],
        "burst": False,
        "guild_id": scene.guild.id,
    }
    if scene.rng.random() < 0.2:
        yield scene.event("MESSAGE_REACTION_REMOVE", data)
    else:
        data |= {"message_author_id": message["author"]["id"], "member": scene.guild.members[who]}
        yield scene.event("MESSAGE_REACTION_ADD", data)


def _typing(scene: Scene) -> Iterator[Event]:
    who = scene.someone()
    data = {
        "user_id": who,
        "timestamp": scene.wall_ms // 1000,
        "member": scene.guild.members[who],
        "channel_id": scene.rng.choice(scene.guild.channels_of(entities.TEXT)),
        "guild_id": scene.guild.id,
    }
    yield scene.event("TYPING_START", data)


def _presence(scene: Scene) -> Iterator[Event]:
    who = scene.someone()
    if who in scene.guild.presences and scene.rng.random() < 0.4:
        del scene.guild.presences[who]
        shown: Json = {"user": {"id": who}, "status": "offline", "client_status": {}, "activities": []}
    else:
        shown = scene.guild.presences[who] = entities.presence(scene.rng, who, scene.wall_ms)
    yield scene.event("PRESENCE_UPDATE", {**shown, "guild_id": scene.guild.id})


def _voice(scene: Scene) -> Iterator[Event]:
    guild, who = scene.guild, scene.someone()
    if who in guild.voice_states and scene.rng.random() < 0.5:
        state = {**guild.voice_states.pop(who), "channel_id": None}
    else:
        place = scene.rng.choice(guild.channels_of(entities.VOICE))
        state = entities.voice_state(scene.rng, who, place)
        state["session_id"] = guild.voice_states.get(who, state)["session_id"]
        guild.voice_states[who] = state
    yield scene.event("VOICE_STATE_UPDATE", {"member": guild.members[who], **state, "guild_id": guild.id})


def _member_update(scene: Scene) -> Iterator[Event]:
    member = scene.guild.members[scene.someone()]
    roles = [key for key in scene.guild.roles if key != scene.guild.id][1:]
    member["nick"] = entities.words(scene.rng, 2) if scene.rng.random() < 0.7 else None
    member["roles"] = sorted(scene.rng.sample(roles, scene.rng.randrange(len(roles) + 1)))
    yield scene.event("GUILD_MEMBER_UPDATE", {**member, "guild_id": scene.guild.id})


def _member_join(scene: Scene) -> Iterator[Event]:
    codes = list(scene.guild.invites)
    yield from join(scene, scene.rng.choice(codes) if codes and scene.rng.random() < 0.7 else None)


def join(scene: Scene, code: str | None) -> Iterator[Event]:
    """Somebody joins, by an invite (a use is counted, the last one deletes it) or without; nobody if found inside."""
    guild, person = scene.guild, scene.world.person(scene.rng.randrange(scene.world.people_count))
    if person["id"] in guild.members:
        return
    member = entities.member(scene.rng, person, [], scene.wall_ms)
    guild.members[person["id"]] = member
    guild.base["member_count"] += 1
    yield scene.event("GUILD_MEMBER_ADD", {**member, "guild_id": guild.id})
    if code is None:
        return
    invite = guild.invites[code]
    invite["uses"] += 1
    if invite["max_uses"] and invite["uses"] >= invite["max_uses"]:
        del guild.invites[code]
        yield scene.event("INVITE_DELETE", {key: invite[key] for key in ("guild_id", "code", "channel_id")})


def _member_leave(scene: Scene) -> Iterator[Event]:
    guild, who = scene.guild, scene.someone()
    if len(scene.people) < 3 or who == guild.base["owner_id"]:
        return
    if (state := guild.voice_states.pop(who, None)) is not None:
        left = {"member": guild.members[who], **state, "channel_id": None, "guild_id": guild.id}
        yield scene.event("VOICE_STATE_UPDATE", left)
    guild.presences.pop(who, None)
    user = guild.members.pop(who)["user"]
    guild.base["member_count"] -= 1
    yield scene.event("GUILD_MEMBER_REMOVE", {"user": user, "guild_id": guild.id})


def _channel(scene: Scene) -> Iterator[Event]:
    guild, rng, roll = scene.guild, scene.rng, scene.rng.random()
    texts = guild.channels_of(entities.TEXT)
    if roll < 0.5:
        channel = guild.channels[rng.choice(texts)]
        channel["topic"] = entities.words(rng, 8)
        channel["version"] += 1
        yield scene.event("CHANNEL_UPDATE", {**channel, "guild_id": guild.id})
    elif roll < 0.75 and len(guild.channels) < CHANNELS_MAX:
        parent = guild.channels_of(entities.CATEGORY)[0]
        channel = entities.channel(rng, scene.new_id(), entities.TEXT, position=len(guild.channels), parent=parent)
        guild.channels[channel["id"]] = channel
        yield scene.event("CHANNEL_CREATE", {**channel, "guild_id": guild.id})
    elif len(texts) > 2:
        gone = guild.channels.pop(rng.choice(texts))
        for key in [key for key, thread in guild.threads.items() if thread["parent_id"] == gone["id"]]:
            del guild.threads[key]
        for code in [code for code, invite in guild.invites.items() if invite["channel_id"] == gone["id"]]:
            del guild.invites[code]
        places = {*guild.channels, *guild.threads}
        kept = [m for m in guild.messages if m["channel_id"] in places]
        guild.messages.clear()
        guild.messages.extend(kept)
        yield scene.event("CHANNEL_DELETE", {**gone, "guild_id": guild.id})


def _role(scene: Scene) -> Iterator[Event]:
    guild, rng, roll = scene.guild, scene.rng, scene.rng.random()
    plain = [key for key, role in guild.roles.items() if key != guild.id and not role["managed"]]
    if roll < 0.4 and plain:
        role = guild.roles[rng.choice(plain)]
        role["name"] = entities.words(rng, 2)
        yield scene.event("GUILD_ROLE_UPDATE", {"role": role, "guild_id": guild.id})
    elif roll < 0.7 and len(guild.roles) < ROLES_MAX:
        role = entities.role(rng, scene.new_id(), len(guild.roles))
        guild.roles[role["id"]] = role
        yield scene.event("GUILD_ROLE_CREATE", {"role": role, "guild_id": guild.id})
    elif len(plain) > 2:
        gone = rng.choice(plain)
        del guild.roles[gone]
        for member in guild.members.values():
            if gone in member["roles"]:
                member["roles"].remove(gone)
        yield scene.event("GUILD_ROLE_DELETE", {"role_id": gone, "guild_id": guild.id})


def _thread(scene: Scene) -> Iterator[Event]:
    guild, rng, roll = scene.guild, scene.rng, scene.rng.random()
    if roll < 0.4 and guild.threads:
        thread = guild.threads[rng.choice(list(guild.threads))]
        thread["name"] = entities.words(rng, 3)
        yield scene.event("THREAD_UPDATE", thread)
    elif roll < 0.7 and len(guild.threads) < THREADS_MAX:
        parent = rng.choice(guild.channels_of(entities.TEXT, entities.FORUM))
        thread = entities.thread(rng, scene.new_id(), guild.id, parent, scene.someone(), scene.wall_ms)
        guild.threads[thread["id"]] = thread
        if guild.channels[parent]["type"] == entities.FORUM:
            guild.channels[parent]["last_message_id"] = thread["id"]
        yield scene.event("THREAD_CREATE", {**thread, "newly_created": True})
    elif guild.threads:
        gone = guild.threads.pop(rng.choice(list(guild.threads)))
        kept = [m for m in guild.messages if m["channel_id"] != gone["id"]]
        guild.messages.clear()
        guild.messages.extend(kept)
        yield scene.event("THREAD_DELETE", {key: gone[key] for key in ("type", "parent_id", "id", "guild_id")})


def _invite(scene: Scene) -> Iterator[Event]:
    guild = scene.guild
    if len(guild.invites) < INVITES_MAX and scene.rng.random() < 0.7:
        invite: Json = {
            "uses": 0,
            "type": 0,
            "temporary": False,
            "max_uses": scene.rng.choice((0, 0, 10)),
            "max_age": 86_400,
            "inviter": guild.members[scene.someone()]["user"],
            "guild_id": guild.id,
            "expires_at": entities.iso(scene.wall_ms + 86_400_000),
            "created_at": entities.iso(scene.wall_ms),
            "code": f"{scene.rng.getrandbits(40):08x}",
            "channel_id": scene.rng.choice(guild.channels_of(entities.TEXT)),
        }
        guild.invites[invite["code"]] = invite
        yield scene.event("INVITE_CREATE", dict(invite))
    elif guild.invites:
        gone = guild.invites.pop(scene.rng.choice(list(guild.invites)))
        yield scene.event("INVITE_DELETE", {key: gone[key] for key in ("guild_id", "code", "channel_id")})


def _expressions(scene: Scene) -> Iterator[Event]:
    guild, rng = scene.guild, scene.rng
    if len(guild.emojis) >= EMOJIS_MAX:
        del guild.emojis[next(iter(guild.emojis))]
    emoji = entities.emoji(rng, scene.new_id())
    guild.emojis[emoji["id"]] = emoji
    yield scene.event("GUILD_EMOJIS_UPDATE", {"guild_id": guild.id, "emojis": list(guild.emojis.values())})


def _scheduled_event(scene: Scene) -> Iterator[Event]:
    guild, rng = scene.guild, scene.rng
    if len(guild.events) < EVENTS_MAX:
        start_ms = scene.wall_ms + 86_400_000
        made = entities.scheduled_event(rng, scene.new_id(), guild.id, scene.someone(), start_ms)
        guild.events[made["id"]] = made
        yield scene.event("GUILD_SCHEDULED_EVENT_CREATE", made)
    elif rng.random() < 0.5:
        event = guild.events[rng.choice(list(guild.events))]
        event["description"] = entities.words(rng, 6)
        yield scene.event("GUILD_SCHEDULED_EVENT_UPDATE", event)
    else:
        yield scene.event("GUILD_SCHEDULED_EVENT_DELETE", guild.events.pop(rng.choice(list(guild.events))))


def _stage(scene: Scene) -> Iterator[Event]:
    guild = scene.guild
    if guild.stages:
        yield scene.event("STAGE_INSTANCE_DELETE", guild.stages.pop(next(iter(guild.stages))))
    elif places := guild.channels_of(entities.STAGE):
        made = entities.stage_instance(scene.rng, scene.new_id(), guild.id, places[0])
        guild.stages[made["id"]] = made
        yield scene.event("STAGE_INSTANCE_CREATE", made)


def _sound(scene: Scene) -> Iterator[Event]:
    sound = scene.guild.sounds[scene.rng.choice(list(scene.guild.sounds))]
    sound["volume"] = round(scene.rng.random(), 2)
    yield scene.event("GUILD_SOUNDBOARD_SOUND_UPDATE", sound)


def _guild_update(scene: Scene) -> Iterator[Event]:
    guild = scene.guild
    guild.base["name"] = entities.words(scene.rng, 2).title()
    extras = {"joined_at", "large", "member_count"}
    data = {key: value for key, value in guild.base.items() if key not in extras}
    lists = {name: list(getattr(guild, name).values()) for name in ("roles", "emojis", "stickers")}
    yield scene.event("GUILD_UPDATE", data | lists)


def _outage(scene: Scene) -> Iterator[Event]:
    down = [guild for guild in scene.world.known_guilds() if guild.unavailable]
    if down and (len(down) >= OUTAGES_MAX or scene.rng.random() < 0.5):
        down[0].unavailable = False
        yield Event("GUILD_CREATE", {}, int(down[0].id))
    elif not scene.guild.unavailable:
        scene.guild.unavailable = True
        yield scene.event("GUILD_DELETE", {"unavailable": True, "id": scene.guild.id})


def _come_and_go(scene: Scene) -> Iterator[Event]:
    world = scene.world
    if world.has_surplus_guilds:
        world.leave_guild(int(scene.guild.id))
        yield scene.event("GUILD_DELETE", {"id": scene.guild.id})
    else:
        yield Event("GUILD_CREATE", {}, int(world.join_guild().id), joined=True)


WEIGHTS: dict[Happening, float] = {
    _message: 52,
    _presence: 12,
    _typing: 9,
    _reaction: 8,
    _message_edit: 5,
    _voice: 4,
    _member_update: 3,
    _message_delete: 2.5,
    _member_join: 1,
    _member_leave: 0.8,
    _channel: 0.5,
    _thread: 0.5,
    _role: 0.4,
    _invite: 0.4,
    _scheduled_event: 0.2,
    _expressions: 0.1,
    _stage: 0.1,
    _sound: 0.1,
    _guild_update: 0.1,
    _outage: 0.04,
    _come_and_go: 0.03,
}
_HAPPENINGS = list(WEIGHTS)
_CUMULATIVE = list(accumulate(WEIGHTS.values()))
_STEADY = list(accumulate(0 if happening in (_outage, _come_and_go) else w for happening, w in WEIGHTS.items()))


class Mix:
    """An endless story of one world, or of `guild_ids` alone; then no guild comes, goes or fails."""

    def __init__(self, world: World, rng: random.Random, guild_ids: list[int] | None = None) -> None:
        self._world = world
        self._rng = rng
        self._is_partial = guild_ids is not None
        self._guild_ids = list(guild_ids or ())

    def next_events(self, wall_ms: int) -> list[Event]:
        """What happens next: some events that belong together; none only where there is no guild to happen in."""
        weights = _STEADY if self._is_partial else _CUMULATIVE
        for _ in range(TRIES):
            guild = self._available_guild()
            if guild is None:
                return []
            happening = self._rng.choices(_HAPPENINGS, cum_weights=weights)[0]
            events = list(happening(Scene(self._world, guild, self._rng, wall_ms)))
            if events:
                return events
        return []

    def _available_guild(self) -> GuildState | None:
        if not self._is_partial and len(self._guild_ids) != len(self._world.guild_ids):
            self._guild_ids = list(self._world.guild_ids)
        for _ in range(TRIES if self._guild_ids else 0):
            guild_id = self._rng.choice(self._guild_ids)
            if not self._world.has_guild(guild_id):
                self._guild_ids.remove(guild_id)
                return self._available_guild()
            if not (guild := self._world.guild(guild_id)).unavailable:
                return guild
        return None
