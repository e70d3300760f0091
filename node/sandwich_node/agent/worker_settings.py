"""What workers are sent: the settings they start with, and the applications they answer requests about. Pure."""

from sandwich_coordinator.config import NATS_SECRET, REDIS_SECRET, ClusterSettings
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
    """The applications, each with its newest shard group."""
    infos = {}
    for name, entry in view.apps.items():
        groups = [(key.group, group.record.count) for key, group in view.groups.items() if key.app == name]
        budget = view.budgets.get(entry.record.token_hash)
        number, count = max(groups, default=(0, 0))
        infos[name] = ipc.AppInfo(
            group=number,
            count=count,
            bot=budget.record.bot_id if budget is not None else "",
            caches=entry.record.cache.enabled,
            namespace=entry.record.cache.namespace_of(name),
        )
    return infos
