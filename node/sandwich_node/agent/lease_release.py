"""Giving a node's lease back in place of an agent that cannot any more."""

import asyncio
import logging
from pathlib import Path

from sandwich_coordinator.store.base import StoreError
from sandwich_coordinator.store.etcd import EtcdStore, TlsOptions
from sandwich_node.ipc import EtcdOptions

_log = logging.getLogger(__name__)

RELEASE_BUDGET_S = 5.0


def open_store(options: EtcdOptions) -> EtcdStore:
    """A store for these options. Raises ValueError for an endpoint that is none, OSError for unreadable files."""
    tls = None
    if options.ca_file or options.cert_file:
        tls = TlsOptions(
            ca_file=_path(options.ca_file), cert_file=_path(options.cert_file), key_file=_path(options.key_file)
        )
    return EtcdStore(list(options.endpoints), username=options.username, password=options.password, tls=tls)


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


async def release_lease(options: EtcdOptions, lease: int) -> None:
    """Revoke the lease: the registration, claims and leadership under it go at once."""
    store = open_store(options)
    try:
        async with asyncio.timeout(RELEASE_BUDGET_S):
            await store.revoke(lease)
    except (StoreError, TimeoutError) as error:
        _log.warning("the dead agent's lease could not be released and will run out: %s", error)
    else:
        _log.warning("the agent is gone: its lease is released, other nodes take the shards")
    finally:
        await store.close()
