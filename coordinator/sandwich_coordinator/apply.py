"""From a cluster file to transactions: what would change, and the guarded writes that change it.

`diff` is pure. Secrets are compared after opening what is stored, because sealing the same token twice gives two
different values. Each write is guarded by the revision that was read: of two operators, the second is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sandwich_coordinator.app_options import sharing_problems, shown_option, stored_options
from sandwich_coordinator.config import (
    NATS_SECRET,
    REDIS_SECRET,
    AppConfig,
    ClusterConfig,
    ClusterSettings,
    DiscordSettings,
    NatsSettings,
    PolicySettings,
    RedisSettings,
)
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.sealing import ClusterKey, SealingError, open_plain, seal_plain, token_hash
from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Listing, Put, Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import key_id_of, proof_of
from sandwich_coordinator.types import AppRecord, CacheSpec, RestartRecord
from sandwich_coordinator.view import ClusterView

WRITES_PER_TXN_MAX = 100
"""etcd's default --max-txn-ops is 128."""


class ApplyRefused(Exception):
    """What is wanted does not fit what the cluster holds; the message says why and what to do."""


class ApplyConflict(Exception):
    """Somebody else changed the configuration since it was read. Nothing of this transaction was written."""


@dataclass(frozen=True)
class Wanted:
    """A cluster file with its secrets. The repr shows no secret."""

    config: ClusterConfig
    tokens: Mapping[str, str] = field(repr=False)
    nats_password: str | None = field(default=None, repr=False)
    redis_url: str = field(default="", repr=False)
    redis_password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Changes:
    """What to write, and what to tell. `lines` start with +, ~ or - as in a diff; empty writes: nothing to do."""

    writes: tuple[tuple[Compare, Put | Delete], ...] = field(default=(), repr=False)
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sealer:
    """Seals with `key`; without one (`--insecure-plaintext`) secrets are stored as they are."""

    key: ClusterKey | None

    @property
    def key_id(self) -> str:
        """The key's id; "" without one."""
        return self.key.key_id if self.key else ""

    def close(self, name: str, secret: str) -> str:
        """The stored form of a secret."""
        return self.key.seal(name, secret) if self.key else seal_plain(secret, allow_plain=True)

    def keep_or_close(self, name: str, secret: str | None, stored: str) -> str:
        """`stored` when it already holds `secret` in the wanted form, else a new stored form. "" for no secret."""
        if secret is None:
            return ""
        return stored if self.holds(name, secret, stored) else self.close(name, secret)

    def holds(self, name: str, secret: str, stored: str) -> bool:
        """Whether `stored` is `secret`, sealed by this key (or in plain text when there is none)."""
        if not stored or stored.startswith("plain:") != (self.key is None):
            return False
        try:
            opened = self.key.unseal(name, stored) if self.key else open_plain(name, stored, allow_plain=True)
            return opened == secret
        except SealingError:
            return False


def app_record(name: str, app: AppConfig, token: str, sealed: str) -> AppRecord:
    """An application as stored."""
    return AppRecord(app=name, token=sealed, token_hash=token_hash(token), **stored_options(app))


def cluster_settings(wanted: Wanted, sealer: Sealer, current: ClusterSettings | None) -> ClusterSettings:
    """The `config` key's value; secrets that did not change keep their stored form. With a key it has its proof."""
    nats, redis, policy = wanted.config.nats, wanted.config.redis, wanted.config.policy
    old_nats = current.nats.password if current else ""
    old_redis = current.redis.password if current else ""
    settings = ClusterSettings(
        nats=NatsSettings(
            servers=list(nats.servers),
            user=nats.user or "",
            password=sealer.keep_or_close(NATS_SECRET, wanted.nats_password, old_nats),
            credentials=str(nats.credentials or ""),
            tls_ca=str(nats.tls.ca or ""),
            tls_cert=str(nats.tls.cert or ""),
            tls_key=str(nats.tls.key or ""),
            replicas=nats.replicas,
            max_age_s=nats.stream.max_age,
            max_bytes=nats.stream.max_bytes,
        ),
        redis=RedisSettings(
            url=wanted.redis_url,
            password=sealer.keep_or_close(REDIS_SECRET, wanted.redis_password, old_redis),
            tls_ca=str(redis.tls.ca or ""),
            tls_cert=str(redis.tls.cert or ""),
            tls_key=str(redis.tls.key or ""),
        ),
        discord=DiscordSettings(api_url=wanted.config.discord.api_url, proxy=wanted.config.discord.proxy or ""),
        policy=PolicySettings(
            lease_ttl_s=policy.lease_ttl,
            restart_grace_s=policy.restart_grace,
            moves_in_flight_max=policy.moves_in_flight,
            identify_reserve=policy.identify_reserve,
            linger_ms=policy.linger_ms,
        ),
    )
    if sealer.key is None:
        return settings
    return msgspec.structs.replace(settings, proof=proof_of(settings, wanted.config.cluster, sealer.key))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{path}.{name}" if path else name)
    return flat


_UNTOLD = frozenset({"token_hash", "proof"})
"""They follow from what is told."""
_SECRET = frozenset({"token", "token_hash", "nats.password", "redis.password"})


def _fields(record: Any) -> dict[str, Any]:
    """Every field, defaults included, by dotted path."""
    return _flat(_plain(record))


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    return {name: _plain(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def edited_fields(label: str, before: Any, after: Any) -> list[str]:
    """What differs between two records, a line a field; secrets are not shown."""
    old, new = _fields(before), _fields(after)
    lines = []
    for path in sorted(old.keys() | new.keys(), key=lambda name: (name not in new, name)):
        if old.get(path) == new.get(path) or path in _UNTOLD:
            continue
        if path in _SECRET:
            lines.append(f"~ {label}: {path}: changed")
        else:
            lines.append(
                f"~ {label}: {path}: {shown_option(path, old.get(path))} -> {shown_option(path, new.get(path))}"
            )
    return lines


def diff(
    current: Listing,
    wanted: Wanted,
    *,
    keys: Keys,
    sealer: Sealer,
    prune: bool = False,
    rekey: bool = False,
    now: float = 0.0,
) -> Changes:
    """What makes the cluster as `wanted`. An application that the file does not name goes only with `prune`.

    Shards of applications in the file that have failed for good are to try again, whatever else changes. `now` (Unix
    seconds) goes into what asks for that.

    Raises ApplyRefused when a token already belongs to an application that stays under another name, when two
    applications would share a cache in different ways, or when the cluster's secrets are sealed with another key than
    the sealer's and `rekey` does not say that this is meant.
    """
    stored = {item.key: item for item in current.items}
    _check_keys(stored, wanted, keys, sealer, prune=prune, rekey=rekey)
    writes: list[tuple[Compare, Put | Delete]] = []
    lines: list[str] = []
    warnings: list[str] = []
    _diff_settings(stored.get(keys.config), wanted, keys, sealer, writes, lines)
    kept: dict[str, str] = {}
    caches: dict[str, CacheSpec] = {name: app.cache.spec() for name, app in wanted.config.apps.items()}
    for key, item in stored.items():
        name = key.removeprefix(keys.apps)
        if not key.startswith(keys.apps) or name in wanted.config.apps:
            continue
        if prune:
            writes.append((Compare(key, "mod_revision", item.mod_revision), Delete(key)))
            lines.append(f"- application {name}: removed")
        else:
            record = _record_of(item)
            if record is not None:
                kept[record.token_hash], caches[name] = name, record.cache
            warnings.append(f"application {name} is not in the file and stays; --prune removes it")
    for app_name, path, text in sharing_problems(caches):
        raise ApplyRefused(f"apps.{app_name}.{path} {text}")
    for name, app in wanted.config.apps.items():
        token = wanted.tokens[name]
        if owner := kept.get(token_hash(token)):
            raise ApplyRefused(
                f"apps.{name}.token is the token of application {owner!r}, which the cluster holds and the file does "
                f"not name: name it {owner!r} in the file, or use --prune to remove {owner!r}"
            )
        _diff_app(stored.get(keys.app(name)), name, app, token, keys, sealer, writes, lines)
    _retry_failed(stored, wanted, keys, now, writes, lines)
    return Changes(tuple(writes), tuple(lines), tuple(warnings))


def _check_keys(
    stored: Mapping[str, KeyValue], wanted: Wanted, keys: Keys, sealer: Sealer, *, prune: bool, rekey: bool
) -> None:
    """Nodes know one key: what another one seals would take shards from them at their next restart."""
    held = _key_ids(stored, keys)
    foreign = {key: key_id for key, key_id in held.items() if key_id != sealer.key_id}
    if foreign and not rekey:
        there = " and ".join(_key_in_words(key_id) for key_id in sorted(set(foreign.values())))
        raise ApplyRefused(
            f"cluster {wanted.config.cluster!r} is sealed with {there}, and this is {_key_in_words(sealer.key_id)}: "
            "nodes with the other key would lose these shards at their next restart. Give the cluster's own key; or, "
            "to change it, stop every node, apply with --rekey and start the nodes with the new key"
        )
    left = [key.removeprefix(keys.apps) for key in foreign if key.startswith(keys.apps)]
    left = sorted(name for name in left if name not in wanted.config.apps)
    if left and not prune:
        raise ApplyRefused(
            f"--rekey needs every token, and {', '.join(left)} is not in the file: its token is sealed with another "
            "key and no node could open it. Name it in the file, or use --prune to remove it"
        )


def _key_ids(stored: Mapping[str, KeyValue], keys: Keys) -> dict[str, str]:
    """Which key seals what is stored, by etcd key; "" where secrets are in plain text. Damaged values do not count."""
    found: dict[str, str] = {}
    for key, item in stored.items():
        sealed: list[str] = []
        if key.startswith(keys.apps):
            record = _record_of(item)
            sealed = [record.token] if record is not None else []
        elif key == keys.config:
            try:
                settings = ClusterSettings.decode(item.value)
            except (msgspec.MsgspecError, ValueError):
                continue
            sealed = [settings.proof, settings.nats.password, settings.redis.password]
        for value in sealed:
            if (key_id := key_id_of(value)) is not None:
                found.setdefault(key, key_id)
    return found


def _key_in_words(key_id: str) -> str:
    return f"cluster key {key_id}" if key_id else "no cluster key (secrets in plain text)"


def _retry_failed(
    stored: Mapping[str, KeyValue],
    wanted: Wanted,
    keys: Keys,
    now: float,
    writes: list[tuple[Compare, Put | Delete]],
    lines: list[str],
) -> None:
    """What made a shard fail may have been put right at Discord: nothing in the file shows that."""
    claims = {key: item for key, item in stored.items() if key.startswith(keys.claims)}
    failed: dict[str, list[ShardId]] = {}
    view = ClusterView.from_items(keys, claims)
    for shard, claim in sorted(view.claims.items()):
        if claim.record.state == "failed" and shard.app in wanted.config.apps:
            failed.setdefault(shard.app, []).append(shard)
            guard = Compare(keys.claim(*shard), "create_revision", claim.create_revision)
            writes.append((guard, Put(keys.restart(*shard), RestartRecord(at=now).encode())))
    for name, shards in failed.items():
        numbers = format_ranges(sorted({shard.shard for shard in shards}))
        lines.append(f"~ application {name}: failed shards {numbers} try again")


def _record_of(item: KeyValue) -> AppRecord | None:
    try:
        return msgspec.json.decode(item.value, type=AppRecord)
    except msgspec.MsgspecError:
        return None


def _diff_settings(
    item: KeyValue | None,
    wanted: Wanted,
    keys: Keys,
    sealer: Sealer,
    writes: list[tuple[Compare, Put | Delete]],
    lines: list[str],
) -> None:
    current = None
    if item is not None:
        try:
            current = ClusterSettings.decode(item.value)
        except msgspec.MsgspecError:
            lines.append("~ cluster: the stored configuration is damaged and is replaced")
    after = cluster_settings(wanted, sealer, current)
    if after == current:
        return
    if item is None:
        lines.append("+ cluster: configured")
    elif current is not None:
        proved = f"~ cluster: its addresses are authenticated with {_key_in_words(sealer.key_id)}"
        lines += edited_fields("cluster", current, after) or [proved]
    writes.append((_unchanged(keys.config, item), Put(keys.config, after.encode())))


def _diff_app(
    item: KeyValue | None,
    name: str,
    app: AppConfig,
    token: str,
    keys: Keys,
    sealer: Sealer,
    writes: list[tuple[Compare, Put | Delete]],
    lines: list[str],
) -> None:
    current = None
    if item is not None:
        try:
            current = msgspec.json.decode(item.value, type=AppRecord)
        except msgspec.MsgspecError:
            lines.append(f"~ application {name}: its stored configuration is damaged and is replaced")
    after = app_record(name, app, token, sealer.keep_or_close(name, token, current.token if current else ""))
    if after == current:
        return
    if item is None:
        lines.append(f"+ application {name}: shards {app.shards.count}, intents {shown_option('intents', app.intents)}")
    elif current:
        lines += edited_fields(f"application {name}", current, after)
    writes.append((_unchanged(keys.app(name), item), Put(keys.app(name), after.encode())))


def _unchanged(key: str, item: KeyValue | None) -> Compare:
    return Compare(key, "mod_revision", item.mod_revision if item else 0)


async def write_changes(store: Store, writes: Sequence[tuple[Compare, Put | Delete]]) -> None:
    """Write in one transaction (several of `WRITES_PER_TXN_MAX` when there are more).

    Raises ApplyConflict when somebody else was first, and the store's errors.
    """
    for start in range(0, len(writes), WRITES_PER_TXN_MAX):
        part = writes[start : start + WRITES_PER_TXN_MAX]
        result = await store.txn([guard for guard, _ in part], [write for _, write in part])
        if not result.succeeded:
            raise ApplyConflict("somebody else changed the configuration at the same time: look, then apply again")
