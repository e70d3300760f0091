"""How a command reaches the cluster. Light: what it needs is imported when it is used, so that help need not wait."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sandwich_coordinator.cli.errors import CommandError

if TYPE_CHECKING:
    from sandwich_coordinator.cli.remote import ApiAddress
    from sandwich_coordinator.sealing import ClusterKey
    from sandwich_coordinator.store.etcd import EtcdStore
    from sandwich_coordinator.store.keys import Keys

RECORD_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Connection:
    """From options and environment. `ca`, `cert` and `cert_key` are for etcd; `key_file` is the cluster key's.

    `api`: a node's HTTP API, which is used in place of etcd; None: it is not.
    `command`: what is run, for the audit log: its name and at most one argument; "": nothing is recorded.
    `about`: of what, such as {"app": "welcomer"}.
    """

    etcd: str
    api: "ApiAddress | None" = None
    cluster: str | None = None
    user: str | None = None
    password_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    cert_key: Path | None = None
    key_file: Path | None = None
    command: str = ""
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> "Keys":
        """The cluster's keys."""
        from sandwich_coordinator.store.keys import Keys

        return Keys(self.cluster or "default")

    def key(self, env: Mapping[str, str]) -> "ClusterKey":
        """The cluster key. Raises CommandError saying how to make one."""
        from sandwich_coordinator.sealing import ClusterKey, SealingError

        try:
            return ClusterKey.load(env, self.key_file)
        except SealingError as error:
            raise CommandError(str(error), 1) from None

    def sealing_key(self, env: Mapping[str, str], *, plaintext: bool) -> "ClusterKey | None":
        """As `key`, to seal what is stored. None: it is stored as `plaintext`, or the API's node has the key itself."""
        return None if plaintext or self.api is not None else self.key(env)

    @asynccontextmanager
    async def store(self) -> AsyncIterator["EtcdStore"]:
        """The store while the context lasts. Raises CommandError for options that cannot be used."""
        if self.api is not None:
            raise CommandError("this command reads etcd: it does not work with --api", 1)
        from sandwich_coordinator.private_files import PrivateFileError, read_private
        from sandwich_coordinator.store.etcd import EtcdStore, TlsOptions

        try:
            password = read_private(self.password_file, "etcd password") if self.password_file else None
        except PrivateFileError as error:
            raise CommandError(f"--etcd-password-file: {error}") from None
        tls = TlsOptions(ca_file=self.ca, cert_file=self.cert, key_file=self.cert_key) if self.ca or self.cert else None
        try:
            endpoints = [part.strip() for part in self.etcd.split(",") if part.strip()]
            store = EtcdStore(endpoints, username=self.user, password=password, tls=tls)
        except (OSError, ValueError) as error:
            raise CommandError(f"the etcd options cannot be used: {error}") from None
        try:
            yield store
        finally:
            if store.has_written and self.command:
                await _record(store, self.keys, self.command, self.about)
            await store.close()


async def _record(store: "EtcdStore", keys: "Keys", command: str, about: Mapping[str, str]) -> None:
    """Write to the audit log that a command changed something."""
    import asyncio
    import time

    from sandwich_coordinator.cli.output import warn
    from sandwich_coordinator.operations.audit import AuditEntry, write_entry
    from sandwich_coordinator.store.base import StoreError

    entry = AuditEntry(at=time.time(), who=caller(), what=command, path=dict(about))
    try:
        async with asyncio.timeout(RECORD_S):
            await write_entry(store, keys, entry)
    except (StoreError, TimeoutError) as error:
        warn(f"this is not in the audit log: {error or 'etcd is slow'}")


def caller() -> str:
    """Who runs this command: cli:USER@HOST."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"cli:{user}@{socket.gethostname()}"
