"""Another cluster key while nodes run: what the old one seals or proves is sealed or proved with the new one.

A node that has both keys opens what either has sealed, and seals with the one that proves the stored settings. So the
settings are written first: from then on nodes seal nothing more with the old key. Each record is written only if it is
as it was read; a run that ends early has changed some of them, and the next one goes on with the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from sandwich_coordinator.access.records import TokenRecord, UserRecord, is_genuine, proved
from sandwich_coordinator.config import LOGIN_SECRET, NATS_SECRET, REDIS_SECRET, ClusterSettings
from sandwich_coordinator.operations.configuration import WRITES_PER_TXN_MAX, read_settings
from sandwich_coordinator.operations.errors import Conflict, Refused
from sandwich_coordinator.operations.webhooks import seal_name
from sandwich_coordinator.sealing import ClusterKey, SealingError
from sandwich_coordinator.store.base import Compare, Listing, Put, Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import api_proof_of, check_settings, key_id_of, proof_of
from sandwich_coordinator.types import AppRecord, GroupRecord, Record
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_coordinator.webhooks.records import WebhookRecord

ROUNDS_MAX = 20
"""Nodes write the records of shard groups at any time: a record that changed meanwhile is read and written again."""

_A = TypeVar("_A", TokenRecord, UserRecord)


@dataclass(frozen=True, slots=True)
class Rekeying:
    """What to write, guarded, and of what in words. `left`: what neither key opens; it stays as it is."""

    writes: tuple[tuple[Compare, Put], ...] = field(default=(), repr=False)
    sealed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Change:
    what: str
    key: str
    mod_revision: int
    record: Record | ClusterSettings | None
    """None: neither key opens it."""


async def rekey(store: Store, keys: Keys, key: ClusterKey, *, force: bool = False, dry_run: bool = False) -> Rekeying:
    """Seal and prove everything with the first key of `key`; repeating it is safe. With `dry_run` write nothing.

    Raises Refused as `plan_rekey`; Conflict when other writers never leave it alone; the store's errors, after which
    the next run goes on.
    """
    done: list[str] = []
    for _ in range(ROUNDS_MAX):
        plan = plan_rekey(await store.list(keys.prefix), keys, key, force=force)
        if dry_run:
            return plan
        if not plan.writes:
            return Rekeying((), tuple(dict.fromkeys(done)), plan.left)
        for start in range(0, len(plan.writes), WRITES_PER_TXN_MAX):
            part = plan.writes[start : start + WRITES_PER_TXN_MAX]
            result = await store.txn([guard for guard, _ in part], [write for _, write in part])
            if not result.succeeded:
                break
            done += plan.sealed[start : start + WRITES_PER_TXN_MAX]
    raise Conflict("other writers change the same records again and again: run it once more")


def plan_rekey(current: Listing, keys: Keys, key: ClusterKey, *, force: bool = False) -> Rekeying:
    """What is still sealed or proved with the second key of `key`, and its new form with the first one. No I/O.

    `key` uses the first one from then on.

    Raises Refused without settings that one of the keys proves, and, unless `force`, while a node does not have the
    first key: it could open nothing at its next restart.
    """
    items = {item.key: item for item in current.items}
    view = ClusterView.from_items(keys, items, current.revision)
    if view.config is None:
        raise Refused("the cluster is not configured: run sandwich cluster apply -f cluster.yml")
    new = key.key_ids[0]
    settings = read_settings(view.config, keys, None)
    try:
        check_settings(settings, keys.cluster, key)
    except SealingError as error:
        raise Refused(f"{error}. To change the key give both, the new one first, with a comma between") from None
    without = sorted(name for name, node in view.nodes.items() if new not in node.record.cluster_keys)
    if without and not force:
        raise Refused(
            f"cluster key {new} is not known to {', '.join(without)}: restart each node with both keys first, one node "
            "after another (--force goes on: such a node can open nothing after its next restart)"
        )
    key.use(new)
    writes: list[tuple[Compare, Put]] = []
    sealed: list[str] = []
    left: list[str] = []
    for change in _changes(view, settings, view.config.mod_revision, key):
        if change.record is None:
            left.append(change.what)
            continue
        sealed.append(change.what)
        guard = Compare(change.key, "mod_revision", change.mod_revision)
        writes.append((guard, Put(change.key, change.record.encode())))
    return Rekeying(tuple(writes), tuple(sealed), tuple(left))


def _changes(view: ClusterView, settings: ClusterSettings, revision: int, key: ClusterKey) -> Iterator[_Change]:
    """The settings first: see the top of this file."""
    keys = view.keys
    try:
        after = _settings(settings, keys.cluster, key)
    except SealingError:
        after = None
    if after != settings:
        yield _Change("the settings of the cluster", keys.config, revision, after)
    for name, app in view.apps.items():
        yield from _sealed(f"application {name}", keys.app(name), app, "token", name, key)
    for group_id, group in view.groups.items():
        yield from _sealed(f"shard group {group_id}", keys.group(*group_id), group, "token", group_id.app, key)
    for name, hook in view.webhooks.items():
        yield from _sealed(f"webhook {name}", keys.webhook(name), hook, "sealed", seal_name(name), key)
    for name, token in view.tokens.items():
        yield from _proved(f"API token {name}", keys.token(name), token, keys.cluster, key)
    for name, user in view.users.items():
        yield from _proved(f"user {name}", keys.user(name), user, keys.cluster, key)


def _settings(settings: ClusterSettings, cluster: str, key: ClusterKey) -> ClusterSettings:
    """Raises SealingError for a password that neither key opens."""
    nats, redis, api = settings.nats, settings.redis, settings.api
    login = api.discord_login
    if login is not None:
        login = msgspec.structs.replace(login, client_secret=_again(LOGIN_SECRET, login.client_secret, key))
    after = msgspec.structs.replace(
        settings,
        nats=msgspec.structs.replace(nats, password=_again(NATS_SECRET, nats.password, key)),
        redis=msgspec.structs.replace(redis, password=_again(REDIS_SECRET, redis.password, key)),
        api=msgspec.structs.replace(api, discord_login=login),
    )
    return msgspec.structs.replace(
        after, proof=proof_of(after, cluster, key), api_proof=api_proof_of(after, cluster, key)
    )


def _again(name: str, stored: str, key: ClusterKey) -> str:
    """A secret sealed with the key in use; "" stays. Raises SealingError."""
    return stored if not stored or key_id_of(stored) == key.key_id else key.seal(name, key.unseal(name, stored))


def _sealed(
    what: str,
    place: str,
    entry: Entry[AppRecord] | Entry[GroupRecord] | Entry[WebhookRecord],
    field_name: str,
    name: str,
    key: ClusterKey,
) -> Iterator[_Change]:
    stored: str = getattr(entry.record, field_name)
    try:
        again = _again(name, stored, key)
    except SealingError:
        yield _Change(what, place, entry.mod_revision, None)
        return
    if again != stored:
        after = msgspec.structs.replace(entry.record, **{field_name: again})
        yield _Change(what, place, entry.mod_revision, after)


def _proved(what: str, place: str, entry: Entry[_A], cluster: str, key: ClusterKey) -> Iterator[_Change]:
    """A record that neither key proves gets no proof: something without a key wrote it."""
    if not is_genuine(entry.record, cluster, key):
        yield _Change(what, place, entry.mod_revision, None)
    elif key_id_of(entry.record.proof) != key.key_id:
        yield _Change(what, place, entry.mod_revision, proved(entry.record, cluster, key))
