"""Roles and identities of the HTTP API. Pure.

A role includes the ones below it. An identity can be limited to applications: it then sees and changes these only, and
nothing that belongs to the whole cluster.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal


class Role(IntEnum):
    """VIEWER reads. OPERATOR also moves, restarts, scales and drains. ADMIN also changes configuration and access."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @classmethod
    def from_name(cls, name: str) -> "Role":
        """The role of this name. Raises ValueError."""
        try:
            return cls[name.upper()]
        except KeyError:
            raise ValueError(f"must be viewer, operator or admin, not {name[:32]!r}") from None

    @property
    def label(self) -> str:
        """The role's name as people write it."""
        return self.name.lower()


RoleName = Literal["viewer", "operator", "admin"]
IdentityKind = Literal["token", "user", "node", "anonymous"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request.

    kind    an API token, a user who signed in, another node, or anonymous
    name    the token's name or the user's Discord id, for the audit log
    role    None: an identity that may do nothing
    apps    the applications it is limited to; None: no limit
    """

    kind: IdentityKind
    name: str
    role: Role | None
    apps: frozenset[str] | None = None

    def has_role(self, role: Role) -> bool:
        """Whether the identity has at least this role."""
        return self.role is not None and self.role >= role

    def sees(self, app: str) -> bool:
        """Whether an application is within the identity's scope."""
        return self.apps is None or app in self.apps


ANONYMOUS = Identity("anonymous", "", None)
