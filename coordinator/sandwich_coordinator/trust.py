"""Where secrets may be sent. Addresses in etcd are used only if the cluster key authenticates them. Pure.

A writer to etcd without the cluster key must not be able to redirect a token or a password. So `apply` authenticates
the addresses in `config` with the key. For the addresses that nodes write themselves see `gateway_trust`.
"""

import msgspec

from sandwich_coordinator.config import ApiSettings, ClusterSettings
from sandwich_coordinator.sealing import ClusterKey, SealingError

_APPLY = "run sandwich cluster apply -f cluster.yml with the cluster key"


class NotAuthenticated(SealingError):
    """The configuration has no proof: an older version stored it, or the proof was removed. `apply` adds it."""


def proof_of(settings: ClusterSettings, cluster: str, key: ClusterKey) -> str:
    """The value of `settings.proof`: it covers every address, user and file of `nats`, `redis` and `discord`."""
    return key.prove(f"{cluster}/config", _destinations(settings))


def api_proof_of(settings: ClusterSettings, cluster: str, key: ClusterKey) -> str:
    """The value of `settings.api_proof`: it covers `api`.

    Apart from `proof`, so that nodes of a version without `api` still accept the settings. A default `api` has none:
    removing the section gives no one access.
    """
    return key.prove(f"{cluster}/config/api", _api(settings.api)) if settings.api != ApiSettings() else ""


def check_settings(settings: ClusterSettings, cluster: str, key: ClusterKey | None) -> None:
    """Raise SealingError unless `key` authenticates the addresses in these settings.

    Without a key (`--insecure-plaintext`) nothing can be authenticated: only settings without a proof are accepted.
    """
    if key is None:
        if settings.proof or settings.api_proof:
            held = key_id_of(settings.proof or settings.api_proof)
            raise SealingError(f"cluster {cluster!r} is sealed with cluster key {held} and this node has none")
        return
    if not settings.proof:
        raise NotAuthenticated(
            f"the addresses in the configuration of cluster {cluster!r} are not authenticated with the cluster key "
            f"(stored by an older version, or without a key): {_APPLY}"
        )
    if key_id_of(settings.proof) not in key.key_ids:
        raise SealingError(
            f"the configuration of cluster {cluster!r} was sealed with cluster key {key_id_of(settings.proof)}, and "
            f"this is key {' and '.join(key.key_ids)}: give every node the same key"
        )
    if not key.proves(f"{cluster}/config", _destinations(settings), settings.proof):
        raise SealingError(
            f"the addresses in the configuration of cluster {cluster!r} were changed by something that has no cluster "
            f"key: find out who can write to etcd, then {_APPLY}"
        )
    is_default = settings.api == ApiSettings()
    if not (is_default or key.proves(f"{cluster}/config/api", _api(settings.api), settings.api_proof)):
        raise SealingError(
            f"the section api of cluster {cluster!r} was changed by something that has no cluster key: find out who "
            f"can write to etcd, then {_APPLY}"
        )


def follow_settings(settings: ClusterSettings, cluster: str, key: ClusterKey | None) -> None:
    """As `check_settings`; then the one of the key's two keys that authenticates the settings seals and proves.

    So all nodes change to a new key when `sandwich cluster rekey` stores the settings with it.
    """
    check_settings(settings, cluster, key)
    if key is not None:
        key.use(key_id_of(settings.proof) or key.key_id)


def key_id_of(stored: str) -> str | None:
    """The id of the key of a sealed value or a proof; "" for plain text, None for nothing."""
    version, _, rest = stored.partition(":")
    return None if not stored else "" if version == "plain" else rest.partition(":")[0][:8]


def _destinations(settings: ClusterSettings) -> bytes:
    """The settings that determine where secrets are sent, as one unambiguous text."""
    nats, redis = settings.nats, settings.redis
    return msgspec.json.encode(
        [
            ["nats", nats.servers, nats.user, nats.credentials, nats.tls_ca, nats.tls_cert, nats.tls_key],
            ["redis", redis.url, redis.tls_ca, redis.tls_cert, redis.tls_key],
            ["discord", settings.discord.api_url, settings.discord.proxy],
        ]
    )


def _api(api: ApiSettings) -> bytes:
    """Field by field: what a newer version adds has to have a proof of its own, so that this one still accepts it."""
    login = api.discord_login
    secret = None if login is None else [login.client_id, login.client_secret, login.guilds]
    fields = ["api", api.enabled, api.open, api.public_url, api.trusted_proxies, secret]
    return msgspec.json.encode(fields, order="sorted")
