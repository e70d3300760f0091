"""Giving a node's lease back in place of an agent that cannot any more."""

import asyncio
import logging
from pathlib import Path

from sandwich_coordinator.store.base import StoreError
from sandwich_coordinator.store.etcd import EtcdStore, TlsOptions
from sandwich_node.ipc import EtcdOptions

_log = logging.getLogger(__name__)

RELEASE_BUDGET_S = 5.0
_NOT_RELEASED = "the dead agent's lease could not be released and will run out: %s"


def open_store(options: EtcdOptions) -> EtcdStore:
    """A store for these options. Raises ValueError for an endpoint that is none, and for files that cannot be used."""
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
    try:
        store = open_store(options)
    except ValueError as error:
        # A certificate that is being replaced must not end this worker, which has shards to close.
        _log.warning(_NOT_RELEASED, error)
        return
    try:
        async with asyncio.timeout(RELEASE_BUDGET_S):
            await store.revoke(lease)
    except (StoreError, TimeoutError) as error:
        _log.warning(_NOT_RELEASED, error)
    else:
        _log.warning("the agent is gone: its lease is released, other nodes take the shards")
    finally:
        await store.close()
