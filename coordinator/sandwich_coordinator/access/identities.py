"""Whose a token or a web session is, from the cluster's view. Pure.

A web session is a signed text that the client keeps: every node accepts it, and nothing is stored for each of them. Its
key is the cluster key together with the user's record in `access/sign-ins/`: without that record all of the user's web
sessions end. The role is not part of it: it is looked up at each request, so that who is removed or demoted loses it at
once.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping

import msgspec

from sandwich_coordinator.access.records import (
    FIRST_TOKEN,
    SignInRecord,
    TokenRecord,
    is_genuine,
    secret_hash,
    token_parts,
)
from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.view import ClusterView

SESSION_S = 12 * 3600.0
SESSION_PREFIX = "sws1"
SESSION_CHARACTERS_MAX = 3000
_NO_HASH = secret_hash("")


class WebSession(msgspec.Struct, frozen=True, kw_only=True):
    """What a web session says. `ends_at`: Unix seconds. `guild_roles`: guild -> the user's mapped roles at sign-in."""

    user: str
    name: str
    ends_at: float
    guild_roles: dict[str, list[str]] = {}


def token_identity(view: ClusterView, key: ClusterKey | None, text: str, now: float) -> Identity | None:
    """Whose token it is; None for one that is not known, expired, or that no holder of the cluster key made."""
    parts = token_parts(text)
    if parts is None:
        return None
    entry = view.tokens.get(parts[0])
    # Compared in any case, so that the time does not show which ids exist.
    matches = hmac.compare_digest(secret_hash(parts[1]), entry.record.hash if entry is not None else _NO_HASH)
    if entry is None or not matches or not _counts(entry.record, view, key, now):
        return None
    record = entry.record
    if record.id == FIRST_TOKEN and has_admin(view, key, now):
        return None
    return Identity("token", record.name, Role.from_name(record.role), _scope(record.apps))


def has_admin(view: ClusterView, key: ClusterKey | None, now: float) -> bool:
    """Whether an admin of the whole cluster exists, apart from the token for the first one."""
    tokens = (entry.record for name, entry in view.tokens.items() if name != FIRST_TOKEN)
    if any(record.role == "admin" and record.apps is None and _counts(record, view, key, now) for record in tokens):
        return True
    users = (entry.record for entry in view.users.values())
    cluster = view.keys.cluster
    return any(user.role == "admin" and user.apps is None and is_genuine(user, cluster, key) for user in users)


def user_identity(
    view: ClusterView,
    key: ClusterKey | None,
    user: str,
    guild_roles: Mapping[str, list[str]],
    guilds: Mapping[str, Mapping[str, str]],
) -> Identity | None:
    """What a user may do: as recorded, else the highest role of their Discord roles in `guilds` (`api.discord_login`).

    None: nothing. A record counts before the roles of a guild, in both directions.
    """
    entry = view.users.get(user)
    if entry is not None and is_genuine(entry.record, view.keys.cluster, key):
        return Identity("user", user, Role.from_name(entry.record.role), _scope(entry.record.apps))
    found = [
        Role.from_name(guilds[guild][role])
        for guild, roles in guild_roles.items()
        for role in roles
        if role in guilds.get(guild, {})
    ]
    return Identity("user", user, max(found)) if found else None


def web_session_text(session: WebSession, cluster: str, key: ClusterKey | None, sign_in: SignInRecord) -> str:
    """The web session as the client keeps it."""
    payload = base64.urlsafe_b64encode(msgspec.json.encode(session)).rstrip(b"=")
    secret = sign_in.secret.encode()
    if key is not None:
        secret = key.prove(*_session_proof(payload, cluster, secret)).encode()
    return f"{SESSION_PREFIX}.{payload.decode()}.{_mac(payload, secret)}"


def read_web_session(view: ClusterView, key: ClusterKey | None, text: str, now: float) -> WebSession | None:
    """A web session that is genuine and goes on; None for any other text."""
    if len(text) > SESSION_CHARACTERS_MAX or not text.isascii():
        return None
    prefix, _, rest = text.partition(".")
    payload, _, mac = rest.partition(".")
    try:
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        session = msgspec.json.decode(raw, type=WebSession)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
    entry = view.sign_ins.get(session.user)
    if entry is None or prefix != SESSION_PREFIX:
        return None
    secret = entry.record.secret.encode()
    secrets = [secret]
    if key is not None:
        proofs = key.proofs(*_session_proof(payload.encode(), view.keys.cluster, secret))
        secrets = [proof.encode() for proof in proofs]
    if not any(hmac.compare_digest(_mac(payload.encode(), each), mac) for each in secrets):
        return None
    return session if now < session.ends_at else None


def _session_proof(payload: bytes, cluster: str, secret: bytes) -> tuple[str, bytes]:
    """What the cluster key proves: it makes the session genuine, and the user's secret makes it end."""
    return f"{cluster}/session", len(secret).to_bytes(4, "big") + secret + payload


def _mac(payload: bytes, secret: bytes) -> str:
    digest = hmac.digest(secret, b"sandwich session" + payload, "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _counts(record: TokenRecord, view: ClusterView, key: ClusterKey | None, now: float) -> bool:
    return is_genuine(record, view.keys.cluster, key) and (not record.expires_at or now < record.expires_at)


def _scope(apps: list[str] | None) -> frozenset[str] | None:
    return None if apps is None else frozenset(apps)
