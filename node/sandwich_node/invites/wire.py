"""Decodes the fields of Discord's events and answers that invite tracking needs, and no others. Pure."""

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

VANITY = ""
"""The key of the vanity URL among a guild's invites. No invite has an empty code."""
MANAGE_GUILD = 1 << 5
ADMINISTRATOR = 1 << 3
PERMISSIONS_DIGITS_MAX = 40

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadAnswer(Exception):
    """Discord's answer does not have the documented form."""


class NoCounts(BadAnswer):
    """The invites have no counts: the bot may view the audit log but not manage the guild."""


class Inviter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Who made an invite."""

    id: str
    username: str = ""
    global_name: str | None = None


class Invite(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An invite, or the vanity URL, as it was at one moment. `expires_at` is in seconds since 1970, None for never."""

    code: str
    uses: int
    max_uses: int = 0
    expires_at: float | None = None
    channel: str = ""
    inviter: Inviter | None = None

    @property
    def left(self) -> int:
        """How many uses are left; 0 when the uses are unlimited."""
        return max(0, self.max_uses - self.uses)


class _Id(msgspec.Struct):
    id: str


class _ListedInvite(msgspec.Struct):
    code: str
    uses: int | None = None
    max_uses: int = 0
    expires_at: datetime | None = None
    channel: _Id | None = None
    inviter: Inviter | None = None


class _VanityUrl(msgspec.Struct):
    code: str | None = None
    uses: int = 0


class RoleSeen(msgspec.Struct):
    """A role and its permissions."""

    id: str
    permissions: str = "0"

    @property
    def manages(self) -> bool:
        """Whether the role lets its members manage the guild."""
        text = self.permissions
        is_number = text.isdecimal() and len(text) <= PERMISSIONS_DIGITS_MAX
        return is_number and bool(int(text) & (MANAGE_GUILD | ADMINISTRATOR))


class UserSeen(msgspec.Struct):
    """A user; `bot`: it is a bot."""

    id: str
    bot: bool = False


class MemberSeen(msgspec.Struct):
    """A member of a guild. Members within a GUILD_CREATE have no `guild_id`."""

    user: UserSeen
    roles: list[str] = []
    guild_id: str = ""


class GuildSeen(msgspec.Struct):
    """GUILD_CREATE, GUILD_UPDATE, GUILD_DELETE."""

    id: str
    unavailable: bool = False
    owner_id: str = ""
    vanity_url_code: str | None = None
    roles: list[RoleSeen] = []
    members: list[MemberSeen] = []


class _DamagedGuild(msgspec.Struct):
    id: str
    unavailable: Any = False
    owner_id: Any = ""
    vanity_url_code: Any = None
    roles: msgspec.Raw = msgspec.Raw(b"[]")
    members: msgspec.Raw = msgspec.Raw(b"[]")


class RoleChanged(msgspec.Struct):
    """GUILD_ROLE_CREATE, GUILD_ROLE_UPDATE."""

    guild_id: str
    role: RoleSeen


class RoleGone(msgspec.Struct):
    """GUILD_ROLE_DELETE."""

    guild_id: str
    role_id: str


class ChannelGone(msgspec.Struct):
    """CHANNEL_DELETE."""

    id: str
    guild_id: str = ""


class InviteMade(msgspec.Struct):
    """INVITE_CREATE. Its `uses` is always 0 and therefore not decoded."""

    code: str
    channel_id: str
    guild_id: str = ""
    max_uses: int = 0
    expires_at: datetime | None = None
    inviter: Inviter | None = None

    def as_invite(self) -> Invite:
        """The invite with zero uses."""
        return Invite(self.code, 0, self.max_uses, _seconds(self.expires_at), self.channel_id, self.inviter)


class InviteGone(msgspec.Struct):
    """INVITE_DELETE."""

    code: str
    guild_id: str = ""


Seen = GuildSeen | RoleChanged | RoleGone | MemberSeen | ChannelGone | InviteMade | InviteGone
_KINDS: dict[str, type[Seen]] = {
    "GUILD_CREATE": GuildSeen,
    "GUILD_UPDATE": GuildSeen,
    "GUILD_DELETE": GuildSeen,
    "GUILD_ROLE_CREATE": RoleChanged,
    "GUILD_ROLE_UPDATE": RoleChanged,
    "GUILD_ROLE_DELETE": RoleGone,
    "GUILD_MEMBER_ADD": MemberSeen,
    "GUILD_MEMBER_UPDATE": MemberSeen,
    "CHANNEL_DELETE": ChannelGone,
    "INVITE_CREATE": InviteMade,
    "INVITE_DELETE": InviteGone,
}
EVENT_TYPES = frozenset(_KINDS)
"""The events that invite tracking reads."""
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in _KINDS.items()}
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_decode_damaged = msgspec.json.Decoder(_DamagedGuild).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_Item = TypeVar("_Item", RoleSeen, MemberSeen)
_decode_invites = msgspec.json.Decoder(list[_ListedInvite]).decode
_decode_vanity = msgspec.json.Decoder(_VanityUrl).decode


def read_event(event_type: str, data: bytes) -> Seen | None:
    """Decode the `d` of an event of EVENT_TYPES; None when it does not have the documented form.

    Damaged fields, roles and members of a guild are left out.
    """
    try:
        seen: Seen | None = _DECODERS[event_type].decode(data)
    except _UNREADABLE:
        seen = _guild_in_part(data) if _KINDS[event_type] is GuildSeen else None
    if seen is None:
        return None
    guild = seen.id if isinstance(seen, GuildSeen) else seen.guild_id
    if not guild and isinstance(seen, ChannelGone | InviteMade | InviteGone):
        # A direct message channel.
        return seen
    # The id becomes part of a URL.
    return seen if guild.isascii() and guild.isdigit() else None


def _guild_in_part(data: bytes) -> GuildSeen | None:
    try:
        found = _decode_damaged(data)
    except _UNREADABLE:
        return None
    return GuildSeen(
        id=found.id,
        unavailable=found.unavailable is True,
        owner_id=found.owner_id if isinstance(found.owner_id, str) else "",
        vanity_url_code=found.vanity_url_code if isinstance(found.vanity_url_code, str) else None,
        roles=_readable(found.roles, RoleSeen),
        members=_readable(found.members, MemberSeen),
    )


def _readable(value: msgspec.Raw, kind: type[_Item]) -> list[_Item]:
    """The readable items of a list; no items when the value is not a list."""
    made: list[_Item] = []
    try:
        items = _decode_items(value)
    except _UNREADABLE:
        return made
    for item in items:
        try:
            made.append(msgspec.json.decode(item, type=kind))
        except _UNREADABLE:
            continue
    return made


def read_invites(body: bytes) -> dict[str, Invite]:
    """`GET /guilds/{id}/invites`, by code. Raises BadAnswer, NoCounts."""
    try:
        listed = _decode_invites(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadAnswer("the list of invites does not have the documented form") from None
    found = {}
    for invite in listed:
        if invite.uses is None:
            raise NoCounts("the invites have no counts")
        channel = invite.channel.id if invite.channel else ""
        expires_at = _seconds(invite.expires_at)
        found[invite.code] = Invite(invite.code, invite.uses, invite.max_uses, expires_at, channel, invite.inviter)
    return found


def read_vanity(body: bytes) -> Invite | None:
    """`GET /guilds/{id}/vanity-url`; None when the guild has none. Raises BadAnswer."""
    try:
        vanity = _decode_vanity(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadAnswer("the vanity URL does not have the documented form") from None
    return Invite(vanity.code, vanity.uses) if vanity.code else None


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    # Not `timestamp()`: it raises for naive times far from today.
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH).total_seconds()
