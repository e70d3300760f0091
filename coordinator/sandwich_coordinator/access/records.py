"""API tokens and users as kept in etcd, each authenticated with the cluster key. Pure.

A writer to etcd without the cluster key must not be able to give itself access. So each record has a proof by the
cluster key over all that it grants. In a cluster without a key there is none: every writer to etcd is an admin there.
"""

import base64
import hashlib
from typing import TypeVar

import msgspec

from sandwich_coordinator.access.roles import RoleName
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.types import Record

TOKEN_PREFIX = "swt"
SECRET_BYTES = 32
ID_BYTES = 10
FIRST_TOKEN = "first"
"""The id of the token that a node makes for the first admin."""


class TokenRecord(Record, frozen=True):
    """`access/tokens/<id>`: an API token without its secret.

    hash        SHA-256 of the secret, in hex. The secret has 256 random bits, so that no slow hash is needed
    apps        the applications it is limited to; None: no limit
    expires_at  Unix seconds; 0: never
    created_by  who made it, for people
    """

    id: str
    name: str
    role: RoleName
    hash: str
    apps: list[str] | None = None
    expires_at: float = 0.0
    created_at: float = 0.0
    created_by: str = ""
    proof: str = ""


class UserRecord(Record, frozen=True):
    """`access/users/<Discord id>`: who may sign in, and what for. `apps` None: no limit."""

    user: str
    role: RoleName
    apps: list[str] | None = None
    created_at: float = 0.0
    created_by: str = ""
    proof: str = ""


class SignInRecord(Record, frozen=True):
    """`access/sign-ins/<Discord id>`: part of the key of the user's web sessions, random. Without it they all end."""

    user: str
    secret: str


_R = TypeVar("_R", TokenRecord, UserRecord)


def proved(record: _R, cluster: str, key: ClusterKey | None) -> _R:
    """The record with its proof; without one in a cluster without a key."""
    proof = "" if key is None else key.prove(_name(record, cluster), _grants(record))
    return msgspec.structs.replace(record, proof=proof)


def is_genuine(record: TokenRecord | UserRecord, cluster: str, key: ClusterKey | None) -> bool:
    """Whether a holder of the cluster key wrote this record; in a cluster without a key: whether none did."""
    if key is None:
        return not record.proof
    return key.proves(_name(record, cluster), _grants(record), record.proof)


def token_id_of(name: str) -> str:
    """The id of a token by its name: two tokens cannot have one name. Older versions made random ids."""
    return base64.b32encode(hashlib.sha256(name.encode()).digest()[:ID_BYTES]).decode().lower()


def token_text(token_id: str, secret: str) -> str:
    """What a client sends. The form is known to `logs.redact`."""
    return f"{TOKEN_PREFIX}_{token_id}_{secret}"


def token_parts(text: str) -> tuple[str, str] | None:
    """The id and the secret of a token; None for another text."""
    prefix, _, rest = text.partition("_")
    token_id, _, secret = rest.partition("_")
    return (token_id, secret) if prefix == TOKEN_PREFIX and token_id and secret else None


def secret_hash(secret: str) -> str:
    """What is stored of a token's secret."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _name(record: TokenRecord | UserRecord, cluster: str) -> str:
    return f"{cluster}/access/{'token' if isinstance(record, TokenRecord) else 'user'}"


def _grants(record: TokenRecord | UserRecord) -> bytes:
    apps = None if record.apps is None else sorted(record.apps)
    if isinstance(record, TokenRecord):
        return msgspec.json.encode([record.id, record.name, record.role, apps, record.hash, record.expires_at])
    return msgspec.json.encode([record.user, record.role, apps])
