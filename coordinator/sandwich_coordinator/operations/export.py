"""The stored configuration as cluster.yml has it; secrets are replaced by {env: NAME}. Pure."""

from collections.abc import Sequence
from typing import Any

from sandwich_coordinator.app_options import exported_options
from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.types import AppRecord


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
            "identify_reserve": limits.identify_reserve or f"{limits.identify_reserve_percent:g}%",
            "linger_ms": limits.linger_ms,
        },
        "apps": {record.app: exported_app(record) for record in records},
    }
    return exported


def exported_app(record: AppRecord) -> dict[str, Any]:
    """One application, its token replaced by the name of an environment variable."""
    return {"token": {"env": f"{record.app.upper().replace('-', '_')}_TOKEN"}, **exported_options(record)}
