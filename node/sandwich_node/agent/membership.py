"""The node's lease and its registration under it.

The lease is the node's heartbeat: when it runs out, its registration, its claims and its leadership go with it. It is
renewed every third of its TTL. A lost lease is replaced and the node registers again; running shards stay, and their
claims decide whether they are still ours (docs/design/reliability.md, fault 20).
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.store.base import Compare, KeyValue, LeaseLost, Put, Store, StoreError, StoreRefused
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import DepartedRecord, NodeRecord

_log = logging.getLogger(__name__)

RETRY_S = 0.5
LEAVING_S = 1.0


class NodeIdTaken(RuntimeError):
    """Another live process is registered under this node id."""


def host_identity() -> str:
    """Names this boot of this machine: only there does a process id of a registration mean a process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown"
    namespace = os.readlink("/proc/self/ns/pid") if Path("/proc/self/ns/pid").exists() else ""
    return f"{socket.gethostname()}/{boot}/{namespace}"


class Membership:
    """Holds the lease. `lease` is None while there is none; `valid_until` is loop time, counted conservatively."""

    def __init__(
        self, store: Store, keys: Keys, record: NodeRecord, *, ttl_s: int, on_change: Callable[[], None]
    ) -> None:
        self.record = record
        self.lease: int | None = None
        self.valid_until = 0.0
        self.waiting: Problem | None = None
        self._store = store
        self._keys = keys
        self._ttl_s = ttl_s
        self._on_change = on_change

    async def join(self, waits_for: Callable[[str], None], *, patient: bool = False) -> None:
        """Register, waiting for the store if it is away. Raises NodeIdTaken, and StoreRefused unless `patient`.

        `waits_for` is called with what is waited for, once for each reason.
        """
        loop = asyncio.get_running_loop()
        patience_until: float | None = None
        reported: Problem | None = None
        while True:
            try:
                holder = await self._register()
            except StoreError as error:
                if isinstance(error, StoreRefused) and not patient:
                    raise
                holder = None
                self.waiting = self._no_etcd(error)
            else:
                if holder is None:
                    self.waiting = None
                    self._on_change()
                    return
                if patience_until is None:
                    patience_until = loop.time() + self._ttl_s + 2
                elif loop.time() > patience_until:
                    raise NodeIdTaken(_taken(self.record.node, holder))
                words = f"the node id {self.record.node!r} is still registered by an earlier process"
                self.waiting = problem(Code.NODE_ID_TAKEN, f"node/{self.record.node}", words)
            if self.waiting != reported:
                reported = self.waiting
                waits_for(reported.text)
            await asyncio.sleep(RETRY_S)

    def _no_etcd(self, error: StoreError) -> Problem:
        return problem(Code.ETCD_UNREACHABLE, f"node/{self.record.node}", f"etcd: {error}", "")

    async def _register(self) -> KeyValue | None:
        """Try once; returns the registration that is in the way, None on success."""
        key = self._keys.node(self.record.node)
        if self.lease is None:
            began = asyncio.get_running_loop().time()
            self.lease = await self._store.grant(self._ttl_s)
            self.valid_until = began + self._ttl_s
        try:
            done = await self._store.txn(
                [Compare(key, "create_revision", 0)], [Put(key, self.record.encode(), self.lease)]
            )
        except LeaseLost:
            self.lease = None
            raise
        if done.succeeded:
            return None
        present = await self._store.get(key)
        if present is None:
            return await self._register()
        holder = _decoded(present)
        if holder is not None and holder.instance == self.record.instance and present.lease == self.lease:
            return None
        if holder is not None and _process_is_gone(holder, self.record):
            _log.info("an earlier process of this node is gone without releasing its lease: released for it")
            await self._store.revoke(present.lease)
        await self._renew()
        return present

    async def _renew(self) -> None:
        if self.lease is None:
            return
        began = asyncio.get_running_loop().time()
        try:
            granted = await self._store.keep_alive(self.lease)
        except LeaseLost:
            self.lease = None
            raise
        self.valid_until = began + granted

    async def keep(self, rejoined: Callable[[], Awaitable[None]]) -> None:
        """Renew until cancelled; after a lost lease register again and call `rejoined`. Raises NodeIdTaken."""
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                await self._renew()
                self.waiting = None
            except LeaseLost:
                _log.error("the node's lease was lost; registering again")
                self._on_change()
                # Shards run: they must not end because the store refuses us now.
                await self.join(lambda text: _log.warning("waiting: %s", text), patient=True)
                await rejoined()
            except StoreError as error:
                if self.waiting is None:
                    _log.warning("the lease could not be renewed: %s", error)
                self.waiting = self._no_etcd(error)

    def follow(self, seen: NodeRecord) -> None:
        """Keep what was written to this process's registration, for a new one after a lost lease: its state, which an
        operator sets, and the fingerprint of a new certificate.

        The registration of an earlier process does not count: a restarted node begins as ready.
        """
        if seen.instance == self.record.instance and seen.state != self.record.state:
            _log.info("this node is %s now (was %s)", seen.state, self.record.state)
            self.record = msgspec.structs.replace(self.record, state=seen.state)
        if seen.instance == self.record.instance and seen.tls != self.record.tls:
            self.record = msgspec.structs.replace(self.record, tls=seen.tls)

    async def announce_draining(self) -> bool:
        """Write that this node leaves, so that the leader gives its shards to others. False: it was not possible."""
        key = self._keys.node(self.record.node)
        record = msgspec.structs.replace(self.record, state="draining")
        try:
            present = await self._store.get(key)
            if present is None or self.lease is None or present.lease != self.lease:
                return False
            guard = Compare(key, "mod_revision", present.mod_revision)
            return (await self._store.txn([guard], [Put(key, record.encode(), self.lease)])).succeeded
        except (StoreError, LeaseLost) as error:
            _log.warning("the cluster could not be informed that this node leaves: %s", error)
            return False

    async def _record_leaving(self, lease: int) -> None:
        """Without this record the leader takes the node for killed; nothing else depends on it."""
        key, node = self._keys.node(self.record.node), self.record.node
        record = DepartedRecord(node=node, at=time.time(), left=True)
        try:
            async with asyncio.timeout(LEAVING_S):
                present = await self._store.get(key)
                if present is None or present.lease != lease:
                    return
                guard = Compare(key, "mod_revision", present.mod_revision)
                await self._store.txn([guard], [Put(self._keys.departed_node(node), record.encode())])
        except (StoreError, LeaseLost, TimeoutError) as error:
            _log.warning("it is not recorded that this node left in order: %s", error or "no answer in time")

    async def leave(self) -> None:
        """Release the lease and everything under it, now, and record that this was in order."""
        lease, self.lease = self.lease, None
        if lease is not None:
            await self._record_leaving(lease)
            try:
                await self._store.revoke(lease)
            except StoreError as error:
                _log.warning("the lease could not be released and will run out: %s", error)


def _decoded(kv: KeyValue) -> NodeRecord | None:
    try:
        return msgspec.json.decode(kv.value, type=NodeRecord)
    except msgspec.MsgspecError:
        return None


def _process_is_gone(holder: NodeRecord, own: NodeRecord) -> bool:
    """Whether the holder ran on this boot of this machine and its process has ended."""
    pid = holder.labels.get("pid", "")
    if not pid.isdecimal() or holder.labels.get("host") != own.labels.get("host"):
        return False
    return not Path(f"/proc/{pid}").exists()


def _taken(node: str, present: KeyValue) -> str:
    holder = _decoded(present)
    where = f" at {holder.address}" if holder else ""
    return (
        f"the node id {node!r} is in use by another running node{where}; give this one another --node-id "
        "(and another --listen where both are on one machine)"
    )
