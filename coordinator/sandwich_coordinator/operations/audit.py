"""The audit log: who changed what. A ring of the last `ENTRIES_MAX` entries in etcd.

Each entry overwrites the one that is `ENTRIES_MAX` older, so that the log never grows and nothing has to be removed.
One entry costs a read and one transaction; changes by people and scripts are few.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec

from sandwich_coordinator.store.base import Compare, KeyValue, Put, Store, StoreUnavailable
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import Record

ENTRIES_MAX = 1000
TRIES = 8
RETRY_S = 0.05


class AuditEntry(Record, frozen=True):
    """One change or sign-in.

    number   counts up in the cluster; 0 before it is written
    at       Unix seconds
    who      the kind and the name of the identity: token:ci, user:613425648685547541
    what     the route, such as POST /nodes/{node}/cordon, or sign-in
    path     the values in the route's braces
    result   done, or the code of the refusal
    client   the address that the request came from
    """

    at: float
    who: str
    what: str
    number: int = 0
    path: dict[str, str] = msgspec.field(default_factory=dict)
    before: Any = None
    after: Any = None
    result: str = "done"
    detail: str = ""
    client: str = ""

    def row(self) -> dict[str, Any]:
        """Every field by its name."""
        return msgspec.structs.asdict(self)


def entries_of(entries: Sequence[AuditEntry], *, who: str = "", app: str = "") -> list[AuditEntry]:
    """Those by `who` (the whole identity, or its name) about an application; "": any."""
    return [
        entry
        for entry in entries
        if who in ("", entry.who, entry.who.partition(":")[2]) and app in ("", entry.path.get("app", ""))
    ]


async def write_entry(store: Store, keys: Keys, entry: AuditEntry) -> AuditEntry:
    """Append an entry. Raises StoreError: also when too many others write at the same time."""
    counter = f"{keys.audit}last"
    for _ in range(TRIES):
        last = await store.get(counter)
        entry = msgspec.structs.replace(entry, number=_number(last) + 1)
        slot = f"{keys.audit}entries/{entry.number % ENTRIES_MAX:04d}"
        guard = Compare(counter, "mod_revision", last.mod_revision if last else 0)
        writes = [Put(slot, entry.encode()), Put(counter, str(entry.number).encode())]
        if (await store.txn([guard], writes)).succeeded:
            return entry
        await asyncio.sleep(random.uniform(0, RETRY_S))
    raise StoreUnavailable("the audit log has too many writers at once")


async def read_entries(store: Store, keys: Keys) -> list[AuditEntry]:
    """The entries, newest first; what cannot be read is left out. Raises StoreError."""
    found: list[AuditEntry] = []
    for item in (await store.list(f"{keys.audit}entries/")).items:
        try:
            found.append(msgspec.json.decode(item.value, type=AuditEntry))
        except msgspec.MsgspecError:
            continue
    return sorted(found, key=lambda entry: -entry.number)


def _number(item: KeyValue | None) -> int:
    text = item.value.decode(errors="replace") if item is not None else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0
