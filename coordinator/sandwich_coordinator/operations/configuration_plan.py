"""From a cluster file to guarded writes: what would change, as values, and what to write. Pure.

Secrets are compared after opening the stored ones, because sealing the same token twice gives two different values.
Each write is guarded by the revision that was read: of two operators who write at the same time, the second is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from sandwich_coordinator.app_options import sharing_problems, stored_options
from sandwich_coordinator.autoscale import guilds_of
from sandwich_coordinator.config import (
    LOGIN_SECRET,
    NATS_SECRET,
    REDIS_SECRET,
    ApiSettings,
    AppConfig,
    ClusterConfig,
    ClusterSettings,
    DiscordLoginSettings,
    DiscordSettings,
    NatsSettings,
    PolicySettings,
    RedisSettings,
)
from sandwich_coordinator.config_values import reserve_of
from sandwich_coordinator.groups import serving_groups
from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.operations.changes import (
    AppAdded,
    AppRemoved,
    AppReplaced,
    Change,
    SettingsAdded,
    SettingsAuthenticated,
    SettingsReplaced,
    ShardsRetried,
    app_changes,
    settings_changes,
)
from sandwich_coordinator.operations.errors import Refused
from sandwich_coordinator.scale_plan import ScalePlan
from sandwich_coordinator.sealing import ClusterKey, SealingError, open_plain, seal_plain, token_hash
from sandwich_coordinator.shard_counts import judge_shards, recorded_limits
from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Listing, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import api_proof_of, key_id_of, proof_of
from sandwich_coordinator.types import AppRecord, CacheSpec, RestartRecord, ShardsSpec
from sandwich_coordinator.view import ClusterView

Write = tuple[Compare, Put | Delete]


@dataclass(frozen=True)
class Wanted:
    """A cluster file with its secrets. The repr shows no secret.

    absent  why a secret was not read, by its path in the file, such as `apps.music.token`: the stored one stays
    """

    config: ClusterConfig
    tokens: Mapping[str, str] = field(repr=False)
    nats_password: str | None = field(default=None, repr=False)
    redis_url: str = field(default="", repr=False)
    redis_password: str | None = field(default=None, repr=False)
    login_secret: str | None = field(default=None, repr=False)
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigurationPlan:
    """What to write, and what that changes. Without writes nothing is to do.

    `kept`: applications that the cluster has, the file does not name, and that stay. `warnings`: what is allowed and
    may not be what it looks like. `new_groups`: what needs new sessions, and what it costs.
    """

    writes: tuple[Write, ...] = field(default=(), repr=False)
    changes: tuple[Change, ...] = ()
    kept: tuple[str, ...] = ()
    new_groups: tuple[ScalePlan, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sealer:
    """Seals with `key`; without one (`--insecure-plaintext`) secrets are stored as they are."""

    key: ClusterKey | None

    @property
    def key_id(self) -> str:
        """The key's id; "" without one."""
        return self.key.key_id if self.key else ""

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of all keys that open what is stored; "" without one."""
        return self.key.key_ids if self.key else ("",)

    def close(self, name: str, secret: str) -> str:
        """The stored form of a secret."""
        return self.key.seal(name, secret) if self.key else seal_plain(secret, allow_plain=True)

    def keep_or_close(self, name: str, secret: str | None, stored: str) -> str:
        """`stored` when it already holds `secret` in the wanted form, else a new stored form. "" for no secret."""
        if secret is None:
            return ""
        return stored if self.holds(name, secret, stored) else self.close(name, secret)

    def opened(self, name: str, stored: str) -> str | None:
        """The secret in its stored form; None when none is stored, or it cannot be opened."""
        if not stored:
            return None
        try:
            return self.key.unseal(name, stored) if self.key else open_plain(name, stored, allow_plain=True)
        except SealingError:
            return None

    def holds(self, name: str, secret: str, stored: str) -> bool:
        """Whether `stored` is `secret`, sealed by the key that seals (or in plain text when there is none)."""
        return key_id_of(stored) == self.key_id and self.opened(name, stored) == secret


def app_record(name: str, app: AppConfig, token: str, sealed: str) -> AppRecord:
    """An application as stored."""
    return AppRecord(app=name, token=sealed, token_hash=token_hash(token), **stored_options(app))


def cluster_settings(wanted: Wanted, sealer: Sealer, current: ClusterSettings | None) -> ClusterSettings:
    """The `config` key's value; secrets that did not change keep their stored form. With a key it has its proof."""
    nats, redis, policy = wanted.config.nats, wanted.config.redis, wanted.config.policy
    old_nats = current.nats.password if current else ""
    old_redis = current.redis.password if current else ""
    reserve, reserve_percent = reserve_of(policy.identify_reserve)
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
            identify_reserve=reserve,
            identify_reserve_percent=reserve_percent,
            linger_ms=policy.linger_ms,
        ),
        api=_api_settings(wanted, sealer, current),
    )
    if sealer.key is None:
        return settings
    cluster = wanted.config.cluster
    return msgspec.structs.replace(
        settings,
        proof=proof_of(settings, cluster, sealer.key),
        api_proof=api_proof_of(settings, cluster, sealer.key),
    )


def _api_settings(wanted: Wanted, sealer: Sealer, current: ClusterSettings | None) -> ApiSettings:
    api = wanted.config.api
    login = None
    if api.discord_login is not None:
        old = current.api.discord_login if current else None
        login = DiscordLoginSettings(
            client_id=api.discord_login.client_id,
            client_secret=sealer.keep_or_close(LOGIN_SECRET, wanted.login_secret, old.client_secret if old else ""),
            guilds={guild: dict(roles) for guild, roles in api.discord_login.guilds.items()},
        )
    return ApiSettings(
        enabled=api.enabled,
        open=None if api.open is None else list(api.open),
        public_url=api.public_url or "",
        trusted_proxies=list(api.trusted_proxies),
        discord_login=login,
    )


def plan_configuration(
    current: Listing,
    wanted: Wanted,
    *,
    keys: Keys,
    sealer: Sealer,
    prune: bool = False,
    rekey: bool = False,
    now: float = 0.0,
) -> ConfigurationPlan:
    """What makes the cluster as `wanted`. An application that the file does not name is removed only with `prune`.

    Failed shards of applications in the file try again, whatever else changes; `now` (Unix seconds) is the time of
    that request.

    An application that is paused by command stays so.

    Raises Refused when a token belongs to an application that stays under another name, when two applications would
    share a cache in different ways, when a secret was not read and is not stored either, or when the cluster's
    secrets are sealed with another key than the sealer's and `rekey` is not given.
    """
    stored = {item.key: item for item in current.items}
    _check_keys(stored, wanted, keys, sealer, prune=prune, rekey=rekey)
    wanted = _with_stored_secrets(stored, wanted, keys, sealer)
    writes: list[Write] = []
    changes: list[Change] = []
    _plan_settings(stored.get(keys.config), wanted, keys, sealer, writes, changes)
    kept = _plan_unnamed(stored, wanted, keys, prune, writes, changes)
    view = ClusterView.from_items(keys, stored)
    _check_kept(kept, {name: entry.record.token_hash for name, entry in view.apps.items()}, wanted)
    warnings = [f"{why}: the stored secret stays" for why in wanted.absent.values()]
    for name, app in wanted.config.apps.items():
        if name in view.removals:
            raise Refused(f"{name} is being removed: sandwich app remove {name} finishes that, then apply again")
        _plan_app(stored.get(keys.app(name)), name, app, wanted.tokens[name], keys, sealer, writes, changes)
        warnings += _judge(view, name, app, token_hash(wanted.tokens[name]), now)
    _retry_failed(stored, wanted, keys, now, writes, changes)
    return ConfigurationPlan(tuple(writes), tuple(changes), tuple(kept), warnings=tuple(warnings))


def _with_stored_secrets(stored: Mapping[str, KeyValue], wanted: Wanted, keys: Keys, sealer: Sealer) -> Wanted:
    """The same with the stored secrets in place of those that were not read. Raises Refused where none is stored."""
    if not wanted.absent:
        return wanted
    settings = _settings_of(stored.get(keys.config))
    login = settings.api.discord_login if settings is not None else None
    nats = sealer.opened(NATS_SECRET, settings.nats.password) if settings is not None else None
    redis = sealer.opened(REDIS_SECRET, settings.redis.password) if settings is not None else None
    secret = sealer.opened(LOGIN_SECRET, login.client_secret) if login is not None else None
    found = {"nats.password": nats, "redis.password": redis, "api.discord_login.client_secret": secret}
    tokens = dict(wanted.tokens)
    for name in wanted.config.apps:
        item = stored.get(keys.app(name))
        record = _record_of(item) if item is not None else None
        token = sealer.opened(name, record.token) if record is not None else None
        found[f"apps.{name}.token"] = token
        if name not in tokens and token is not None:
            tokens[name] = token
    missing = [why for path, why in wanted.absent.items() if found.get(path) is None]
    if missing:
        raise Refused(missing)
    return replace(
        wanted,
        tokens=tokens,
        nats_password=nats if "nats.password" in wanted.absent else wanted.nats_password,
        redis_password=redis if "redis.password" in wanted.absent else wanted.redis_password,
        login_secret=secret if "api.discord_login.client_secret" in wanted.absent else wanted.login_secret,
    )


def _settings_of(item: KeyValue | None) -> ClusterSettings | None:
    if item is None:
        return None
    try:
        return ClusterSettings.decode(item.value)
    except (msgspec.MsgspecError, ValueError):
        return None


def _judge(view: ClusterView, name: str, app: AppConfig, hashed: str, now: float) -> list[str]:
    """Warnings about an application of the file. Raises Refused for a changed shard count or ids that cannot run."""
    entry = view.apps.get(name)
    warnings = []
    if entry is not None and entry.record.paused_at:
        warnings.append(f"application {name} stays paused by command: sandwich app resume {name} starts it")
    shards = ShardsSpec(count=app.shards.count, ids=app.shards.ids)
    if entry is not None and (entry.record.shards, entry.record.token_hash) == (shards, hashed):
        return warnings
    budget = view.budgets.get(hashed)
    group = serving_groups(view).get(name)
    running = view.groups[group].record.count if group is not None else 0
    guilds = guilds_of(view, group) if group is not None else 0
    limits = recorded_limits(budget.record, now, guilds=guilds) if budget is not None else None
    verdict = judge_shards(shards, limits, running=running)
    for key, text in verdict.problems:
        raise Refused(f"apps.{name}.{key}: {text}")
    return [*warnings, *(f"apps.{name}.{key}: {text}" for key, text in verdict.warnings)]


def _plan_unnamed(
    stored: Mapping[str, KeyValue],
    wanted: Wanted,
    keys: Keys,
    prune: bool,
    writes: list[Write],
    changes: list[Change],
) -> dict[str, AppRecord | None]:
    """Remove the applications that the file does not name, or return them by name; None: the record is damaged."""
    kept: dict[str, AppRecord | None] = {}
    for key, item in stored.items():
        name = key.removeprefix(keys.apps)
        if not key.startswith(keys.apps) or name in wanted.config.apps:
            continue
        if prune:
            writes.append((Compare(key, "mod_revision", item.mod_revision), Delete(key)))
            changes.append(AppRemoved(name))
        else:
            kept[name] = _record_of(item)
    return kept


def _check_kept(kept: Mapping[str, AppRecord | None], held: Mapping[str, str], wanted: Wanted) -> None:
    """Raise Refused when the file's applications do not fit each other, or those that stay beside them.

    `held`: the token hash of each application that the cluster has.
    """
    caches: dict[str, CacheSpec] = {name: app.cache.spec() for name, app in wanted.config.apps.items()}
    caches |= {name: record.cache for name, record in kept.items() if record is not None}
    for app, path, text in sharing_problems(caches):
        raise Refused(f"apps.{app}.{path} {text}")
    owners = {record.token_hash: name for name, record in kept.items() if record is not None}
    for name in wanted.config.apps:
        hashed = token_hash(wanted.tokens[name])
        owner = owners.get(hashed)
        # Two applications may share a token (sandwich app add); a renamed one must not run twice.
        if owner is not None and held.get(name) != hashed:
            raise Refused(
                f"apps.{name}.token is the token of application {owner!r}, which the cluster holds and the file does "
                f"not name: name it {owner!r} in the file, or use --prune to remove {owner!r}"
            )


def _check_keys(
    stored: Mapping[str, KeyValue], wanted: Wanted, keys: Keys, sealer: Sealer, *, prune: bool, rekey: bool
) -> None:
    """Nodes could not open secrets sealed with a key that they do not have at their next restart."""
    if rekey and len(sealer.key_ids) > 1:
        raise Refused("--rekey is for one key, when the other one is lost: with both use sandwich cluster rekey")
    held = _key_ids(stored, keys)
    foreign = {key: key_id for key, key_id in held.items() if key_id not in sealer.key_ids}
    if foreign and not rekey:
        there = " and ".join(key_in_words(key_id) for key_id in sorted(set(foreign.values())))
        raise Refused(
            f"cluster {wanted.config.cluster!r} is sealed with {there}, and this is {key_in_words(sealer.key_id)}: "
            "nodes with the other key would lose these shards at their next restart. Give the cluster's own key; to "
            "change it while nodes run there is sandwich cluster rekey; without the old key stop every node, apply "
            "with --rekey and start the nodes with the new key"
        )
    left = [key.removeprefix(keys.apps) for key in foreign if key.startswith(keys.apps)]
    left = sorted(name for name in left if name not in wanted.config.apps)
    if left and not prune:
        raise Refused(
            f"--rekey needs every token, and {', '.join(left)} is not in the file: its token is sealed with another "
            "key and no node could open it. Name it in the file, or use --prune to remove it"
        )


def _key_ids(stored: Mapping[str, KeyValue], keys: Keys) -> dict[str, str]:
    """The id of the key that seals each stored secret, by etcd key; "" for plain text. Damaged values do not count."""
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
            login = settings.api.discord_login
            sealed = [settings.proof, settings.api_proof, settings.nats.password, settings.redis.password]
            sealed += [login.client_secret] if login is not None else []
        for value in sealed:
            if (key_id := key_id_of(value)) is not None:
                found.setdefault(key, key_id)
    return found


def key_in_words(key_id: str) -> str:
    """How a message names a key."""
    return f"cluster key {key_id}" if key_id else "no cluster key (secrets in plain text)"


def _retry_failed(
    stored: Mapping[str, KeyValue],
    wanted: Wanted,
    keys: Keys,
    now: float,
    writes: list[Write],
    changes: list[Change],
) -> None:
    """The cause of a failed shard may be fixed at Discord, which nothing in the file shows."""
    claims = {key: item for key, item in stored.items() if key.startswith(keys.claims)}
    failed: dict[str, list[ShardId]] = {}
    view = ClusterView.from_items(keys, claims)
    for shard, claim in sorted(view.claims.items()):
        if claim.record.state == "failed" and shard.app in wanted.config.apps:
            failed.setdefault(shard.app, []).append(shard)
            guard = Compare(keys.claim(*shard), "create_revision", claim.create_revision)
            writes.append((guard, Put(keys.restart(*shard), RestartRecord(at=now).encode())))
    for name, shards in failed.items():
        changes.append(ShardsRetried(name, tuple(sorted({shard.shard for shard in shards}))))


def _record_of(item: KeyValue) -> AppRecord | None:
    try:
        return msgspec.json.decode(item.value, type=AppRecord)
    except msgspec.MsgspecError:
        return None


def _plan_settings(
    item: KeyValue | None,
    wanted: Wanted,
    keys: Keys,
    sealer: Sealer,
    writes: list[Write],
    changes: list[Change],
) -> None:
    current = None
    if item is not None:
        try:
            current = ClusterSettings.decode(item.value)
        except msgspec.MsgspecError:
            changes.append(SettingsReplaced())
    after = cluster_settings(wanted, sealer, current)
    if after == current:
        return
    if item is None:
        changes.append(SettingsAdded())
    elif current is not None:
        changes += settings_changes(current, after) or [SettingsAuthenticated(sealer.key_id)]
    writes.append((_unchanged(keys.config, item), Put(keys.config, after.encode())))


def _plan_app(
    item: KeyValue | None,
    name: str,
    app: AppConfig,
    token: str,
    keys: Keys,
    sealer: Sealer,
    writes: list[Write],
    changes: list[Change],
) -> None:
    current = None
    if item is not None:
        try:
            current = msgspec.json.decode(item.value, type=AppRecord)
        except msgspec.MsgspecError:
            changes.append(AppReplaced(name))
    after = app_record(name, app, token, sealer.keep_or_close(name, token, current.token if current else ""))
    if current is not None and current.paused_at:
        # Who paused it by a command resumes it by a command: another operator's apply must not.
        after = msgspec.structs.replace(after, paused=True, paused_at=current.paused_at)
    if after == current:
        return
    if item is None:
        changes.append(AppAdded(name, app.shards.count, app.intents))
    elif current:
        changes += app_changes(name, current, after)
    writes.append((_unchanged(keys.app(name), item), Put(keys.app(name), after.encode())))


def _unchanged(key: str, item: KeyValue | None) -> Compare:
    return Compare(key, "mod_revision", item.mod_revision if item else 0)
