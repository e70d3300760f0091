"""Whether the bot may manage a guild, which is what Discord asks of who wants to see its invites' counts. Pure.

Computed rather than tried out: each refusal counts towards a ban of the whole address. Only roles that allow it are
remembered. https://discord.com/developers/docs/topics/permissions
"""

from dataclasses import dataclass

from sandwich_node.invites.wire import GuildSeen, MemberSeen, RoleChanged, RoleGone


@dataclass(slots=True)
class ManagePermission:
    """What decides it in one guild: its owner, the roles that manage it, the bot's own roles."""

    guild: str
    owner: bool
    managing: set[str]
    own: frozenset[str]

    @property
    def manages(self) -> bool:
        """Whether the bot may; everybody has the role that bears the guild's id."""
        return self.owner or self.guild in self.managing or not self.managing.isdisjoint(self.own)

    def follow(self, seen: GuildSeen | MemberSeen | RoleChanged | RoleGone, own_id: str) -> bool:
        """GUILD_UPDATE, the bot's own GUILD_MEMBER_UPDATE, or a role; whether that changed what the bot may."""
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
    """The roles that let their members manage the guild."""
    return {role.id for role in guild.roles if role.manages}


def manage_permission(guild: GuildSeen, own_id: str) -> ManagePermission | None:
    """The bot's power by GUILD_CREATE; None when the bot is not among the members it shows."""
    own = next((member.roles for member in guild.members if member.user.id == own_id), None)
    if own is None and guild.owner_id != own_id:
        return None
    return ManagePermission(guild.id, guild.owner_id == own_id, managing_roles(guild), frozenset(own or ()))
