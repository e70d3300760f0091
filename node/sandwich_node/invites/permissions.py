"""Whether the bot may manage a guild. Discord requires this of a bot that reads the counts of invites. Pure.

It is computed and not tried, because each refusal counts towards a ban of the whole IP address. Only the roles that
grant the permission are stored. https://discord.com/developers/docs/topics/permissions
"""

from dataclasses import dataclass

from sandwich_node.invites.wire import GuildSeen, MemberSeen, RoleChanged, RoleGone


@dataclass(slots=True)
class ManagePermission:
    """The facts that decide it in one guild: the owner, the roles that may manage it, the bot's own roles."""

    guild: str
    owner: bool
    managing: set[str]
    own: frozenset[str]

    @property
    def manages(self) -> bool:
        """Whether the bot may manage the guild. All members have the role whose id is the guild's."""
        return self.owner or self.guild in self.managing or not self.managing.isdisjoint(self.own)

    def follow(self, seen: GuildSeen | MemberSeen | RoleChanged | RoleGone, own_id: str) -> bool:
        """Apply GUILD_UPDATE, the bot's own GUILD_MEMBER_UPDATE or a role event; whether `manages` changed."""
        could = self.manages
        match seen:
            case GuildSeen():
                self.owner, self.managing = seen.owner_id == own_id, managing_roles(seen)
            case MemberSeen():
                self.own = frozenset(seen.roles)
            case RoleChanged(role=role):
                (self.managing.add if role.manages else self.managing.discard)(role.id)
            case RoleGone(role_id=role_id):
                self.managing.discard(role_id)
                self.own -= {role_id}
        return self.manages != could


def managing_roles(guild: GuildSeen) -> set[str]:
    """The ids of the roles that let their members manage the guild."""
    return {role.id for role in guild.roles if role.manages}


def manage_permission(guild: GuildSeen, own_id: str) -> ManagePermission | None:
    """The bot's permission according to GUILD_CREATE; None when the event does not list the bot as a member."""
    own = next((member.roles for member in guild.members if member.user.id == own_id), None)
    if own is None and guild.owner_id != own_id:
        return None
    return ManagePermission(guild.id, guild.owner_id == own_id, managing_roles(guild), frozenset(own or ()))
