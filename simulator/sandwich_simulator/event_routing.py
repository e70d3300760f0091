"""Which bot receives an event, in which form, and what follows from the event. Pure.

`intents` says which events an intent enables, `visibility` what a bot sees; this module applies both to one event.
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


def payload_for(guild: GuildState | None, event: Event, bot: str) -> Json | None:
    """The payload that a bot in the event's guild receives; None when it receives nothing."""
    if event.name in visibility.CHANNEL_OBJECTS and guild is not None:
        return _channel_payload(guild, event, bot)
    if event.unseen_by is not None:
        return None if bot in event.unseen_by else event.data
    key = visibility.PLACE_KEY.get(event.name)
    if key is None or guild is None or guild.sees(bot, event.data.get(key, "")):
        return event.data
    return None


def _channel_payload(guild: GuildState, event: Event, bot: str) -> Json:
    held, channel_id = guild.views[bot], event.data["id"]
    is_hidden = channel_id in held.hidden if event.unseen_by is None else bot in event.unseen_by
    if is_hidden:
        held.stale.discard(channel_id)
    return visibility.redacted(event.data, guild.id) if is_hidden and guild.obfuscates else event.data


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows from an event: `events` are sent after it; bots in `excluded` do not receive the event itself."""

    events: tuple[Event, ...] = ()
    excluded: frozenset[str] = frozenset()


NOTHING = Outcome()


def record(guild: GuildState | None, event: Event, moment: int, *, redacts_loss: bool) -> Outcome:
    """Records an event at this moment of the world and returns what follows from it."""
    if guild is None:
        return NOTHING
    name, data = event.name, event.data
    if name in _MESSAGES:
        # GUILD_CREATE repeats neither messages nor the status of voice channels.
        for message_id in data["ids"] if "ids" in data else (data.get("id", ""),):
            guild.note_change(message_id, moment)
    elif name in _VOICE_INFO:
        guild.note_change(f"{data['id']}:{_VOICE_INFO[name]}", moment)
    elif name in visibility.CHANGES_VISIBILITY and (name != "GUILD_MEMBER_UPDATE" or data["user"]["id"] in guild.views):
        return _visibility_changed(guild, event, moment, redacts_loss=redacts_loss)
    return NOTHING


def _visibility_changed(guild: GuildState, event: Event, moment: int, *, redacts_loss: bool) -> Outcome:
    """Bots may see more or less than before. A bot that silently loses a channel does not receive its change either."""
    subject = event.data["id"] if event.name in visibility.CHANNEL_OBJECTS else ""
    changes = visibility.update_views(guild, new=subject if event.name == "CHANNEL_CREATE" else "")
    events: list[Event] = []
    for change in changes:
        guild.views[change.bot].since.update(dict.fromkeys(change.gained, moment))
        events += visibility.visibility_events(guild, change, subject=subject, redacts_loss=redacts_loss)
    excluded = frozenset(change.bot for change in changes if subject in change.lost and not redacts_loss)
    return Outcome(tuple(events), excluded)
