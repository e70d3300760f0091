"""Which bot is told of an event, in which form, and what that leaves to remember. Pure.

What an intent opens is `intents`; what a bot sees is `sight`; here they meet the event.
"""

from dataclasses import dataclass

from . import visibility
from .entities import Json
from .events import Event
from .guild_state import GuildState

_MESSAGES = frozenset({"MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE", "MESSAGE_DELETE_BULK"})
_VOICE_INFO = {
    "VOICE_CHANNEL_STATUS_UPDATE": "status",
    "VOICE_CHANNEL_START_TIME_UPDATE": "voice_start_time",
}


def told(guild: GuildState | None, event: Event, bot: str) -> Json | None:
    """What a bot that is in the event's guild is told of it; None when it is not."""
    if event.name in visibility.CHANNEL_OBJECTS and guild is not None:
        return _channel_told(guild, event, bot)
    if event.unseen_by is not None:
        return None if bot in event.unseen_by else event.data
    key = visibility.PLACE_KEY.get(event.name)
    if key is None or guild is None or guild.sees(bot, event.data.get(key, "")):
        return event.data
    return None


def _channel_told(guild: GuildState, event: Event, bot: str) -> Json:
    held, channel_id = guild.views[bot], event.data["id"]
    is_hidden = channel_id in held.hidden if event.unseen_by is None else bot in event.unseen_by
    if is_hidden:
        held.untold.discard(channel_id)
    return visibility.redacted(event.data, guild.id) if is_hidden and guild.obfuscates else event.data


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an event leads to: `events` are sent behind it; it is itself kept from the bots in `deaf`."""

    events: tuple[Event, ...] = ()
    deaf: frozenset[str] = frozenset()


NOTHING = Outcome()


def follow(guild: GuildState | None, event: Event, moment: int, *, tells_loss: bool) -> Outcome:
    """Takes note of an event that has happened, at this moment of the world."""
    if guild is None:
        return NOTHING
    name, data = event.name, event.data
    if name in _MESSAGES:
        # No GUILD_CREATE repeats messages, nor the status of voice channels.
        for message_id in data["ids"] if "ids" in data else (data.get("id", ""),):
            guild.note_change(message_id, moment)
    elif name in _VOICE_INFO:
        guild.note_change(f"{data['id']}:{_VOICE_INFO[name]}", moment)
    elif name in visibility.MOVING and (name != "GUILD_MEMBER_UPDATE" or data["user"]["id"] in guild.views):
        return _seen_anew(guild, event, moment, tells_loss=tells_loss)
    return NOTHING


def _seen_anew(guild: GuildState, event: Event, moment: int, *, tells_loss: bool) -> Outcome:
    """Bots may see more or less than before. Who loses a channel without a word is not told of its change either."""
    subject = event.data["id"] if event.name in visibility.CHANNEL_OBJECTS else ""
    flips = visibility.look_again(guild, new=subject if event.name == "CHANNEL_CREATE" else "")
    events: list[Event] = []
    for flip in flips:
        guild.views[flip.bot].since.update(dict.fromkeys(flip.gained, moment))
        events += visibility.flip_events(guild, flip, subject=subject, tells_loss=tells_loss)
    deaf = frozenset(flip.bot for flip in flips if subject in flip.lost and not tells_loss)
    return Outcome(tuple(events), deaf)
