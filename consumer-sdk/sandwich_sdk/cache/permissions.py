"""A member's permissions, computed as Discord documents it (docs: "Permissions"). Pure.

Discord's four rules, in this order: roles, overwrites of the channel, what is implied when a permission is missing, and
the time-out. Owners and administrators are exempt from all but the first.
"""

import enum
import functools
import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final


class Permissions(enum.IntFlag, boundary=enum.KEEP):
    """A set of permissions. Bits that this version does not know are kept."""

    CREATE_INSTANT_INVITE = 1 << 0
    KICK_MEMBERS = 1 << 1
    BAN_MEMBERS = 1 << 2
    ADMINISTRATOR = 1 << 3
    MANAGE_CHANNELS = 1 << 4
    MANAGE_GUILD = 1 << 5
    ADD_REACTIONS = 1 << 6
    VIEW_AUDIT_LOG = 1 << 7
    PRIORITY_SPEAKER = 1 << 8
    STREAM = 1 << 9
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    SEND_TTS_MESSAGES = 1 << 12
    MANAGE_MESSAGES = 1 << 13
    EMBED_LINKS = 1 << 14
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16
    MENTION_EVERYONE = 1 << 17
    USE_EXTERNAL_EMOJIS = 1 << 18
    VIEW_GUILD_INSIGHTS = 1 << 19
    CONNECT = 1 << 20
    SPEAK = 1 << 21
    MUTE_MEMBERS = 1 << 22
    DEAFEN_MEMBERS = 1 << 23
    MOVE_MEMBERS = 1 << 24
    USE_VAD = 1 << 25
    CHANGE_NICKNAME = 1 << 26
    MANAGE_NICKNAMES = 1 << 27
    MANAGE_ROLES = 1 << 28
    MANAGE_WEBHOOKS = 1 << 29
    MANAGE_GUILD_EXPRESSIONS = 1 << 30
    USE_APPLICATION_COMMANDS = 1 << 31
    REQUEST_TO_SPEAK = 1 << 32
    MANAGE_EVENTS = 1 << 33
    MANAGE_THREADS = 1 << 34
    CREATE_PUBLIC_THREADS = 1 << 35
    CREATE_PRIVATE_THREADS = 1 << 36
    USE_EXTERNAL_STICKERS = 1 << 37
    SEND_MESSAGES_IN_THREADS = 1 << 38
    USE_EMBEDDED_ACTIVITIES = 1 << 39
    MODERATE_MEMBERS = 1 << 40
    VIEW_CREATOR_MONETIZATION_ANALYTICS = 1 << 41
    USE_SOUNDBOARD = 1 << 42
    CREATE_GUILD_EXPRESSIONS = 1 << 43
    CREATE_EVENTS = 1 << 44
    USE_EXTERNAL_SOUNDS = 1 << 45
    SEND_VOICE_MESSAGES = 1 << 46
    SET_VOICE_CHANNEL_STATUS = 1 << 48
    SEND_POLLS = 1 << 49
    USE_EXTERNAL_APPS = 1 << 50
    PIN_MESSAGES = 1 << 51
    BYPASS_SLOWMODE = 1 << 52

    def names(self) -> list[str]:
        """The known permissions that are set, by Discord's names."""
        return [permission.name for permission in self if permission.name is not None]


P = Permissions
ALL: Final = functools.reduce(operator.or_, Permissions)
"""The permissions of owners and administrators."""

TIMED_OUT: Final = P.VIEW_CHANNEL | P.READ_MESSAGE_HISTORY
"""The permissions that a member in time-out keeps."""

GUILD_WIDE: Final = (
    P.KICK_MEMBERS | P.BAN_MEMBERS | P.ADMINISTRATOR | P.MANAGE_GUILD | P.VIEW_AUDIT_LOG | P.VIEW_GUILD_INSIGHTS
    | P.CHANGE_NICKNAME | P.MANAGE_NICKNAMES | P.MANAGE_GUILD_EXPRESSIONS | P.MODERATE_MEMBERS
    | P.VIEW_CREATOR_MONETIZATION_ANALYTICS | P.CREATE_GUILD_EXPRESSIONS
)  # fmt: skip
"""Permissions without a channel type in Discord's table: a hidden channel does not remove them."""

NEEDS_SENDING: Final = P.MENTION_EVERYONE | P.SEND_TTS_MESSAGES | P.ATTACH_FILES | P.EMBED_LINKS
NEEDS_CONNECT: Final = (
    P.MANAGE_CHANNELS | P.MANAGE_ROLES | P.PRIORITY_SPEAKER | P.STREAM | P.SPEAK | P.MUTE_MEMBERS | P.DEAFEN_MEMBERS
    | P.MOVE_MEMBERS | P.USE_VAD | P.REQUEST_TO_SPEAK | P.USE_EMBEDDED_ACTIVITIES | P.USE_SOUNDBOARD
    | P.USE_EXTERNAL_SOUNDS | P.SET_VOICE_CHANNEL_STATUS
)  # fmt: skip
"""Discord names only "such as MANAGE_CHANNEL". The others make sense only in a call, or Discord's client hides them."""

VOICE_TYPES: Final = frozenset({2, 13})
ROLE, MEMBER = 0, 1


@dataclass(frozen=True, slots=True)
class Overwrite:
    """One overwrite of a channel; `type` is 0 for a role's and 1 for a member's."""

    id: str
    type: int
    allow: int
    deny: int


@dataclass(frozen=True, slots=True)
class ChannelRules:
    """The properties of a channel that affect permissions. A thread has its parent's overwrites and type."""

    type: int
    overwrites: Collection[Overwrite]
    is_thread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The properties of a member that affect permissions.

    everyone      permissions of the guild's @everyone role
    roles         permissions of the member's other roles, by role id
    is_timed_out  the member's time-out has not ended yet
    """

    guild: str
    user: str
    is_owner: bool
    is_timed_out: bool
    everyone: int
    roles: Mapping[str, int]


def in_guild(subject: Subject) -> Permissions:
    """A member's permissions in the guild, without those of channels."""
    permissions = _of_roles(subject)
    return permissions & TIMED_OUT if subject.is_timed_out and permissions != ALL else permissions


def in_channel(subject: Subject, rules: ChannelRules) -> Permissions:
    """A member's permissions in a channel or thread."""
    permissions = _of_roles(subject)
    if permissions == ALL:
        return ALL
    permissions = _overwritten(permissions, rules.overwrites, subject)
    if rules.is_thread:
        # Threads inherit all permissions but this one; they have SEND_MESSAGES_IN_THREADS instead.
        permissions = _without(permissions, P.SEND_MESSAGES)
    permissions = _without_implied(permissions, rules)
    return permissions & TIMED_OUT if subject.is_timed_out else permissions


def _of_roles(subject: Subject) -> Permissions:
    permissions = subject.everyone
    for role in subject.roles.values():
        permissions |= role
    return ALL if subject.is_owner or permissions & P.ADMINISTRATOR else Permissions(permissions)


def _overwritten(base: int, overwrites: Collection[Overwrite], subject: Subject) -> Permissions:
    """`base` after @everyone's overwrite, then those of all the member's roles at once, then the member's."""
    permissions, allow, deny = base, 0, 0
    for one in overwrites:
        if one.type == ROLE and one.id == subject.guild:
            permissions = permissions & ~one.deny | one.allow
        elif one.type == ROLE and one.id in subject.roles:
            allow |= one.allow
            deny |= one.deny
    permissions = permissions & ~deny | allow
    for one in overwrites:
        if one.type == MEMBER and one.id == subject.user:
            permissions = permissions & ~one.deny | one.allow
    return Permissions(permissions)


def _without_implied(permissions: Permissions, rules: ChannelRules) -> Permissions:
    """`permissions` without those that have no effect because another one is missing."""
    if not permissions & P.VIEW_CHANNEL:
        return permissions & GUILD_WIDE
    if not permissions & (P.SEND_MESSAGES_IN_THREADS if rules.is_thread else P.SEND_MESSAGES):
        permissions = _without(permissions, NEEDS_SENDING)
    if rules.type in VOICE_TYPES and not permissions & P.CONNECT:
        permissions = _without(permissions, NEEDS_CONNECT)
    return permissions


def _without(permissions: Permissions, those: Permissions) -> Permissions:
    # Not `permissions & ~those`: the complement of an IntFlag has no unknown bits.
    return Permissions(int(permissions) & ~int(those))
