"""What a node reads before it joins: the cluster's configuration, and whether its own cluster key fits."""

import asyncio
from collections.abc import Callable

import msgspec

from sandwich_coordinator.config import ClusterSettings
from sandwich_coordinator.sealing import ClusterKey, SealingError, open_plain
from sandwich_coordinator.store.base import Store, StoreError, StoreRefused
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import NotAuthenticated, follow_settings
from sandwich_coordinator.types import AppRecord

RETRY_S = 1.0

OpenSecret = Callable[[str, str], str]
"""Opens a secret of the configuration: its name and how it is stored -> the secret. Raises SealingError."""


class AgentError(RuntimeError):
    """The node cannot start; the message says why and what to do."""


def secret_opener(key: ClusterKey | None) -> OpenSecret:
    """Opens sealed secrets with `key`. Only a node without a key (None) takes secrets that are stored in plain."""
    if key is not None:
        return key.unseal
    return lambda name, stored: open_plain(name, stored, allow_plain=True)


async def await_settings(
    store: Store, keys: Keys, key: ClusterKey | None, waits_for: Callable[[str], None]
) -> ClusterSettings:
    """The cluster's configuration, waiting for etcd and for `sandwich cluster apply`. Raises AgentError.

    `waits_for` is called with what is waited for, again and again.
    """
    while True:
        try:
            found = await store.get(keys.config)
        except StoreRefused as error:
            raise AgentError(f"etcd refused us: {error}") from None
        except StoreError as error:
            waits_for(f"waiting for etcd: {error}")
        else:
            try:
                if found is not None:
                    return trusted_settings(found.value, keys.cluster, key)
                waits_for(
                    f"waiting: cluster {keys.cluster!r} has no configuration yet; "
                    "run `sandwich cluster apply -f cluster.yml`"
                )
            except NotAuthenticated as error:
                waits_for(f"waiting: {error}")
        await asyncio.sleep(RETRY_S)


def trusted_settings(stored: bytes, cluster: str, key: ClusterKey | None) -> ClusterSettings:
    """The settings, if the key authenticates where they send secrets; the key then seals as the cluster does.

    Raises NotAuthenticated, AgentError.
    """
    try:
        settings = ClusterSettings.decode(stored)
        follow_settings(settings, cluster, key)
    except NotAuthenticated:
        raise
    except SealingError as error:
        raise AgentError(str(error)) from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise AgentError(f"the cluster's configuration in etcd cannot be used: {error}") from None
    return settings


async def check_tokens(store: Store, keys: Keys, open_secret: OpenSecret) -> None:
    """A node with the wrong cluster key could claim shards and never run them: it must not join. Raises AgentError."""
    try:
        stored = await store.list(keys.apps)
    except StoreError:
        # Asked again, with the same answer, when a token is needed.
        return
    for item in stored.items:
        try:
            record = msgspec.json.decode(item.value, type=AppRecord)
        except msgspec.MsgspecError:
            continue
        try:
            open_secret(record.app, record.token)
        except SealingError as error:
            raise AgentError(str(error)) from None


def stream_of(app: AppRecord, settings: ClusterSettings) -> tuple[float, int, int]:
    """Age (s), bytes and replicas of an application's stream: its own where it says so, else the cluster's."""
    nats = settings.nats
    return (
        float(app.stream.get("max_age_s", nats.max_age_s)),
        int(app.stream.get("max_bytes", nats.max_bytes)),
        int(app.stream.get("replicas", nats.replicas)),
    )
