"""Nodes that share real etcd start sessions one after the other in each bucket, in one order, from one budget."""

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sandwich_coordinator.ids import LeaderTerm, ShardId
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, BudgetRecord, ClaimRecord, GroupRecord, Record
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.identify_loop import IdentifyLoop
from sandwich_node.agent.view_following import ViewFollower
from sandwich_node.dev.embedded import EmbeddedEtcd

pytestmark = pytest.mark.contract
KEYS = Keys("order")
DEADLINE_S = 60.0
POLICY = Policy(identify_spacing_s=0.2, identify_lease_ttl_s=30.0, identify_yield_s=20.0)
"""A wait for another node that is longer than any delay of this machine: the order must not depend on its speed."""
BUCKETS = 2
COUNT = 6


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with EmbeddedEtcd(tmp_path / "etcd") as server:
        yield server.url


def claim_of(shard: ShardId, node: str) -> ClaimRecord:
    app, group, number = shard
    return ClaimRecord(app=app, group=group, shard=number, node=node, instance=node, worker=0, state="identifying")


class Node:
    """A node whose shards are no more than their claims: a grant is an IDENTIFY, and its READY comes at once."""

    def __init__(self, name: str, url: str, sent: list[tuple[float, ShardId]]) -> None:
        self.name = name
        self.store = EtcdStore([url])
        self.lease = 0
        self._sent = sent
        self._following = ViewFollower(self.store, KEYS, rng=random.Random(name), on_change=self._changed)
        self._granted: asyncio.Queue[ShardId] = asyncio.Queue()
        self.starts = IdentifyLoop(
            self.store,
            name,
            view=self._following.view,
            grant=self._granted.put_nowait,
            refuse=lambda shard, reason: None,
            policy=POLICY,
        )

    def _changed(self, before: ClusterView | None, after: ClusterView) -> None:
        self.starts.changed()

    async def claim(self, shards: list[ShardId]) -> None:
        self.lease = await self.store.grant(120)
        await self.store.txn(
            [], [Put(KEYS.claim(*one), claim_of(one, self.name).encode(), self.lease) for one in shards]
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._following.run())
            group.create_task(self.starts.run())
            group.create_task(self._identify())

    async def saw(self, claims: int) -> None:
        while (view := self._following.view()) is None or len(view.claims) < claims:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def _identify(self) -> None:
        while True:
            shard = await self._granted.get()
            self._sent.append((asyncio.get_running_loop().time(), shard))
            self.starts.sent(shard)
            live = msgspec.structs.replace(claim_of(shard, self.name), state="live")
            await self.store.txn([], [Put(KEYS.claim(*shard), live.encode(), self.lease)])


async def test_shards_of_two_applications_with_one_token_start_in_order_over_three_nodes_from_one_budget(
    url: str,
) -> None:
    """`old` was live: its shards are first. Then those of `new`, lowest first, whichever node has them."""
    states = {"old": "live", "new": "starting"}
    budget = BudgetRecord(
        url="u", shards=1, total=100, remaining=90, reset_at=0.0, max_concurrency=BUCKETS, fetched_at=0.0
    )
    records: dict[str, Record] = {KEYS.budget("h"): budget}
    for app, state in states.items():
        records[KEYS.app(app)] = AppRecord(app=app, token="", token_hash="h", intents=1)
        records[KEYS.group(app, 0)] = msgspec.convert(
            {"app": app, "group": 0, "count": COUNT, "ids": f"0-{COUNT - 1}", "epoch": LeaderTerm(1), "state": state},
            GroupRecord,
        )
    sent: list[tuple[float, ShardId]] = []
    nodes = [Node(name, url, sent) for name in ("m", "n", "o")]
    await nodes[0].store.txn([], [Put(key, record.encode()) for key, record in records.items()])
    shards = [ShardId(app, 0, number) for app in states for number in range(COUNT)]
    owned = {node.name: shards[index::3] for index, node in enumerate(nodes)}
    for node in nodes:
        await node.claim(owned[node.name])
    async with asyncio.timeout(DEADLINE_S):
        running = [asyncio.create_task(node.run()) for node in nodes]
        for node in nodes:
            await node.saw(len(shards))
        for node in nodes:
            for shard in reversed(owned[node.name]):
                node.starts.want(shard)
        while len(sent) < len(shards):  # noqa: ASYNC110 (two deadlines would be one too many)
            await asyncio.sleep(0.02)
        entry = await nodes[0].store.get(KEYS.budget("h"))
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for node in nodes:
        await node.store.close()
    of_bucket: dict[int, list[tuple[float, ShardId]]] = defaultdict(list)
    for at, shard in sent:
        of_bucket[shard.shard % BUCKETS].append((at, shard))
    for bucket, found in of_bucket.items():
        expected = [ShardId(app, 0, number) for app in states for number in range(bucket, COUNT, BUCKETS)]
        assert [shard for _, shard in found] == expected
        times = [at for at, _ in found]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert min(gaps) >= POLICY.identify_spacing_s
    assert entry is not None
    assert msgspec.json.decode(entry.value, type=BudgetRecord).remaining == 90 - len(shards)
