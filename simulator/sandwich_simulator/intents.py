"""Which events an intent enables (docs/design/protocol.md, section 12). Pure tables."""

from collections.abc import Mapping
from typing import Any

GUILDS = 1 << 0
GUILD_MEMBERS = 1 << 1
GUILD_MODERATION = 1 << 2
GUILD_EXPRESSIONS = 1 << 3
GUILD_INTEGRATIONS = 1 << 4
GUILD_WEBHOOKS = 1 << 5
GUILD_INVITES = 1 << 6
GUILD_VOICE_STATES = 1 << 7
GUILD_PRESENCES = 1 << 8
GUILD_MESSAGES = 1 << 9
GUILD_MESSAGE_REACTIONS = 1 << 10
GUILD_MESSAGE_TYPING = 1 << 11
DIRECT_MESSAGES = 1 << 12
DIRECT_MESSAGE_REACTIONS = 1 << 13
DIRECT_MESSAGE_TYPING = 1 << 14
MESSAGE_CONTENT = 1 << 15
GUILD_SCHEDULED_EVENTS = 1 << 16
AUTO_MODERATION_CONFIGURATION = 1 << 20
AUTO_MODERATION_EXECUTION = 1 << 21
GUILD_MESSAGE_POLLS = 1 << 24
DIRECT_MESSAGE_POLLS = 1 << 25

ALL_INTENTS = 53_608_447
PRIVILEGED = GUILD_MEMBERS | GUILD_PRESENCES | MESSAGE_CONTENT
UNPRIVILEGED = ALL_INTENTS & ~PRIVILEGED

_BY_INTENT: dict[int, str] = {
    GUILDS: "GUILD_CREATE GUILD_UPDATE GUILD_DELETE GUILD_ROLE_CREATE GUILD_ROLE_UPDATE GUILD_ROLE_DELETE"
    " CHANNEL_CREATE CHANNEL_UPDATE CHANNEL_DELETE CHANNEL_PINS_UPDATE THREAD_CREATE THREAD_UPDATE THREAD_DELETE"
    " THREAD_LIST_SYNC THREAD_MEMBER_UPDATE STAGE_INSTANCE_CREATE STAGE_INSTANCE_UPDATE STAGE_INSTANCE_DELETE"
    " VOICE_CHANNEL_STATUS_UPDATE VOICE_CHANNEL_START_TIME_UPDATE",
    GUILD_MEMBERS: "GUILD_MEMBER_ADD GUILD_MEMBER_UPDATE GUILD_MEMBER_REMOVE THREAD_MEMBERS_UPDATE",
    GUILD_MODERATION: "GUILD_AUDIT_LOG_ENTRY_CREATE GUILD_BAN_ADD GUILD_BAN_REMOVE",
    GUILD_EXPRESSIONS: "GUILD_EMOJIS_UPDATE GUILD_STICKERS_UPDATE GUILD_SOUNDBOARD_SOUND_CREATE"
    " GUILD_SOUNDBOARD_SOUND_UPDATE GUILD_SOUNDBOARD_SOUND_DELETE GUILD_SOUNDBOARD_SOUNDS_UPDATE",
    GUILD_INTEGRATIONS: "GUILD_INTEGRATIONS_UPDATE INTEGRATION_CREATE INTEGRATION_UPDATE INTEGRATION_DELETE",
    GUILD_WEBHOOKS: "WEBHOOKS_UPDATE",
    GUILD_INVITES: "INVITE_CREATE INVITE_DELETE",
    GUILD_VOICE_STATES: "VOICE_STATE_UPDATE VOICE_CHANNEL_EFFECT_SEND",
    GUILD_PRESENCES: "PRESENCE_UPDATE",
    GUILD_MESSAGES: "MESSAGE_CREATE MESSAGE_UPDATE MESSAGE_DELETE MESSAGE_DELETE_BULK",
    GUILD_MESSAGE_REACTIONS: "MESSAGE_REACTION_ADD MESSAGE_REACTION_REMOVE MESSAGE_REACTION_REMOVE_ALL"
    " MESSAGE_REACTION_REMOVE_EMOJI",
    GUILD_MESSAGE_TYPING: "TYPING_START",
    GUILD_SCHEDULED_EVENTS: "GUILD_SCHEDULED_EVENT_CREATE GUILD_SCHEDULED_EVENT_UPDATE GUILD_SCHEDULED_EVENT_DELETE"
    " GUILD_SCHEDULED_EVENT_USER_ADD GUILD_SCHEDULED_EVENT_USER_REMOVE",
    AUTO_MODERATION_CONFIGURATION: "AUTO_MODERATION_RULE_CREATE AUTO_MODERATION_RULE_UPDATE"
    " AUTO_MODERATION_RULE_DELETE",
    AUTO_MODERATION_EXECUTION: "AUTO_MODERATION_ACTION_EXECUTION",
    GUILD_MESSAGE_POLLS: "MESSAGE_POLL_VOTE_ADD MESSAGE_POLL_VOTE_REMOVE",
}
GUILD_INTENT: Mapping[str, int] = {name: bit for bit, names in _BY_INTENT.items() for name in names.split()}
_DIRECT = {
    GUILD_MESSAGES: DIRECT_MESSAGES,
    GUILD_MESSAGE_REACTIONS: DIRECT_MESSAGE_REACTIONS,
    GUILD_MESSAGE_TYPING: DIRECT_MESSAGE_TYPING,
    GUILD_MESSAGE_POLLS: DIRECT_MESSAGE_POLLS,
}
DIRECT_INTENT: Mapping[str, int] = {
    **{name: _DIRECT[bit] for name, bit in GUILD_INTENT.items() if bit in _DIRECT},
    "CHANNEL_PINS_UPDATE": DIRECT_MESSAGES,
}
_CONTENT_EVENTS = frozenset({"MESSAGE_CREATE", "MESSAGE_UPDATE"})


def is_delivered(name: str, data: Mapping[str, Any], *, in_guild: bool, intents: int, self_id: str) -> bool:
    """Whether a session with these intents receives the event. Some events about the bot itself need no intent."""
    needed = (GUILD_INTENT if in_guild else DIRECT_INTENT).get(name, 0)
    if not needed or intents & needed:
        return True
    if name == "GUILD_MEMBER_UPDATE":
        return bool(data["user"]["id"] == self_id)
    if name != "THREAD_MEMBERS_UPDATE":
        return False
    added = any(member.get("user_id") == self_id for member in data.get("added_members", ()))
    return added or self_id in data.get("removed_member_ids", ())


def own_part(data: Mapping[str, Any], self_id: str) -> dict[str, Any]:
    """THREAD_MEMBERS_UPDATE for a bot without GUILD_MEMBERS: only its own membership."""
    part = {key: value for key, value in data.items() if key not in ("added_members", "removed_member_ids")}
    added = [member for member in data.get("added_members", ()) if member.get("user_id") == self_id]
    removed = [user_id for user_id in data.get("removed_member_ids", ()) if user_id == self_id]
    return part | ({"added_members": added} if added else {}) | ({"removed_member_ids": removed} if removed else {})


def hides_content(name: str, data: Mapping[str, Any], *, intents: int, self_id: str) -> bool:
    """Whether content fields are removed: no MESSAGE_CONTENT, and the message is not own or direct or a mention."""
    if intents & MESSAGE_CONTENT or name not in _CONTENT_EVENTS or "guild_id" not in data:
        return False
    if data["author"]["id"] == self_id:
        return False
    return all(user["id"] != self_id for user in data.get("mentions", ()))


def without_content(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message for a bot without MESSAGE_CONTENT."""
    bare = {key: value for key, value in message.items() if key != "poll"}
    bare.update(content="", embeds=[], attachments=[], components=[])
    return bare
