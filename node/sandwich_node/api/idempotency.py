"""Changes that are carried out once: an answer to a request with an `Idempotency-Key` is kept for a day, for all nodes.

A record is made before the change, under a lease that is kept alive while the change is carried out: a node that dies
meanwhile blocks the key for LEASE_S. The answer replaces it. Answers are outside the cluster's prefix, which
each node mirrors and operations list, and are sealed with the cluster key: one can have a new API token in it.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.sealing import ClusterKey, SealingError, open_plain, seal_plain
from sandwich_coordinator.store.base import Compare, Delete, LeaseLost, Put, Store, StoreError
from sandwich_coordinator.store.keys import Keys
from sandwich_node.api.problem_details import ApiError

_log = logging.getLogger(__name__)

KEPT_S = 24 * 3600
TURN_S = 3600.0
"""Answers of one hour share a lease."""
ANSWERS_PER_TURN_MAX = 500
BODY_BYTES_MAX = 16 * 1024
LEASE_S = 60
_KEY = re.compile(r"[!-~]{1,255}")


class _Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`request`: a digest. `status` 0: it is being carried out. `body`: sealed; "" for none, or a too long one."""

    request: str
    status: int = 0
    headers: dict[str, str] = {}
    body: str = ""
    is_too_long: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was given."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Begun:
    """A request that is this node's to carry out. `revision` guards its record."""

    name: str
    request: str
    lease: int
    revision: int


class Answers:
    """The kept answers. `key`: the cluster's; None in a cluster without one."""

    def __init__(self, store: Store, keys: Keys, key: ClusterKey | None) -> None:
        self._store = store
        self._keys = keys
        self._key = key
        self._lease = 0
        self._lease_since = float("-inf")
        self._granting = asyncio.Lock()
        self._kept = 0

    async def begin(self, identity: Identity, key: str, request: bytes) -> Begun | Answer:
        """Take the key for this request, or return the answer that was given to it.

        `request`: all that makes it the same one. Use what is begun in `kept_alive` until `end`.
        Raises ApiError: malformed (the key), invalid (another request had it), in-progress, too-many-requests,
        refused (the answer was too long to be kept, or is sealed with a key of before); and the store's errors, when
        nothing was carried out.
        """
        if _KEY.fullmatch(key) is None:
            raise ApiError("malformed", "Idempotency-Key takes 1 to 255 visible ASCII characters")
        who = f"{identity.kind}\0{identity.name}\0{key}"
        name = self._keys.request(hashlib.sha256(who.encode()).hexdigest())
        digest = hashlib.sha256(request).hexdigest()
        if (full_s := self._full_for_s()) is not None:
            found = await self._store.get(name)
            if found is not None:
                return self._given(name, found.value, digest)
            text = f"a node keeps {ANSWERS_PER_TURN_MAX} answers an hour: send fewer requests with Idempotency-Key"
            raise ApiError("too-many-requests", text, retry_after_s=full_s)
        lease = await self._store.grant(LEASE_S)
        record = msgspec.json.encode(_Kept(request=digest))
        done = await self._store.txn((Compare(name, "mod_revision", 0),), (Put(name, record, lease),))
        if done.succeeded:
            return Begun(name, digest, lease, done.revision)
        await self._store.revoke(lease)
        found = await self._store.get(name)
        if found is None:
            raise ApiError("in-progress", "the request with this key has just ended: send it again", retry_after_s=1.0)
        return self._given(name, found.value, digest)

    def _given(self, name: str, value: bytes, digest: str) -> Answer:
        kept = msgspec.json.decode(value, type=_Kept)
        if kept.request != digest:
            raise ApiError("invalid", "Idempotency-Key: another request had this key within the last 24 hours")
        if kept.status == 0:
            raise ApiError("in-progress", "the request with this key is being carried out", retry_after_s=1.0)
        if kept.is_too_long:
            raise ApiError("refused", f"it was carried out (status {kept.status}); its answer was too long to be kept")
        if not kept.body:
            return Answer(kept.status, kept.headers)
        try:
            opened = self._key.unseal(name, kept.body) if self._key is not None else None
            body = open_plain(name, kept.body, allow_plain=True) if opened is None else opened
        except SealingError:
            text = f"it was carried out (status {kept.status}); its answer was sealed with a cluster key of before"
            raise ApiError("refused", text) from None
        return Answer(kept.status, kept.headers, body.encode())

    def _full_for_s(self) -> float | None:
        """How long no more answers are kept; None: there is room."""
        left_s = self._lease_since + TURN_S - asyncio.get_running_loop().time()
        return left_s if self._kept >= ANSWERS_PER_TURN_MAX and left_s > 0 else None

    @asynccontextmanager
    async def kept_alive(self, begun: Begun) -> AsyncIterator[None]:
        """Keep the record of a request that is carried out in the context."""
        task = asyncio.create_task(self._keep_alive(begun.lease))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _keep_alive(self, lease: int) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 4)
            try:
                await self._store.keep_alive(lease)
            except LeaseLost:
                return
            except StoreError as error:
                _log.debug("a lease for Idempotency-Key is not kept alive yet: %s", error)

    async def end(self, begun: Begun, answer: Answer | None) -> None:
        """Keep the answer; None: the request was not carried out, and may be sent again. Raises nothing.

        When the store does not take it, the key is free after its lease.
        """
        guard = Compare(begun.name, "mod_revision", begun.revision)
        try:
            if answer is None:
                await self._store.txn((guard,), (Delete(begun.name),))
            else:
                lease = await self._turn()
                done = await self._store.txn((guard,), (Put(begun.name, self._record(begun, answer), lease),))
                if not done.succeeded:
                    _log.warning("an answer for Idempotency-Key is not kept: etcd had lost its lease")
            await self._store.revoke(begun.lease)
        except (StoreError, SealingError) as error:
            _log.warning("an answer for Idempotency-Key is not kept: %s", error)

    def _record(self, begun: Begun, answer: Answer) -> bytes:
        is_too_long = len(answer.body) > BODY_BYTES_MAX
        body = ""
        if answer.body and not is_too_long:
            text = answer.body.decode()
            body = self._key.seal(begun.name, text) if self._key is not None else seal_plain(text, allow_plain=True)
        kept = _Kept(
            request=begun.request,
            status=answer.status,
            headers=dict(answer.headers),
            body=body,
            is_too_long=is_too_long,
        )
        return msgspec.json.encode(kept)

    async def _turn(self) -> int:
        """The lease of this hour's answers."""
        async with self._granting:
            now = asyncio.get_running_loop().time()
            if now - self._lease_since >= TURN_S:
                self._lease = await self._store.grant(int(KEPT_S + TURN_S))
                self._lease_since, self._kept = now, 0
            self._kept += 1
            return self._lease
