"""What one bot sees of a guild: who may view a channel, and the redacted form of one it may not (section 18). Pure.

VIEW_CHANNEL is Discord's own calculation from roles and overwrites. Where a bot may not view a channel it gets the
channel's id, type, position and parent, and is told nothing of what happens there: no messages, threads, reactions,
typing, pins, webhooks, invites, nor the status of a voice channel. Voice states, stages and scheduled events are the
guild's: the reference names channel, message and thread events as those that need view access.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from . import intents
from .entities import CATEGORY, FORUM, TEXT, Json
from .events import Event
from .guild_state import BotView, GuildState

EVERYTHING = (1 << 53) - 1
ADMINISTRATOR = 1 << 3
MANAGE_CHANNELS = 1 << 4
MANAGE_GUILD = 1 << 5
VIEW_AUDIT_LOG = 1 << 7
VIEW_CHANNEL = 1 << 10
OBFUSCATED = 1 << 17
HIDDEN_NAME = "___hidden___"
LARGE_MEMBERS_MAX = 75_000  # above this GUILD_CREATE carries no member list at all
_TRUE_FIELDS = ("version", "type", "position", "parent_id", "id", "guild_id")
_REDUCED_FIELDS: Json = {
    "topic": None,
    "last_message_id": None,
    "rate_limit_per_user": 0,
    "nsfw": False,
    "user_limit": 0,
    "rtc_region": None,
    "bitrate": 64000,
    "available_tags": [],
    "default_reaction_emoji": None,
    "default_sort_order": None,
    "default_forum_layout": 0,
}

MOVING = frozenset(
    {
        *("CHANNEL_CREATE", "CHANNEL_UPDATE", "CHANNEL_DELETE"),
        *("GUILD_ROLE_UPDATE", "GUILD_ROLE_DELETE", "GUILD_MEMBER_UPDATE", "GUILD_UPDATE"),
    }
)
"""Events behind which a bot may see more channels, or fewer, than before."""

CHANNEL_OBJECTS = frozenset({"CHANNEL_CREATE", "CHANNEL_UPDATE", "CHANNEL_DELETE"})
_AT_CHANNEL = (
    *("MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK"),
    *("MESSAGE_REACTION_ADD", "MESSAGE_REACTION_REMOVE", "MESSAGE_REACTION_REMOVE_ALL"),
    *("MESSAGE_REACTION_REMOVE_EMOJI", "TYPING_START", "CHANNEL_PINS_UPDATE", "INVITE_CREATE", "INVITE_DELETE"),
    "WEBHOOKS_UPDATE",
)
_AT_ID = (
    *("THREAD_CREATE", "THREAD_UPDATE", "THREAD_MEMBERS_UPDATE"),
    *("VOICE_CHANNEL_STATUS_UPDATE", "VOICE_CHANNEL_START_TIME_UPDATE"),
)
PLACE_KEY = dict.fromkeys(_AT_CHANNEL, "channel_id") | dict.fromkeys(_AT_ID, "id")
"""Which field of an event names the channel or thread that it happens in."""


def permissions_of(guild: GuildState, user_id: str) -> int:
    """A member's permissions in the guild, before channel overwrites; all of them for owner and administrators."""
    allowed = 0
    for role_id in (guild.id, *guild.members[user_id]["roles"]):
        if (role := guild.roles.get(role_id)) is not None:
            allowed |= int(role["permissions"])
    everything = bool(allowed & ADMINISTRATOR) or guild.base["owner_id"] == user_id
    return EVERYTHING if everything else allowed


def may_view(guild: GuildState, user_id: str, channel: Json) -> bool:
    """VIEW_CHANNEL of a member: roles, then overwrites of @everyone, of roles together, of the member."""
    allowed = permissions_of(guild, user_id)
    if allowed & ADMINISTRATOR:
        return True
    held = {guild.id, *guild.members[user_id]["roles"]}
    views = bool(allowed & VIEW_CHANNEL)
    steps: list[list[Json]] = [[], [], []]
    for overwrite in channel["permission_overwrites"]:
        key = overwrite["id"]
        steps[0 if key == guild.id else 2 if key == user_id else 1].append(overwrite)
    for step in steps:
        mine = [o for o in step if o["id"] in held or o["id"] == user_id]
        if any(int(o["allow"]) & VIEW_CHANNEL for o in mine):
            views = True
        elif any(int(o["deny"]) & VIEW_CHANNEL for o in mine):
            views = False
    return views


def hidden_from(guild: GuildState, user_id: str) -> frozenset[str]:
    """The channels that a member may not view. A category is seen with any channel in it."""
    closed = {key for key, channel in guild.channels.items() if not may_view(guild, user_id, channel)}
    parents = {channel["parent_id"] for key, channel in guild.channels.items() if key not in closed}
    return frozenset(key for key in closed if guild.channels[key]["type"] != CATEGORY or key not in parents)


@dataclass(frozen=True, slots=True)
class Flip:
    """A bot sees channels that it did not see, or no longer sees some."""

    bot: str
    gained: tuple[str, ...]
    lost: tuple[str, ...]


def look_again(guild: GuildState, *, new: str = "") -> list[Flip]:
    """Who sees what, now; and where that has changed. A channel that is `new` is lost to nobody."""
    flips = []
    for bot, held in guild.views.items():
        hidden = hidden_from(guild, bot)
        if hidden == held.hidden:
            continue
        gained = tuple(key for key in guild.channels if key in held.hidden and key not in hidden)
        lost = tuple(key for key in guild.channels if key in hidden and key not in held.hidden and key != new)
        held.hidden = hidden
        flips.append(Flip(bot, gained, lost))
    return flips


def redacted(channel: Json, guild_id: str) -> Json:
    """The channel as a bot gets it that may not view it."""
    made = {name: channel[name] for name in _TRUE_FIELDS if name in channel}
    made |= {name: value for name, value in _REDUCED_FIELDS.items() if name in channel}
    deny: Json = {"id": guild_id, "type": 0, "allow": "0", "deny": str(VIEW_CHANNEL)}
    return made | {"name": HIDDEN_NAME, "flags": OBFUSCATED, "permission_overwrites": [deny]}


def channel_as_seen(guild: GuildState, bot: str, channel: Json) -> Json:
    """A channel as the gateway tells this bot of it."""
    if guild.obfuscates and channel["id"] in guild.views[bot].hidden:
        return redacted(channel, guild.id)
    return channel


def thread_as_seen(guild: GuildState, bot: str, thread: Json) -> Json:
    """A thread with the bot's own membership, where it has one."""
    member = guild.thread_members[thread["id"]].get(bot)
    if member is None:
        return thread
    return {**thread, "member": {key: member[key] for key in ("join_timestamp", "flags")}}


def threads_as_seen(guild: GuildState, bot: str) -> list[Json]:
    """The active threads that a bot sees, as GUILD_CREATE lists them."""
    return [thread_as_seen(guild, bot, thread) for key, thread in guild.threads.items() if guild.sees(bot, key)]


def thread_list(guild: GuildState, bot: str, parents: Iterable[str] | None) -> Event:
    """THREAD_LIST_SYNC for a bot: the active threads of these channels or of all, and where it takes part."""
    named = None if parents is None else list(parents)
    wanted = None if named is None else frozenset(named)
    threads = [
        thread
        for key, thread in guild.threads.items()
        if (wanted is None or thread["parent_id"] in wanted) and guild.sees(bot, key)
    ]
    held = (guild.thread_members[thread["id"]].get(bot) for thread in threads)
    data: Json = {"threads": threads, "members": [member for member in held if member], "guild_id": guild.id}
    if named is not None:
        data["channel_ids"] = named
    return Event("THREAD_LIST_SYNC", data, int(guild.id), only=bot)


def flip_events(guild: GuildState, flip: Flip, *, subject: str, tells_loss: bool) -> Iterator[Event]:
    """What a bot is told when it sees more or less; `subject` is a channel that it is told of anyway.

    Who gains access gets the channel in full, with its category, then its threads. Discord's documentation says nothing
    of who loses it: that it gets the channel redacted is our reading, and `tells_loss` switches it off.
    """
    held = guild.views[flip.bot]
    told = [key for key in (*flip.gained, *(flip.lost if tells_loss else ())) if key != subject]
    held.untold.difference_update(flip.gained)
    if not tells_loss:
        held.untold.update(flip.lost)
        held.doubted.update(flip.lost)
    for key in told if guild.obfuscates else ():
        seen = channel_as_seen(guild, flip.bot, guild.channels[key])
        yield Event("CHANNEL_UPDATE", {**seen, "guild_id": guild.id}, int(guild.id), only=flip.bot)
    talkative = [key for key in flip.gained if guild.channels[key]["type"] in (TEXT, FORUM)]
    if talkative:
        yield thread_list(guild, flip.bot, talkative)


def guild_create(guild: GuildState, *, bits: int, large_threshold: int, self_id: str, joined: bool) -> Json:
    """GUILD_CREATE as a session with these intents sees it (section 6); `joined` leaves `unavailable` out."""
    members, presences = _visible_people(guild, bits, large_threshold, self_id)
    made: dict[str, Any] = {
        **guild.base,
        "joined_at": guild.members[self_id]["joined_at"],
        "roles": list(guild.roles.values()),
        "emojis": list(guild.emojis.values()),
        "stickers": list(guild.stickers.values()),
        "channels": [channel_as_seen(guild, self_id, channel) for channel in guild.channels.values()],
        "threads": threads_as_seen(guild, self_id),
        "members": members,
        "presences": presences,
        "voice_states": list(guild.voice_states.values()),
        "stage_instances": list(guild.stages.values()),
        "guild_scheduled_events": list(guild.events.values()),
        "soundboard_sounds": list(guild.sounds.values()),
    }
    if not joined:
        made["unavailable"] = False
    return made


def _visible_people(guild: GuildState, bits: int, threshold: int, self_id: str) -> tuple[list[Json], list[Json]]:
    count = guild.base["member_count"]
    if not bits & intents.GUILD_PRESENCES or count > LARGE_MEMBERS_MAX:
        return [m for key, m in guild.members.items() if key == self_id or key in guild.voice_states], []
    presences = list(guild.presences.values())
    if count <= threshold:
        return list(guild.members.values()), presences
    shown = [
        m
        for key, m in guild.members.items()
        if key in guild.presences or m["roles"] or m["nick"] or key in guild.voice_states or key == self_id
    ]
    return shown, presences


def state_as_seen(guild: GuildState, bot: str) -> Json:
    """The guild as this bot sees it, whatever its intents: what a cache that was told everything should hold.

    Beside it stands what tells a difference from something never told: `changes`, `since`, `joined` and `created` are
    moments; `untold` and `doubted` are channels that the bot lost, or once lost, without a word; `forgotten` has, by
    place, the latest message that the world did not keep.
    """
    held: BotView = guild.views[bot]
    state = guild.as_json()
    state["guild"] = guild.base | {"joined_at": guild.members[bot]["joined_at"]}
    state["channels"] = {key: channel_as_seen(guild, bot, channel) for key, channel in guild.channels.items()}
    state["threads"] = {thread["id"]: thread for thread in threads_as_seen(guild, bot)}
    state["voice_info"] = {key: info for key, info in guild.voice_info.items() if key not in held.hidden}
    state["messages"] = [message for message in guild.messages if guild.sees(bot, message["channel_id"])]
    del state["archived"], state["thread_members"]
    return state | {
        "hidden": sorted(held.hidden),
        "untold": sorted(held.untold),
        "doubted": sorted(held.doubted),
        "since": held.since,
        "joined": held.joined,
        "created": held.created,
        "changes": guild.changes,
        "forgotten": guild.messages.forgotten,
    }
