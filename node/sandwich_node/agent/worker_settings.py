"""What workers are sent: the settings they start with, and the applications they answer requests about. Pure."""

from sandwich_coordinator.config import NATS_SECRET, REDIS_SECRET, ClusterSettings
from sandwich_coordinator.groups import serving_groups, upcoming_groups
from sandwich_coordinator.types import GroupRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.configuration import OpenSecret
from sandwich_node.agent.options import NodeOptions
from sandwich_node.cache.options import RedisOptions
from sandwich_node.nats_options import NatsOptions


def worker_settings(
    options: NodeOptions, settings: ClusterSettings, redis: RedisOptions, open_secret: OpenSecret
) -> ipc.WorkerSettings:
    """The settings of the node's workers; each has a number of its own instead of 0. Raises SealingError."""
    return ipc.WorkerSettings(
        worker=0,
        node=options.node,
        cluster=options.cluster,
        nats=nats_options(settings, open_secret),
        redis=redis,
        api_url=settings.discord.api_url,
        proxy=settings.discord.proxy,
        linger_s=settings.policy.linger_ms / 1000,
        log_level=options.log_level,
        etcd=options.etcd,
    )


def nats_options(settings: ClusterSettings, open_secret: OpenSecret) -> NatsOptions:
    """How to reach NATS. Raises SealingError."""
    nats = settings.nats
    return NatsOptions(
        servers=tuple(nats.servers),
        user=nats.user or None,
        password=open_secret(NATS_SECRET, nats.password) if nats.password else None,
        credentials=nats.credentials or None,
        tls_ca=nats.tls_ca or None,
        tls_cert=nats.tls_cert or None,
        tls_key=nats.tls_key or None,
    )


def redis_options(settings: ClusterSettings, open_secret: OpenSecret) -> RedisOptions:
    """How to reach Redis. Raises SealingError."""
    redis = settings.redis
    return RedisOptions(
        url=redis.url,
        password=open_secret(REDIS_SECRET, redis.password) if redis.password else None,
        ca=redis.tls_ca or None,
        cert=redis.tls_cert or None,
        key=redis.tls_key or None,
    )


def app_infos(view: ClusterView) -> dict[str, ipc.AppInfo]:
    """The applications, each with the shard group that serves."""
    infos, serving, upcoming = {}, serving_groups(view), upcoming_groups(view)
    for name, entry in view.apps.items():
        key, following = serving.get(name), upcoming.get(name)
        budget = view.budgets.get(entry.record.token_hash)
        infos[name] = ipc.AppInfo(
            group=key.group if key is not None else 0,
            count=view.groups[key].record.count if key is not None else 0,
            upcoming=(following.group, view.groups[following].record.count) if following is not None else None,
            bot=budget.record.bot_id if budget is not None else "",
            caches=entry.record.cache.enabled,
            namespace=entry.record.cache.namespace_of(name),
        )
    return infos


def next_group(record: GroupRecord, *, continues: bool) -> ipc.NextGroup:
    """A group as the cache needs it. See `ipc.NextGroup`."""
    return ipc.NextGroup(group=record.group, count=record.count, ids=record.ids, continues=continues)
