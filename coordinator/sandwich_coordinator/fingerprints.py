"""Whether two parties have the same settings, without showing them. Pure."""

import hashlib

import msgspec

from sandwich_coordinator.config import ApiSettings, ClusterSettings, PolicySettings
from sandwich_coordinator.trust import key_id_of

DIGITS = 16
LEASE_TTL = "policy.lease_ttl"


def fingerprints(settings: ClusterSettings) -> dict[str, str]:
    """A fingerprint of each section, by its name in `cluster.yml`, and of `policy.lease_ttl`.

    A password that is stored in plain is left out: a fingerprint must not help to guess it. A sealed one counts.
    """
    nats, redis = settings.nats, settings.redis
    sections = {
        "nats": msgspec.structs.replace(nats, password=_sealed(nats.password)),
        "redis": msgspec.structs.replace(redis, password=_sealed(redis.password)),
        "discord": settings.discord,
        "policy": settings.policy,
        "api": _without_plain_secret(settings.api),
        LEASE_TTL: PolicySettings(lease_ttl_s=settings.policy.lease_ttl_s),
    }
    return {name: hashlib.sha256(section.encode()).hexdigest()[:DIGITS] for name, section in sections.items()}


def _without_plain_secret(api: ApiSettings) -> ApiSettings:
    login = api.discord_login
    if login is None:
        return api
    login = msgspec.structs.replace(login, client_secret=_sealed(login.client_secret))
    return msgspec.structs.replace(api, discord_login=login)


def _sealed(password: str) -> str:
    return password if key_id_of(password) else ""
