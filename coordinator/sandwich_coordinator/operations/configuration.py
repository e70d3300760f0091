"""The cluster's whole configuration: apply a cluster file, read the stored one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from sandwich_coordinator.config import ClusterSettings, policy_of
from sandwich_coordinator.operations.configuration_plan import (
    ConfigurationPlan,
    Sealer,
    Wanted,
    Write,
    plan_configuration,
)
from sandwich_coordinator.operations.errors import Conflict, Refused
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.scale_plan import ScalePlan, added_group
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import KeyValue, Listing, Put, Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import check_settings, key_id_of
from sandwich_coordinator.types import AppRecord
from sandwich_coordinator.view import ClusterView

WRITES_PER_TXN_MAX = 100
"""etcd's default --max-txn-ops is 128."""


@dataclass(frozen=True)
class StoredConfiguration:
    """What the cluster has stored. `is_checked`: the cluster key confirms who wrote the settings, or none was used."""

    settings: ClusterSettings
    apps: tuple[AppRecord, ...]
    is_checked: bool


async def apply_configuration(
    store: Store,
    keys: Keys,
    wanted: Wanted,
    sealer: Sealer,
    *,
    now: float,
    prune: bool = False,
    rekey: bool = False,
    dry_run: bool = False,
) -> ConfigurationPlan:
    """Make the cluster as `wanted`, in one transaction if it fits into one; with `dry_run` write nothing.

    With two keys the one that the cluster uses seals, unless `rekey`.

    Raises Refused, Conflict, and the store's errors.
    """
    current = await store.list(keys.prefix)
    if not rekey:
        _use_stored_key(current, keys, sealer.key)
    plan = plan_configuration(current, wanted, keys=keys, sealer=sealer, prune=prune, rekey=rekey, now=now)
    plan = replace(plan, new_groups=_new_groups(current, plan, keys))
    if not dry_run:
        await _write(store, plan.writes)
    return plan


def _use_stored_key(current: Listing, keys: Keys, key: ClusterKey | None) -> None:
    stored = next((item.value for item in current.items if item.key == keys.config), None)
    if key is None or stored is None:
        return
    try:
        used = key_id_of(ClusterSettings.decode(stored).proof)
    except (msgspec.MsgspecError, ValueError):
        return
    if used in key.key_ids:
        key.use(used)


def _new_groups(current: Listing, plan: ConfigurationPlan, keys: Keys) -> tuple[ScalePlan, ...]:
    """The shard groups that these writes lead to."""
    items = {item.key: item for item in current.items}
    view, policy = (
        ClusterView.from_items(keys, items, current.revision),
        policy_of(items[keys.config].value if keys.config in items else None),
    )
    records = [
        msgspec.json.decode(write.value, type=AppRecord)
        for _, write in plan.writes
        if isinstance(write, Put) and write.key.startswith(keys.apps)
    ]
    found = (added_group(view, record, policy=policy) for record in records)
    return tuple(one for one in found if one is not None)


def stream_defaults(item: KeyValue | None) -> dict[str, Any]:
    """What an application's stream keeps where its own section says nothing; {} when the settings cannot be read."""
    try:
        nats = ClusterSettings.decode(item.value).nats if item is not None else None
    except (msgspec.MsgspecError, ValueError):
        nats = None
    if nats is None:
        return {}
    return {"max_age_s": nats.max_age_s, "max_bytes": nats.max_bytes, "replicas": nats.replicas}


async def _write(store: Store, writes: Sequence[Write]) -> None:
    for start in range(0, len(writes), WRITES_PER_TXN_MAX):
        part = writes[start : start + WRITES_PER_TXN_MAX]
        result = await store.txn([guard for guard, _ in part], [write for _, write in part])
        if not result.succeeded:
            raise Conflict("another operator changed the configuration at the same time: look, then apply again")


async def read_configuration(store: Store, keys: Keys, key: ClusterKey | None) -> StoredConfiguration:
    """The stored configuration; with `key` only if the key authenticates it.

    Raises Refused when there is none or it cannot be read, SealingError for another key or changed settings, and the
    store's errors.
    """
    item = await store.get(keys.config)
    listing = await store.list(keys.apps)
    if item is None:
        raise Refused("the cluster is not configured: run sandwich cluster apply -f cluster.yml")
    settings = read_settings(item, keys, key)
    try:
        apps = tuple(msgspec.json.decode(kv.value, type=AppRecord) for kv in listing.items)
    except msgspec.MsgspecError as error:
        raise Refused(f"the stored configuration cannot be read: {error}") from None
    return StoredConfiguration(settings, apps, is_checked=key is not None or not settings.proof)


async def stored_policy(store: Store, keys: Keys) -> Policy:
    """The policy of the cluster; the default one while none is stored that can be read. Raises the store's errors."""
    item = await store.get(keys.config)
    return policy_of(item.value if item is not None else None)


def read_settings(item: KeyValue, keys: Keys, key: ClusterKey | None) -> ClusterSettings:
    """The cluster's settings as stored; with `key` only if the key authenticates them.

    Raises Refused when they cannot be read, SealingError for another key or settings that another writer changed.
    """
    try:
        settings = ClusterSettings.decode(item.value)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refused(f"the stored configuration cannot be read: {error}") from None
    if key is not None:
        check_settings(settings, keys.cluster, key)
    return settings
