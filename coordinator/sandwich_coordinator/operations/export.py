"""The stored configuration as cluster.yml has it; secrets are replaced by {env: NAME}. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandwich_coordinator.app_options import effective_options, exported_options
from sandwich_coordinator.config import ApiSettings, ClusterSettings
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
        "api": _exported_api(settings.api),
        "apps": {record.app: exported_app(record) for record in records},
    }
    return exported


def _exported_api(api: ApiSettings) -> dict[str, Any]:
    login = api.discord_login
    return {
        "enabled": api.enabled,
        "open": api.open,
        "public_url": api.public_url or None,
        "trusted_proxies": api.trusted_proxies,
        "discord_login": {
            "client_id": login.client_id,
            "client_secret": {"env": "DISCORD_CLIENT_SECRET"},
            "guilds": login.guilds,
        }
        if login is not None
        else None,
    }


def exported_app(record: AppRecord) -> dict[str, Any]:
    """One application, its token replaced by the name of an environment variable."""
    return {"token": {"env": f"{record.app.upper().replace('-', '_')}_TOKEN"}, **exported_options(record)}


@dataclass(frozen=True, slots=True)
class EffectiveApp:
    """Every key of an application with its value in effect, and the dotted paths of those that have their default."""

    values: dict[str, Any]
    defaults: tuple[str, ...]


def effective_app(record: AppRecord, stream: Mapping[str, Any]) -> EffectiveApp:
    """`stream`: what the cluster's settings say of streams (max_age_s, max_bytes, replicas), where they are known."""
    token = exported_app(record)["token"]
    values = effective_options(record, stream)
    bare = AppRecord(app=record.app, token="", token_hash="", intents=0)
    default = dict(_leaves(effective_options(bare, stream)))
    required = ("intents",)
    found = [path for path, value in _leaves(values) if path not in required and default.get(path) == value]
    return EffectiveApp({"token": token, **values}, tuple(found))


def _leaves(values: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{under}{key}.")
        else:
            yield f"{under}{key}", value
