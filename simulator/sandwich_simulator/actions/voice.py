"""Actions on voice: voice states, and the status and start time of voice channels."""

from collections.abc import Iterator

from sandwich_simulator import entities
from sandwich_simulator.action_context import ActionContext
from sandwich_simulator.entities import Json
from sandwich_simulator.events import Event
from sandwich_simulator.guild_state import GuildState


def has_room(guild: GuildState, channel_id: str, who: str) -> bool:
    """Whether a voice channel has room for a user. MOVE_MEMBERS, which lifts the limit, is not simulated."""
    limit = guild.channels[channel_id].get("user_limit", 0)
    return not limit or sum(1 for key in _inside(guild, channel_id) if key != who) < limit


def _inside(guild: GuildState, channel_id: str) -> list[str]:
    return [key for key, state in guild.voice_states.items() if state["channel_id"] == channel_id]


def move(action: ActionContext, who: str, channel_id: str | None, **settings: bool | str) -> Iterator[Event]:
    """A user joins, changes or leaves voice channels. A channel has a start time from its first user to its last.

    `settings` are fields of the voice state, such as `self_mute`. A bot is in voice by one of its sessions: its last
    request decides by which (`session_id`).
    """
    guild = action.guild
    before = guild.voice_states.get(who)
    left = before["channel_id"] if before else None
    is_first = channel_id is not None and not _inside(guild, channel_id)
    if channel_id is None:
        if before is None:
            return
        state = {**before, "channel_id": None}
        del guild.voice_states[who]
    else:
        state = entities.voice_state(action.rng, who, channel_id) | settings
        if before is not None and "session_id" not in settings:
            state["session_id"] = before["session_id"]
        guild.voice_states[who] = state
    yield action.event("VOICE_STATE_UPDATE", {"member": guild.members[who], **state, "guild_id": guild.id})
    if left is not None and left != channel_id and left in guild.channels and not _inside(guild, left):
        yield from _info_event(action, left, "voice_start_time", None)
        if guild.voice_info[left].get("status"):
            yield from _info_event(action, left, "status", None)
    if is_first and channel_id is not None:
        yield from _info_event(action, channel_id, "voice_start_time", action.wall_ms // 1000)


def _info_event(action: ActionContext, channel_id: str, field: str, value: int | str | None) -> Iterator[Event]:
    info = action.guild.voice_info.setdefault(channel_id, {})
    info[field] = value
    name = "VOICE_CHANNEL_STATUS_UPDATE" if field == "status" else "VOICE_CHANNEL_START_TIME_UPDATE"
    yield action.event(name, {field: value, "id": channel_id, "guild_id": action.guild.id})


def voice(action: ActionContext) -> Iterator[Event]:
    """Moves a member between voice channels."""
    guild, rng, who = action.guild, action.rng, action.someone()
    if who in guild.voice_states and rng.random() < 0.5:
        yield from move(action, who, None)
        return
    places = [key for key in guild.channels_of(entities.VOICE) if has_room(guild, key, who)]
    if places:
        yield from move(action, who, rng.choice(places))


def voice_status(action: ActionContext) -> Iterator[Event]:
    """Sets or clears the status of a voice channel that has users."""
    guild, rng = action.guild, action.rng
    places = sorted({state["channel_id"] for state in guild.voice_states.values()} & set(guild.channels))
    if places:
        place = rng.choice(places)
        yield from _info_event(action, place, "status", entities.words(rng, 3) if rng.random() < 0.8 else None)


def channel_info(guild: GuildState, bot: str, fields: list[str]) -> list[Json]:
    """The `channels` of CHANNEL_INFO: the voice channels that the bot may view."""
    return [
        {"id": key, **{name: guild.voice_info.get(key, {}).get(name) for name in fields}}
        for key in guild.channels_of(entities.VOICE)
        if guild.sees(bot, key)
    ]
