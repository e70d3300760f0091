"""API tokens and users: make, list, take away. Every write is guarded; every record is proved with the cluster key."""

import base64
import os
from collections.abc import Collection
from dataclasses import dataclass, field

from sandwich_coordinator.access.records import (
    FIRST_TOKEN,
    SECRET_BYTES,
    SignInRecord,
    TokenRecord,
    UserRecord,
    proved,
    secret_hash,
    token_id_of,
    token_text,
)
from sandwich_coordinator.access.roles import Role, RoleName
from sandwich_coordinator.operations.configuration import read_settings
from sandwich_coordinator.operations.errors import Conflict, Invalid, NotFound, Refused
from sandwich_coordinator.operations.waiting import read_view
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import Compare, Delete, Put, Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import follow_settings
from sandwich_coordinator.view import ClusterView

TOKENS_MAX = 500
USERS_MAX = 1000
NAME_CHARACTERS_MAX = 64
FIRST_TOKEN_S = 24 * 3600


@dataclass(frozen=True)
class NewToken:
    """A token that was just made. `text` is the secret, which is stored nowhere."""

    record: TokenRecord
    text: str = field(repr=False)


async def create_token(
    store: Store,
    keys: Keys,
    key: ClusterKey | None,
    *,
    name: str,
    role: RoleName,
    apps: Collection[str] | None = None,
    expires_at: float = 0.0,
    by: str = "",
    now: float,
) -> NewToken:
    """Make an API token. `expires_at`: Unix seconds, 0: never; `apps` None: no limit.

    Raises Invalid, NotFound for an application, Refused when the name is in use, Conflict when it was used at the same
    time, SealingError without the cluster's key; StoreError.
    """
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or name != name.strip():
        raise Invalid(f"a token's name has 1 to {NAME_CHARACTERS_MAX} characters that can be printed")
    if expires_at and expires_at <= now:
        raise Invalid("a token that has expired already is of no use")
    view = await read_view(store, keys)
    _check_key(view, key)
    _check_apps(view, apps)
    if any(entry.record.name == name for entry in view.tokens.values()):
        raise Refused(f"there is a token {name!r} already: take it away first, or choose another name")
    if len(view.tokens) >= TOKENS_MAX:
        raise Refused(f"a cluster has at most {TOKENS_MAX} tokens: take away those that are not used")
    token_id, secret = token_id_of(name), _random_secret()
    path = keys.token(token_id)
    if view.revision_of_bad(path):
        raise Refused(f"the token {name!r} cannot be read: take it away first, by its id {token_id}")
    record = TokenRecord(
        id=token_id,
        name=name,
        role=role,
        hash=secret_hash(secret),
        apps=None if apps is None else sorted(set(apps)),
        expires_at=expires_at,
        created_at=now,
        created_by=by,
    )
    record = proved(record, keys.cluster, key)
    writes = [Put(path, record.encode()), *_end_of_first(view, role, apps)]
    done = await store.txn([Compare(path, "create_revision", 0)], writes)
    if not done.succeeded:
        raise Conflict(f"another operator made a token {name!r} at the same time: choose another name")
    return NewToken(record, token_text(token_id, secret))


async def create_first_token(store: Store, keys: Keys, key: ClusterKey | None, now: float) -> NewToken | None:
    """The token for a cluster's first admin; None when another node made it, or a user or token is there already.

    It ends after a day with its lease, and as soon as another admin exists (`access.identities`). Raises StoreError.
    """
    view = await read_view(store, keys)
    if view.tokens or view.users:
        return None
    secret = _random_secret()
    record = TokenRecord(
        id=FIRST_TOKEN,
        name="first admin",
        role="admin",
        hash=secret_hash(secret),
        expires_at=now + FIRST_TOKEN_S,
        created_at=now,
        created_by="a node at its first start",
    )
    path, lease = keys.token(FIRST_TOKEN), await store.grant(FIRST_TOKEN_S)
    record = proved(record, keys.cluster, key)
    done = await store.txn([Compare(path, "create_revision", 0)], [Put(path, record.encode(), lease)])
    if not done.succeeded:
        await store.revoke(lease)
        return None
    return NewToken(record, token_text(FIRST_TOKEN, secret))


async def list_tokens(store: Store, keys: Keys) -> list[TokenRecord]:
    """The tokens without their secrets, oldest first. Raises StoreError."""
    view = await read_view(store, keys)
    return sorted((entry.record for entry in view.tokens.values()), key=lambda record: (record.created_at, record.id))


async def revoke_token(store: Store, keys: Keys, wanted: str) -> TokenRecord | None:
    """Take a token away, by its id or its name: every node refuses it at once. Returns it; None: it was unreadable.

    Raises NotFound, Conflict, StoreError.
    """
    view = await read_view(store, keys)
    entry = view.tokens.get(wanted) or next(
        (entry for entry in view.tokens.values() if entry.record.name == wanted), None
    )
    path = keys.token(wanted if entry is None else entry.record.id)
    revision = view.revision_of_bad(path) if entry is None else entry.mod_revision
    if not revision:
        raise NotFound("token", wanted, [entry.record.name for entry in view.tokens.values()])
    if not (await store.txn([Compare(path, "mod_revision", revision)], [Delete(path)])).succeeded:
        raise Conflict("another operator changed this token at the same time: look, then try again")
    return entry.record if entry is not None else None


async def set_user(
    store: Store,
    keys: Keys,
    key: ClusterKey | None,
    *,
    user: str,
    role: RoleName,
    apps: Collection[str] | None = None,
    by: str = "",
    now: float,
) -> tuple[UserRecord | None, UserRecord]:
    """Let a Discord user in, or change what they may do: the record before and after.

    Raises Invalid, NotFound for an application, Refused, Conflict, SealingError without the cluster's key; StoreError.
    """
    check_user(user)
    view = await read_view(store, keys)
    _check_key(view, key)
    _check_apps(view, apps)
    if user not in view.users and len(view.users) >= USERS_MAX:
        raise Refused(f"a cluster has at most {USERS_MAX} users: map a role of a Discord guild instead")
    record = UserRecord(
        user=user,
        role=role,
        apps=None if apps is None else sorted(set(apps)),
        created_at=now,
        created_by=by,
    )
    record = proved(record, keys.cluster, key)
    entry, path = view.users.get(user), keys.user(user)
    guard = Compare(path, "mod_revision", entry.mod_revision if entry else view.revision_of_bad(path))
    writes = [Put(path, record.encode()), *_end_of_first(view, role, apps)]
    if not (await store.txn([guard], writes)).succeeded:
        raise Conflict("another operator changed this user at the same time: look, then try again")
    return (entry.record if entry is not None else None), record


async def list_users(store: Store, keys: Keys) -> list[UserRecord]:
    """Who may sign in by a record of their own. Raises StoreError."""
    view = await read_view(store, keys)
    return sorted((entry.record for entry in view.users.values()), key=lambda record: (record.created_at, record.user))


async def remove_user(store: Store, keys: Keys, user: str) -> UserRecord | None:
    """Take a user's record away and end their web sessions. Returns it; None: it was unreadable, or there was none.

    Who has a mapped role of a Discord guild needs no record, and can sign in again. Raises NotFound for a user without
    a record and without web sessions, Conflict, StoreError.
    """
    view = await read_view(store, keys)
    entry, path = view.users.get(user), keys.user(user)
    revision = view.revision_of_bad(path) if entry is None else entry.mod_revision
    if not (revision or user in view.sign_ins or view.revision_of_bad(keys.sign_in(user))):
        raise NotFound("user", user, view.users)
    guard = Compare(path, "mod_revision", revision)
    if not (await store.txn([guard], [Delete(path), Delete(keys.sign_in(user))])).succeeded:
        raise Conflict("another operator changed this user at the same time: look, then try again")
    return entry.record if entry is not None else None


async def begin_web_session(store: Store, keys: Keys, user: str) -> SignInRecord:
    """The record that the user's web sessions depend on, made at the first sign-in. Raises StoreError."""
    check_user(user)
    path = keys.sign_in(user)
    while True:
        view = ClusterView.from_items(keys, {item.key: item for item in (await store.list(path)).items})
        entry = view.sign_ins.get(user)
        if entry is not None:
            return entry.record
        record = SignInRecord(user=user, secret=os.urandom(SECRET_BYTES).hex())
        guard = Compare(path, "mod_revision", view.revision_of_bad(path))
        if (await store.txn([guard], [Put(path, record.encode())])).succeeded:
            return record


async def end_web_sessions(store: Store, keys: Keys, user: str) -> None:
    """End all web sessions of a user on every node. Raises StoreError."""
    await store.txn((), [Delete(keys.sign_in(user))])


def check_user(user: str) -> None:
    """Raise Invalid unless it is a Discord id."""
    if not (user.isascii() and user.isdecimal() and len(user) <= 20 and str(int(user)) == user and int(user)):
        raise Invalid(f"{user[:40]!r} is not a Discord id, which is a number such as 613425648685547541")


def role_of(name: str) -> RoleName:
    """The role of this name. Raises Invalid."""
    try:
        label = Role.from_name(name).label
    except ValueError as error:
        raise Invalid(f"the role {error}") from None
    return "admin" if label == "admin" else "operator" if label == "operator" else "viewer"


def _end_of_first(view: ClusterView, role: RoleName, apps: Collection[str] | None) -> list[Put | Delete]:
    """With an admin of the whole cluster the first one's token goes, and does not come back with their removal."""
    is_admin = role == "admin" and apps is None
    return [Delete(view.keys.token(FIRST_TOKEN))] if is_admin and FIRST_TOKEN in view.tokens else []


def _random_secret() -> str:
    return base64.urlsafe_b64encode(os.urandom(SECRET_BYTES)).rstrip(b"=").decode()


def _check_apps(view: ClusterView, apps: Collection[str] | None) -> None:
    if apps is not None and not apps:
        raise Invalid("name at least one application, or leave the limit out")
    for app in apps or ():
        if app not in view.apps:
            raise NotFound("application", app, view.apps)


def _check_key(view: ClusterView, key: ClusterKey | None) -> None:
    """Raise SealingError when another key than the cluster's is used, or none where there is one."""
    if view.config is not None:
        # Unlike `read_settings` also without a key: a record without a proof is of no use in a cluster that has one.
        follow_settings(read_settings(view.config, view.keys, None), view.keys.cluster, key)
