"""Names of Discord's dispatch events, and patterns over them. Pure.

Source: https://discord.com/developers/docs/events/gateway-events (Receive Events).
"""

import difflib
import re
from collections.abc import Iterable

_NAMES = """
READY RESUMED RATE_LIMITED APPLICATION_COMMAND_PERMISSIONS_UPDATE AUTO_MODERATION_RULE_CREATE
AUTO_MODERATION_RULE_UPDATE AUTO_MODERATION_RULE_DELETE AUTO_MODERATION_ACTION_EXECUTION CHANNEL_CREATE
CHANNEL_UPDATE CHANNEL_DELETE CHANNEL_INFO CHANNEL_PINS_UPDATE THREAD_CREATE THREAD_UPDATE THREAD_DELETE
THREAD_LIST_SYNC THREAD_MEMBER_UPDATE THREAD_MEMBERS_UPDATE ENTITLEMENT_CREATE ENTITLEMENT_UPDATE
ENTITLEMENT_DELETE GUILD_CREATE GUILD_UPDATE GUILD_DELETE GUILD_AUDIT_LOG_ENTRY_CREATE GUILD_BAN_ADD
GUILD_BAN_REMOVE GUILD_EMOJIS_UPDATE GUILD_STICKERS_UPDATE GUILD_INTEGRATIONS_UPDATE GUILD_MEMBER_ADD
GUILD_MEMBER_REMOVE GUILD_MEMBER_UPDATE GUILD_MEMBERS_CHUNK GUILD_ROLE_CREATE GUILD_ROLE_UPDATE
GUILD_ROLE_DELETE GUILD_SCHEDULED_EVENT_CREATE GUILD_SCHEDULED_EVENT_UPDATE GUILD_SCHEDULED_EVENT_DELETE
GUILD_SCHEDULED_EVENT_USER_ADD GUILD_SCHEDULED_EVENT_USER_REMOVE GUILD_SOUNDBOARD_SOUND_CREATE
GUILD_SOUNDBOARD_SOUND_UPDATE GUILD_SOUNDBOARD_SOUND_DELETE GUILD_SOUNDBOARD_SOUNDS_UPDATE SOUNDBOARD_SOUNDS
INTEGRATION_CREATE INTEGRATION_UPDATE INTEGRATION_DELETE INTERACTION_CREATE INVITE_CREATE INVITE_DELETE
MESSAGE_CREATE MESSAGE_UPDATE MESSAGE_DELETE MESSAGE_DELETE_BULK MESSAGE_REACTION_ADD MESSAGE_REACTION_REMOVE
MESSAGE_REACTION_REMOVE_ALL MESSAGE_REACTION_REMOVE_EMOJI PRESENCE_UPDATE STAGE_INSTANCE_CREATE
STAGE_INSTANCE_UPDATE STAGE_INSTANCE_DELETE SUBSCRIPTION_CREATE SUBSCRIPTION_UPDATE SUBSCRIPTION_DELETE
TYPING_START USER_UPDATE VOICE_CHANNEL_EFFECT_SEND VOICE_CHANNEL_START_TIME_UPDATE VOICE_CHANNEL_STATUS_UPDATE
VOICE_STATE_UPDATE VOICE_SERVER_UPDATE WEBHOOKS_UPDATE MESSAGE_POLL_VOTE_ADD MESSAGE_POLL_VOTE_REMOVE
"""
DOCUMENTED = frozenset(_NAMES.split())

_PATTERN = re.compile(r"[A-Z0-9_]{1,64}\*?|\*")


def check_pattern(value: str) -> str:
    """Return the pattern in upper case. Raises ValueError if it matches no documented event.

    Undocumented events are matched by a pattern with `*`.
    """
    pattern = value.strip().upper()
    if _PATTERN.fullmatch(pattern) is None:
        raise ValueError(f"{value[:64]!r} is not an event name: write it as MESSAGE_CREATE, or MESSAGE_* for several")
    if pattern.endswith("*") or pattern in DOCUMENTED:
        return pattern
    near = difflib.get_close_matches(pattern, DOCUMENTED, n=1)
    raise ValueError(f"unknown event {pattern}" + (f" (did you mean {near[0]}?)" if near else ""))


def unknown_event(name: str) -> str | None:
    """A warning, where any name is accepted, if Discord documents no such event; with the nearest name."""
    upper = name.strip().upper()
    if upper in DOCUMENTED:
        return None
    near = difflib.get_close_matches(upper, DOCUMENTED, n=1)
    meant = f": did you mean {near[0]}?" if near else ""
    return f"Discord documents no event {upper[:64]}{meant}"


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern matches this event."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def matches_any(patterns: Iterable[str], name: str) -> bool:
    """Whether one of the patterns matches it."""
    return any(matches(pattern, name) for pattern in patterns)
