"""The gateway's addresses: which one the shards of this node use, and which one they cannot reach.

A shard that cannot connect doubts the address it has. The node writes the doubt beside the address, once for all its
shards; the leader asks Discord again (`leader.py` paces that) and what it writes reaches the shards that run.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from sandwich_coordinator.assignment import LocalShard
from sandwich_coordinator.groups import token_hash_of
from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_coordinator.store.base import Compare, LeaseLost, Put, Store, StoreError
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc

_log = logging.getLogger(__name__)

REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Doubt:
    """The transaction that asks the leader to look again."""

    compares: tuple[Compare, ...]
    writes: tuple[Put, ...]


def doubt(view: ClusterView, group: GroupId, url: str, reason: str) -> Doubt | None:
    """What to write when `url` cannot be reached. None: it is an old address, or the leader knows already. Pure."""
    token_hash = token_hash_of(view, group)
    budget = view.budgets.get(token_hash)
    if budget is None or budget.record.url != url or budget.record.unreachable:
        return None
    key = view.keys.budget(token_hash)
    record = msgspec.structs.replace(budget.record, unreachable=reason[:REASON_CHARS])
    return Doubt((Compare(key, "mod_revision", budget.mod_revision),), (Put(key, record.encode()),))


class ShardGateways:
    """`send(worker, message)` must not wait."""

    def __init__(
        self, store: Store, *, view: Callable[[], ClusterView | None], send: Callable[[int, ipc.ToWorker], None]
    ) -> None:
        self._store = store
        self._view = view
        self._send = send
        self._sent: dict[ShardId, str] = {}
        self._asking: set[str] = set()

    def started(self, shard: ShardId, url: str) -> None:
        """The shard was started with this address."""
        self._sent[shard] = url

    def forget(self, shard: ShardId) -> None:
        """The shard does not run here any more."""
        self._sent.pop(shard, None)

    def follow(self, view: ClusterView, local: Mapping[ShardId, LocalShard]) -> None:
        """Pass a new address on to the shards that run."""
        for shard, running in local.items():
            budget = view.budgets.get(token_hash_of(view, shard.of))
            url = budget.record.url if budget is not None else ""
            if not url or running.phase != "running" or self._sent.get(shard, url) == url:
                continue
            self._sent[shard] = url
            self._send(running.worker, ipc.GatewayMoved(shard, url))

    async def unreachable(self, shard: ShardId, url: str, reason: str) -> None:
        """A shard cannot connect to `url`. It reports that with every attempt, so a failure here is no loss."""
        view = self._view()
        wanted = doubt(view, shard.of, url, reason) if view is not None else None
        if wanted is None or shard.app in self._asking:
            return
        self._asking.add(shard.app)
        try:
            if (await self._store.txn(wanted.compares, wanted.writes)).succeeded:
                _log.warning(
                    "%s: the gateway cannot be reached at %s: %s; the leader asks again", shard.app, url, reason
                )
        except (StoreError, LeaseLost) as error:
            _log.warning("etcd: %s", error)
        finally:
            self._asking.discard(shard.app)
