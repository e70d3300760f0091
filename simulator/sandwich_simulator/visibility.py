"""What one bot sees of a guild: which channels it may view, and the redacted form of the others. Pure.

VIEW_CHANNEL follows Discord's calculation from roles and overwrites. For a channel that a bot may not view, it receives
id, type, position and parent (docs/design/protocol.md, section 18), and no events: no messages, threads, reactions,
typing, pins, webhooks, invites or voice channel status. Voice states, stages and scheduled events belong to the guild:
Discord names channel, message and thread events as those that need view access.
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
LARGE_MEMBERS_MAX = 75_000  # above this GUILD_CREATE has no member list
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

CHANGES_VISIBILITY = frozenset(
    {
        *("CHANNEL_CREATE", "CHANNEL_UPDATE", "CHANNEL_DELETE"),
        *("GUILD_ROLE_UPDATE", "GUILD_ROLE_DELETE", "GUILD_MEMBER_UPDATE", "GUILD_UPDATE"),
    }
)
"""Events after which a bot may see more or fewer channels."""

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
"""The field of an event that names its channel or thread."""


def permissions_of(guild: GuildState, user_id: str) -> int:
    """A member's permissions in the guild, without channel overwrites; all for the owner and administrators."""
    allowed = 0
    for role_id in (guild.id, *guild.members[user_id]["roles"]):
        if (role := guild.roles.get(role_id)) is not None:
            allowed |= int(role["permissions"])
    everything = bool(allowed & ADMINISTRATOR) or guild.base["owner_id"] == user_id
    return EVERYTHING if everything else allowed


def may_view(guild: GuildState, user_id: str, channel: Json) -> bool:
    """VIEW_CHANNEL of a member: roles, then overwrites of @everyone, of all roles together, of the member."""
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
    """The channels that a member may not view. A category is visible if any channel in it is."""
    closed = {key for key, channel in guild.channels.items() if not may_view(guild, user_id, channel)}
    parents = {channel["parent_id"] for key, channel in guild.channels.items() if key not in closed}
    return frozenset(key for key in closed if guild.channels[key]["type"] != CATEGORY or key not in parents)


@dataclass(frozen=True, slots=True)
class VisibilityChange:
    """The channels that one bot can view now and could not before, and the reverse."""

    bot: str
    gained: tuple[str, ...]
    lost: tuple[str, ...]


def update_views(guild: GuildState, *, new: str = "") -> list[VisibilityChange]:
    """Updates what each bot sees and returns the changes. The channel `new` does not count as lost."""
    changes = []
    for bot, held in guild.views.items():
        hidden = hidden_from(guild, bot)
        if hidden == held.hidden:
            continue
        gained = tuple(key for key in guild.channels if key in held.hidden and key not in hidden)
        lost = tuple(key for key in guild.channels if key in hidden and key not in held.hidden and key != new)
        held.hidden = hidden
        changes.append(VisibilityChange(bot, gained, lost))
    return changes


def redacted(channel: Json, guild_id: str) -> Json:
    """The channel for a bot that may not view it."""
    made = {name: channel[name] for name in _TRUE_FIELDS if name in channel}
    made |= {name: value for name, value in _REDUCED_FIELDS.items() if name in channel}
    deny: Json = {"id": guild_id, "type": 0, "allow": "0", "deny": str(VIEW_CHANNEL)}
    return made | {"name": HIDDEN_NAME, "flags": OBFUSCATED, "permission_overwrites": [deny]}


def channel_as_seen(guild: GuildState, bot: str, channel: Json) -> Json:
    """A channel as this bot receives it."""
    if guild.obfuscates and channel["id"] in guild.views[bot].hidden:
        return redacted(channel, guild.id)
    return channel


def thread_as_seen(guild: GuildState, bot: str, thread: Json) -> Json:
    """A thread with the bot's own membership, if it has one."""
    member = guild.thread_members[thread["id"]].get(bot)
    if member is None:
        return thread
    return {**thread, "member": {key: member[key] for key in ("join_timestamp", "flags")}}


def threads_as_seen(guild: GuildState, bot: str) -> list[Json]:
    """The active threads that a bot sees, in the format of GUILD_CREATE."""
    return [thread_as_seen(guild, bot, thread) for key, thread in guild.threads.items() if guild.sees(bot, key)]


def thread_list(guild: GuildState, bot: str, parents: Iterable[str] | None) -> Event:
    """THREAD_LIST_SYNC for a bot: the active threads of these channels or of all, and its own memberships."""
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


def visibility_events(
    guild: GuildState, change: VisibilityChange, *, subject: str, redacts_loss: bool
) -> Iterator[Event]:
    """The events for a bot that sees more or less; the bot receives an event of the channel `subject` anyway.

    A bot that gains access receives the whole channel with its category, then its threads. Discord's documentation does
    not say what happens when a bot loses access: we send the channel redacted, and `redacts_loss` can switch it off.
    """
    held = guild.views[change.bot]
    updated = [key for key in (*change.gained, *(change.lost if redacts_loss else ())) if key != subject]
    held.stale.difference_update(change.gained)
    if not redacts_loss:
        held.stale.update(change.lost)
        held.uncertain.update(change.lost)
    for key in updated if guild.obfuscates else ():
        seen = channel_as_seen(guild, change.bot, guild.channels[key])
        yield Event("CHANNEL_UPDATE", {**seen, "guild_id": guild.id}, int(guild.id), only=change.bot)
    parents = [key for key in change.gained if guild.channels[key]["type"] in (TEXT, FORUM)]
    if parents:
        yield thread_list(guild, change.bot, parents)


def guild_create(guild: GuildState, *, bits: int, large_threshold: int, self_id: str, joined: bool) -> Json:
    """GUILD_CREATE for these intents; `joined` leaves `unavailable` out (docs/design/protocol.md, section 6)."""
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
    """The guild as this bot sees it, whatever its intents: what a complete cache should hold.

    Further fields separate a real difference from data that was never sent: `changes`, `since`, `joined` and `created`
    are moments; `stale` and `uncertain` are channels that the bot has lost, or once lost, silently; `forgotten` has, by
    place, the latest message that the world no longer keeps.
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
        "stale": sorted(held.stale),
        "uncertain": sorted(held.uncertain),
        "since": held.since,
        "joined": held.joined,
        "created": held.created,
        "changes": guild.changes,
        "forgotten": guild.messages.forgotten,
    }
