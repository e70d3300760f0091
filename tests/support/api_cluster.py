"""A small cluster in a store, for tests of the HTTP API: two nodes, two applications, one of them with four shards."""

from typing import Any

import msgspec

from sandwich_coordinator.config import ClusterSettings, DiscordSettings, NatsSettings, RedisSettings
from sandwich_coordinator.ids import Fence, LeaderTerm
from sandwich_coordinator.sealing import ClusterKey, token_hash
from sandwich_coordinator.status import AppStatus, FailoverStatus, LossStatus, NodeStatus, ShardStatus
from sandwich_coordinator.store.base import Put, Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import proof_of
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupRecord,
    LeaderRecord,
    NodeRecord,
    PinRecord,
    PlanRecord,
    ProposalRecord,
    SessionRecord,
    ShardsSpec,
)
from tests.support.api import KEYS

KEY = ClusterKey.generate()
TOKEN = "MTAwMDAwMDAwMDAx.GaaaaX.canary-of-the-stored-bot-0123456789"
SESSION = "canary-session-0123456789abcdef"
RESUME_URL = "wss://canary-resume.discord.gg"
SHARDS = 4


def secrets(sealed: str) -> tuple[str, ...]:
    """What no answer may have in it."""
    return TOKEN, TOKEN.rpartition(".")[2], SESSION, RESUME_URL, sealed, KEY.to_base64()


async def store_cluster(
    store: Store,
    *,
    api_url: str = "http://127.0.0.1:1/api/v10",
    nats: str = "nats://127.0.0.1:1",
    redis: str = "redis://127.0.0.1:1/0",
    keys: Keys = KEYS,
) -> str:
    """Write the cluster; returns the sealed token of `welcomer`."""
    settings = ClusterSettings(
        nats=NatsSettings(servers=[nats]),
        redis=RedisSettings(url=redis),
        discord=DiscordSettings(api_url=api_url),
    )
    settings = msgspec.structs.replace(settings, proof=proof_of(settings, keys.cluster, KEY))
    sealed = KEY.seal("welcomer", TOKEN)
    lease = await store.grant(600)
    hashed = token_hash(TOKEN)
    welcomer = AppRecord(app="welcomer", token=sealed, token_hash=hashed, intents=1, shards=ShardsSpec(count=SHARDS))
    music = AppRecord(
        app="music", token=KEY.seal("music", TOKEN + "2"), token_hash="f" * 16, intents=1, paused=True, paused_at=5.0
    )
    budget = BudgetRecord(
        url="wss://gateway.discord.gg",
        shards=SHARDS,
        total=1000,
        remaining=900,
        reset_at=1_900_000_000.0,
        max_concurrency=1,
        fetched_at=1.0,
        bot_id="80351110224678912",
        bot_name="Welcomer",
    )
    group = GroupRecord(
        app="welcomer", group=0, count=SHARDS, ids=f"0-{SHARDS - 1}", term=LeaderTerm(1), state="live", intents=1,
        token_hash=hashed, token=sealed,
    )  # fmt: skip
    writes: list[Put] = [
        Put(keys.config, settings.encode()),
        Put(keys.app("welcomer"), welcomer.encode()),
        Put(keys.app("music"), music.encode()),
        Put(keys.budget(hashed), budget.encode()),
        Put(keys.group("welcomer", 0), group.encode()),
        Put(
            keys.plan("welcomer", 0),
            PlanRecord(app="welcomer", group=0, term=LeaderTerm(1), nodes={"alpha": "0-1", "beta": "2-3"}).encode(),
        ),
        Put(keys.leader, LeaderRecord(node="alpha", instance="i-alpha").encode(), lease),
        Put(keys.pin("welcomer", 0, 3), PinRecord(node="beta", at=7.0).encode()),
        Put(keys.proposal("welcomer"), ProposalRecord(count=8, reason="guilds", guilds=9000, at=9.0).encode()),
    ]
    for name in ("alpha", "beta"):
        record = NodeRecord(node=name, instance=f"i-{name}", address=f"10.0.0.1:{5469 + len(name)}", version="1")
        writes.append(Put(keys.node(name), record.encode(), lease))
    for number in range(SHARDS):
        node = "alpha" if number < 2 else "beta"
        claim = ClaimRecord(
            app="welcomer", group=0, shard=number, node=node, instance=f"i-{node}", worker=0, fence=Fence(1),
            state="live", since=100.0,
        )  # fmt: skip
        session = SessionRecord(
            session_id=f"{SESSION}{number}", resume_url=RESUME_URL, intents=1, count=SHARDS, first_seq=1,
            token_hash=hashed, guilds=10,
        )  # fmt: skip
        writes.append(Put(keys.claim("welcomer", 0, number), claim.encode(), lease))
        writes.append(Put(keys.session("welcomer", 0, number), session.encode()))
    for start in range(0, len(writes), 100):
        await store.txn((), writes[start : start + 100])
    return sealed


def answers() -> dict[str, NodeStatus | str]:
    """What the nodes say of themselves: alpha with figures of its shards; beta does not answer."""
    figures: dict[str, Any] = {"app": "welcomer", "group": 0}
    alpha = NodeStatus(
        node="alpha",
        instance="i-alpha",
        version="1",
        uptime_s=1.0,
        leader=True,
        apps={"welcomer": AppStatus(guilds=20, events_per_s=2.5)},
        shards=[
            ShardStatus(**figures, shard=0, worker=1, state="live", latency_ms=40.0, guilds=10, events_per_s=1.5),
            ShardStatus(**figures, shard=1, worker=1, state="resuming", reason="4000", guilds=10, since=200.0),
        ],
        failovers=[
            FailoverStatus(
                **figures, shard=1, at=150.0, source="beta", node="alpha", cause="node lost", how="resumed", took_s=2.0
            )
        ],
        losses=[LossStatus(**figures, shard=0, at=120.0, node="alpha", session="s", last_seq=7, reason="expired")],
    )
    return {"alpha": alpha, "beta": "connection refused"}
