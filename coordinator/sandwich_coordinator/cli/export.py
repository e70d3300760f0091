"""The stored configuration as cluster.yml has it; secrets are replaced by {env: NAME}."""

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from sandwich_coordinator.app_options import exported_options
from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.context import read_settings
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.output import warn
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.sealing import KEY_VARIABLE, ClusterKey
from sandwich_coordinator.types import AppRecord


async def export_cluster(connection: Connection) -> dict[str, Any]:
    """Read it from etcd; with the cluster key only when it is what was applied. Raises CommandError, SealingError."""
    key = _key_if_given(connection)
    async with connection.store() as store:
        item = await store.get(connection.keys.config)
        listing = await store.list(connection.keys.apps)
    if item is None:
        raise CommandError("the cluster is not configured: run sandwich cluster apply -f cluster.yml", 1)
    settings = read_settings(connection, item, key)
    if settings.proof and key is None:
        warn("without the cluster key it is not checked who wrote the addresses in this")
    try:
        records = [msgspec.json.decode(kv.value, type=AppRecord) for kv in listing.items]
    except msgspec.MsgspecError as error:
        raise CommandError(f"the stored configuration cannot be read: {error}", 1) from None
    return exported_cluster(connection.keys.cluster, settings, records)


def _key_if_given(connection: Connection) -> ClusterKey | None:
    if connection.key_file is not None or os.environ.get(KEY_VARIABLE):
        return connection.key(os.environ)
    return None


def exported_cluster(cluster: str, settings: ClusterSettings, records: Sequence[AppRecord]) -> dict[str, Any]:
    """The whole file."""
    nats, limits = settings.nats, settings.policy
    exported: dict[str, Any] = {
        "version": 1,
        "cluster": cluster,
        "nats": {
            "servers": nats.servers,
            "user": nats.user or None,
            "password": {"env": "NATS_PASSWORD"} if nats.password else None,
            "credentials": nats.credentials or None,
            "tls": {"ca": nats.tls_ca or None, "cert": nats.tls_cert or None, "key": nats.tls_key or None},
            "replicas": nats.replicas,
            "stream": {"max_age": f"{nats.max_age_s:g}s", "max_bytes": nats.max_bytes},
        },
        "redis": {
            "url": settings.redis.url,
            "password": {"env": "REDIS_PASSWORD"} if settings.redis.password else None,
            "tls": {
                "ca": settings.redis.tls_ca or None,
                "cert": settings.redis.tls_cert or None,
                "key": settings.redis.tls_key or None,
            },
        },
        "discord": {"api_url": settings.discord.api_url, "proxy": settings.discord.proxy or None},
        "policy": {
            "lease_ttl": f"{limits.lease_ttl_s:g}s",
            "restart_grace": f"{limits.restart_grace_s:g}s",
            "moves_in_flight": limits.moves_in_flight_max,
            "identify_reserve": limits.identify_reserve,
            "linger_ms": limits.linger_ms,
        },
        "apps": {record.app: exported_app(record) for record in records},
    }
    return exported


def exported_app(record: AppRecord) -> dict[str, Any]:
    """One application, its token replaced by the name of an environment variable."""
    return {"token": {"env": f"{record.app.upper().replace('-', '_')}_TOKEN"}, **exported_options(record)}
