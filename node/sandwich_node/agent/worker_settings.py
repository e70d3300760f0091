"""What workers are sent: the settings they start with, and the applications they answer requests about. Pure."""

from sandwich_coordinator.config import NATS_SECRET, REDIS_SECRET, ClusterSettings
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.configuration import OpenSecret
from sandwich_node.agent.options import NodeOptions
from sandwich_node.cache.options import RedisOptions


def worker_settings(
    options: NodeOptions, settings: ClusterSettings, redis: RedisOptions, open_secret: OpenSecret
) -> ipc.WorkerSettings:
    """The settings of the node's workers; each has a number of its own instead of 0. Raises SealingError."""
    nats = settings.nats
    password = open_secret(NATS_SECRET, nats.password) if nats.password else None
    return ipc.WorkerSettings(
        worker=0,
        node=options.node,
        cluster=options.cluster,
        nats_servers=tuple(nats.servers),
        nats_user=nats.user or None,
        nats_password=password,
        nats_credentials=nats.credentials or None,
        nats_tls_ca=nats.tls_ca or None,
        nats_tls_cert=nats.tls_cert or None,
        nats_tls_key=nats.tls_key or None,
        redis=redis,
        api_url=settings.discord.api_url,
        proxy=settings.discord.proxy,
        linger_s=settings.policy.linger_ms / 1000,
        log_level=options.log_level,
        etcd=options.etcd,
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
