"""The store contract: the operations that the cluster needs of etcd, and what each one guarantees.

Callers must distinguish three failures: `StoreUnavailable` (nothing was written), `StoreAmbiguous` (a write may or may
not have been applied: read, then decide) and a transaction that did not succeed (another writer was first).
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class StoreError(Exception):
    """Base of the store's errors."""


class StoreUnavailable(StoreError):
    """No endpoint answered in time. A write was certainly not applied."""


class StoreAmbiguous(StoreError):
    """A write was sent and its outcome is unknown."""


class StoreRefused(StoreError):
    """The store refused the request: wrong credentials, missing permission, request too large, no space."""


class LeaseLost(StoreError):
    """The lease has expired or was revoked."""


class Behind(StoreError):
    """The server's revision is lower than one already seen (lag, or a restored backup): list, then watch."""


class Compacted(StoreError):
    """The revision to watch from was compacted: list again, then watch from there. `revision`: the oldest one kept."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"compacted up to revision {revision}")
        self.revision = revision


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as stored. `lease` is 0 for none."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """Keys under a prefix, all read at `revision`, ordered by key."""

    items: tuple[KeyValue, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Compare:
    """A guard: `key`'s `field` must equal `expected`. A missing key has create- and mod-revision 0."""

    key: str
    field: Literal["create_revision", "mod_revision", "value"]
    expected: int | bytes


@dataclass(frozen=True, slots=True)
class Put:
    """Write `value`; `lease` 0 for none."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key, or every key with this prefix."""

    key: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class TxnResult:
    """`succeeded`: all guards held and all writes were applied, at `revision`."""

    succeeded: bool
    revision: int


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. For a delete, `kv.value` is empty and `kv.mod_revision` is the revision of the delete."""

    kind: Literal["put", "delete"]
    kv: KeyValue


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Changes in revision order, all up to and including `revision`. Empty for a progress notification."""

    events: tuple[WatchEvent, ...]
    revision: int


class Store(Protocol):
    """A strictly serialisable key-value store with leases and watches. Every call has its own deadline."""

    async def get(self, key: str) -> KeyValue | None:
        """Read one key, linearizably. Raises StoreUnavailable, StoreRefused."""

    async def list(self, prefix: str) -> Listing:
        """Read all keys under `prefix` at one revision, linearizably. Raises StoreUnavailable, StoreRefused."""

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        """Apply all `writes` in one revision if every guard holds, else nothing.

        Raises StoreUnavailable (not applied), StoreAmbiguous (unknown), StoreRefused,
        LeaseLost (the lease of a put is gone).
        """

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[WatchBatch]:
        """Yield every change under `prefix` with a revision >= `from_revision`, once and in order.

        Reconnects by itself from the last revision seen. Raises Compacted; does not end otherwise.
        """

    async def grant(self, ttl_s: int) -> int:
        """Create a lease; return its id. Raises StoreUnavailable, StoreRefused."""

    async def keep_alive(self, lease: int) -> float:
        """Renew once; return the granted TTL in seconds. Raises LeaseLost, StoreUnavailable."""

    async def revoke(self, lease: int) -> None:
        """End the lease and delete its keys now. A lease already gone is not an error. Raises StoreUnavailable."""

    async def close(self) -> None:
        """Release connections."""
