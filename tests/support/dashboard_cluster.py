"""A cluster as an operator has it, in a store in memory, for tests of the dashboard: any number of nodes and shards."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from sandwich_coordinator.config import ClusterSettings, DiscordSettings, NatsSettings, RedisSettings
from sandwich_coordinator.ids import Fence, LeaderTerm
from sandwich_coordinator.operations.history import AppPoint, Point, write_point
from sandwich_coordinator.operations.snapshot import Snapshot, compose
from sandwich_coordinator.problems import Code, problem
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.sealing import ClusterKey, token_hash
from sandwich_coordinator.status import (
    AppStatus,
    ConsumerStatus,
    FailoverStatus,
    LossStatus,
    NodeStatus,
    ShardStatus,
    WorkerStatus,
)
from sandwich_coordinator.store.base import Put, Store
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.trust import proof_of
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupRecord,
    LeaderRecord,
    NodeRecord,
    PlanRecord,
    ProposalRecord,
    ShardsSpec,
    ShardState,
)
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.history import History
from sandwich_node.api.live.parts import open_live
from sandwich_node.api.messaging import open_messaging
from sandwich_node.api.picture import FRESH_S
from sandwich_node.dashboard.serving import add_dashboard
from sandwich_node.log_lines import LogLine, LogRing
from tests.support.api import KEYS, Api, FixedPicture, StoredFacts, api_over

KEY = ClusterKey.generate()
LONG = "a-very-long-name-of-thirty-2char"
STATES: tuple[ShardState, ...] = get_args(ShardState)


@dataclass(frozen=True)
class Shape:
    """How large the cluster is. `healthy` false: one of its nodes does not answer, and shards are in every state."""

    nodes: tuple[str, ...] = ("alpha", "beta", "gamma")
    apps: tuple[tuple[str, int], ...] = (("welcomer", 48), ("music", 16), (LONG, 3))
    healthy: bool = True


class ClockedPicture(FixedPicture):
    """Snapshots of now, with these answers of nodes. As a node's, one serves all who ask within a second."""

    def __init__(self) -> None:
        super().__init__()
        self._made: Snapshot | None = None

    async def snapshot(self, view: ClusterView) -> Snapshot:
        """The cluster now."""
        made, now = self._made, time.time()
        if made is None or made.view is not view or now - made.now >= FRESH_S:
            made = compose(view, self.answers, etcd_version="3.5.13", etcd_found=(), now=now)
        self._made = made
        return made


def token_of(app: str) -> str:
    """A token of Discord's form that is no one's."""
    return f"MTAwMDAwMDAwMDAx.GaaaaX.{app.replace('-', '')[:12]:x<12}-canary-0123456789"


async def store_shape(store: Store, shape: Shape, api_url: str) -> dict[str, NodeStatus | str]:
    """Write the cluster; returns what its nodes say of themselves."""
    now = time.time()
    settings = ClusterSettings(
        nats=NatsSettings(servers=["nats://127.0.0.1:1"]),
        redis=RedisSettings(url="redis://127.0.0.1:1/0"),
        discord=DiscordSettings(api_url=api_url),
    )
    settings = msgspec.structs.replace(settings, proof=proof_of(settings, KEYS.cluster, KEY))
    lease = await store.grant(600)
    writes = [
        Put(KEYS.config, settings.encode()),
        Put(KEYS.leader, LeaderRecord(node=shape.nodes[0], instance="i").encode(), lease),
    ]
    for number, node in enumerate(shape.nodes):
        record = NodeRecord(
            node=node, instance=f"i-{node}", address=f"10.0.0.{number + 1}:5469", version="1.0", workers=2,
            state="cordoned" if node == "gamma" else "ready", started_at=now - 86_400 * (number + 1),
            labels={"region": "eu"},
        )  # fmt: skip
        writes.append(Put(KEYS.node(node), record.encode(), lease))
    shards: dict[str, list[ShardStatus]] = {node: [] for node in shape.nodes}
    for app, count in shape.apps:
        hashed = token_hash(token_of(app))
        spec = AppRecord(
            app=app, token=KEY.seal(app, token_of(app)), token_hash=hashed, intents=513, shards=ShardsSpec(count=count)
        )
        budget = BudgetRecord(
            url="wss://gateway.discord.gg", shards=count, total=1000, remaining=412, reset_at=now + 7200,
            max_concurrency=1, fetched_at=now, bot_id="80351110224678912", bot_name=app.title(),
        )  # fmt: skip
        group = GroupRecord(
            app=app, group=0, count=count, ids=f"0-{count - 1}", term=LeaderTerm(1), state="live", intents=513,
            token_hash=hashed, token=spec.token, created_at=now - 3600,
        )  # fmt: skip
        plan = {
            node: format_ranges(range(number, count, len(shape.nodes)))
            for number, node in enumerate(shape.nodes)
            if number < count
        }
        writes += [
            Put(KEYS.app(app), spec.encode()),
            Put(KEYS.budget(hashed), budget.encode()),
            Put(KEYS.group(app, 0), group.encode()),
            Put(KEYS.plan(app, 0), PlanRecord(app=app, group=0, term=LeaderTerm(1), nodes=plan).encode()),
        ]
        for number in range(count):
            node = shape.nodes[number % len(shape.nodes)]
            state: ShardState = "live" if shape.healthy or number % 7 else STATES[number // 7 % len(STATES)]
            reason = "close code 4014: intents are not enabled" if state == "failed" else ""
            claim = ClaimRecord(
                app=app, group=0, shard=number, node=node, instance=f"i-{node}", worker=number % 2, fence=Fence(1),
                state=state, since=now - 600 - number, reason=reason, close_code=4014 if state == "failed" else 0,
            )  # fmt: skip
            if shape.healthy or number % 13 != 12:
                writes.append(Put(KEYS.claim(app, 0, number), claim.encode(), lease))
            figures = ShardStatus(
                app=app, group=0, shard=number, worker=number % 2, state=state, reason=reason,
                latency_ms=38.0 + number % 9, guilds=980 + number, events_per_s=12.5, since=now - 600 - number,
            )  # fmt: skip
            shards[node].append(figures)
    first = shape.apps[0][0] if shape.apps else ""
    if first:
        proposal = ProposalRecord(count=shape.apps[0][1] * 2, reason="more guilds", guilds=90_000, at=now - 60)
        if not shape.healthy:
            writes.append(Put(KEYS.proposal(first), proposal.encode()))
    for start in range(0, len(writes), 100):
        await store.txn((), writes[start : start + 100])
    answers: dict[str, NodeStatus | str] = {
        node: _answer(node, number, shape, shards[node], now) for number, node in enumerate(shape.nodes)
    }
    if not shape.healthy:
        answers[shape.nodes[-1]] = "connection refused"
    return answers


def _answer(node: str, number: int, shape: Shape, shards: list[ShardStatus], now: float) -> NodeStatus:
    apps: dict[str, AppStatus] = {}
    for app, _ in shape.apps:
        own = [shard for shard in shards if shard.app == app]
        if own:
            apps[app] = AppStatus(
                guilds=sum(shard.guilds for shard in own), events_per_s=sum(shard.events_per_s for shard in own)
            )
    leads, first = number == 0, shape.apps[0][0] if shape.apps else ""
    failovers, losses = [], []
    if leads and first:
        failovers = [
            FailoverStatus(
                at=now - 300, app=first, group=0, shard=number, source="beta", node=node, cause="node lost",
                how="resumed", replayed=120, took_s=2.4, silent_s=3.1,
            )
            for number in (0, 3)
        ]  # fmt: skip
        losses = [
            LossStatus(
                at=now - 240, app=first, group=0, shard=3, node=node, session="s-1", last_seq=7431, reason="expired"
            )
        ]
    problems = []
    if leads and first and not shape.healthy:
        problems = [
            problem(Code.CONSUMER_BEHIND, f"app/{first}", "the group workers has 12,400 unacknowledged frames"),
            problem(Code.DEAD_LETTERS, f"app/{first}", "3 events wait as dead letters of group workers"),
        ]
    return NodeStatus(
        node=node,
        instance=f"i-{node}",
        version="1.0",
        uptime_s=3600.0,
        leader=leads,
        workers=[WorkerStatus(id=one, pid=100 + one, rss_bytes=180 << 20, cpu_percent=23.5) for one in range(2)],
        apps=apps,
        shards=shards,
        problems=problems,
        failovers=failovers,
        losses=losses,
        consumers=[ConsumerStatus(app=first, group="workers", lag=0 if shape.healthy else 12_400)] if leads else [],
        dead_letters={first: 3} if leads and first and not shape.healthy else {},
    )


def log_ring(node: str, app: str) -> LogRing:
    """Some lines."""
    ring = LogRing()
    for number in range(40):
        ring.add(
            LogLine(
                at=time.time() - 40 + number,
                level="warning" if number % 9 == 8 else "info",
                logger="sandwich_node.shard",
                message=f"shard {number} is live again after {number + 1} s" if number % 2 else "a plan of 16 shards",
                app=app if number % 2 else "",
                shard=f"0/{number}" if number % 2 else "",
                worker=number % 3 or None,
                node=node,
            )
        )
    return ring


@asynccontextmanager
async def dashboard_over(
    shape: Shape, *, api_url: str = "http://127.0.0.1:1/api/v10", **more: Any
) -> AsyncIterator[Api]:
    """The dashboard and its API over such a cluster; `Api.url` is its address."""
    store = MemoryStore()
    picture = ClockedPicture()
    picture.answers = await store_shape(store, shape, api_url)
    facts = StoredFacts(store)
    await facts.refresh()
    now = time.time()
    for minute in range(90, 0, -1):
        figures = [AppPoint(app, 4.0 * count + minute % 7, 10, count, count, 40.0) for app, count in shape.apps]
        await write_point(store, KEYS, Point(at=now - 60 * minute, apps=figures, nodes=[]))
    ring = log_ring(shape.nodes[0], shape.apps[0][0] if shape.apps else "")
    as_real: Any = picture
    async with (
        open_messaging(facts.settings, KEY) as messaging,
        open_live(shape.nodes[0], ring, facts, as_real, messaging) as live,
        api_over(
            store,
            key=KEY,
            also=add_dashboard,
            facts=facts,
            picture=picture,
            live=live,
            messaging=messaging,
            history=History(store, KEYS, facts, as_real),
            **more,
        ) as api,
    ):
        yield api
