"""A connection to the cluster's NATS, for `sandwich tail` and `sandwich dead`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client

from sandwich_coordinator.cli.connection import Connection
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.client_tls import ClientTlsError, client_context
from sandwich_coordinator.config import NATS_SECRET, NatsSettings
from sandwich_coordinator.operations.cached_guilds import NO_APPLICATIONS
from sandwich_coordinator.operations.configuration import read_settings
from sandwich_coordinator.operations.errors import NotFound
from sandwich_coordinator.sealing import ClusterKey, open_plain
from sandwich_sdk.errors import reason
from sandwich_sdk.nats_client import ReconnectingClient

CONNECT_TIMEOUT_S = 3


@dataclass(frozen=True, kw_only=True)
class Messaging:
    """The cluster's NATS, and its applications by name."""

    settings: NatsSettings
    key: ClusterKey | None
    apps: tuple[str, ...]


async def find_messaging(connection: Connection, app: str | None) -> Messaging:
    """Read from etcd where NATS is; `apps` are all applications, or only `app`.

    Raises CommandError, OperationError and StoreError.
    """
    found = await read_messaging(connection)
    if app is not None and app not in found.apps:
        raise NotFound("application", app, found.apps)
    if not found.apps:
        raise CommandError(NO_APPLICATIONS, 1)
    return found if app is None else replace(found, apps=(app,))


async def read_messaging(connection: Connection) -> Messaging:
    """As `find_messaging`, also for a cluster without applications."""
    async with connection.store() as store:
        item = await store.get(connection.keys.config)
        listing = await store.list(connection.keys.apps)
    if item is None:
        raise CommandError("the cluster is not configured: run sandwich cluster apply -f cluster.yml", 1)
    names = tuple(kv.key.removeprefix(connection.keys.apps) for kv in listing.items)
    password = read_settings(item, connection.keys, None).nats.password
    key = connection.key(os.environ) if password and not password.startswith("plain:") else None
    settings = read_settings(item, connection.keys, key).nats
    return Messaging(settings=settings, key=key, apps=names)


@asynccontextmanager
async def connect(messaging: Messaging) -> AsyncIterator[Client]:
    """A client for the context. Raises CommandError when NATS is not available, SealingError for a wrong key."""
    settings, key = messaging.settings, messaging.key
    password = None
    if settings.password:
        opened = key.unseal(NATS_SECRET, settings.password) if key else None
        password = opened or open_plain(NATS_SECRET, settings.password, allow_plain=True)
    files = _path(settings.tls_ca), _path(settings.tls_cert), _path(settings.tls_key)
    try:
        secure = client_context("NATS", *files) if settings.tls_ca or settings.tls_cert else None
    except ClientTlsError as error:
        raise CommandError(f"NATS cannot be reached from here: {error}") from None
    last: list[Exception] = []

    async def keep(error: Exception) -> None:
        """Suppress nats-py's traceback: the error that ends the command is printed as one line."""
        last[:] = [error]

    try:
        client = ReconnectingClient()
        await client.connect(
            servers=settings.servers,
            user=settings.user or None,
            password=password,
            user_credentials=settings.credentials or None,
            tls=secure,
            connect_timeout=CONNECT_TIMEOUT_S,
            max_reconnect_attempts=2,
            error_cb=keep,
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        why = reason(last[0] if last and isinstance(error, nats.errors.NoServersError) else error)
        # Without what else is in the URL, such as a password.
        where = ", ".join(urlsplit(server).netloc.rpartition("@")[2] for server in settings.servers)
        raise CommandError(f"NATS is not reachable at {where}: {why}") from None
    try:
        yield client
    finally:
        await client.close()


def _path(text: str) -> Path | None:
    return Path(text) if text else None
