"""Whether two parties have the same settings, without showing them. Pure."""

import hashlib

import msgspec

from sandwich_coordinator.config import ClusterSettings, PolicySettings
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
        LEASE_TTL: PolicySettings(lease_ttl_s=settings.policy.lease_ttl_s),
    }
    return {name: hashlib.sha256(section.encode()).hexdigest()[:DIGITS] for name, section in sections.items()}


def _sealed(password: str) -> str:
    return password if key_id_of(password) else ""
