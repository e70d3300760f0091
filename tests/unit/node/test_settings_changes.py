"""What a running node takes of changed settings, and which shards move between its workers next."""

import msgspec

from sandwich_coordinator.assignment import LocalShard, ShardConfig
from sandwich_coordinator.config import (
    ClusterSettings,
    DiscordSettings,
    NatsSettings,
    PolicySettings,
    RedisSettings,
)
from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.agent.settings_changes import SHARDS_AT_ONCE, shards_to_stop, spread_s, without_restart
from sandwich_node.agent.status import ShardFacts

RUNNING = ClusterSettings(nats=NatsSettings(servers=["nats://a"]), redis=RedisSettings(url="redis://a"))


def test_a_running_node_takes_all_but_discord_and_its_leases_ttl() -> None:
    stored = ClusterSettings(
        nats=NatsSettings(servers=["nats://b"], user="b"),
        redis=RedisSettings(url="redis://b"),
        discord=DiscordSettings(api_url="http://b"),
        policy=PolicySettings(lease_ttl_s=9.0, restart_grace_s=3.0, linger_ms=5.0),
    )
    taken = without_restart(RUNNING, stored)
    assert (taken.nats, taken.redis) == (stored.nats, stored.redis)
    assert taken.discord == RUNNING.discord
    assert taken.policy == msgspec.structs.replace(stored.policy, lease_ttl_s=RUNNING.policy.lease_ttl_s)
    assert without_restart(RUNNING, RUNNING) == RUNNING


def test_nodes_begin_one_after_another_within_a_minute() -> None:
    assert spread_s(1, 0.5) == 0.5
    assert spread_s(20, 1.0) == 20.0
    assert spread_s(1000, 1.0) == 60.0


def running(count: int, *, worker: int = 0, first: int = 0) -> dict[ShardId, LocalShard]:
    config = ShardConfig("h", 1, 100, "none", 50)
    return {ShardId("bot", 0, number): LocalShard(worker, Fence(1), config) for number in range(first, first + count)}


def facts(shards: dict[ShardId, LocalShard], state: str) -> dict[ShardId, ShardFacts]:
    return {shard: ShardFacts(each.worker, state, "", 0.0) for shard, each in shards.items()}


def test_no_shard_stops_while_no_worker_retires() -> None:
    shards = running(3)
    assert shards_to_stop(shards, facts(shards, "live"), ()) == []


def test_live_shards_of_a_retiring_worker_stop_a_few_at_a_time() -> None:
    shards = running(SHARDS_AT_ONCE + 5)
    live = facts(shards, "live")
    first = shards_to_stop(shards, live, {0})
    assert first == sorted(shards)[:SHARDS_AT_ONCE]
    stopping = shards | {shard: LocalShard(0, Fence(1), shards[shard].config, "stopping") for shard in first}
    assert shards_to_stop(stopping, live, {0}) == []
    # Two of them connect in the new worker, and the others are live there: as many more may stop.
    moved = {shard: LocalShard(1, Fence(2), shards[shard].config) for shard in first}
    states = live | facts(dict(list(moved.items())[:2]), "resuming")
    assert shards_to_stop(shards | moved, states, {0}) == sorted(shards)[SHARDS_AT_ONCE:]
    many = shards | running(SHARDS_AT_ONCE, worker=1, first=100)
    states = live | facts(running(SHARDS_AT_ONCE, worker=1, first=100), "connecting")
    assert shards_to_stop(many, states, {0}) == []


def test_a_shard_without_a_session_stops_at_once_and_one_that_holds_events_waits_for_its_turn() -> None:
    count = SHARDS_AT_ONCE + 2
    idle, holding = running(count), running(count, first=count)
    states = facts(idle, "connecting") | facts(holding, "holding")
    assert shards_to_stop(idle | holding, states, {0}) == [*sorted(idle), *sorted(holding)[:SHARDS_AT_ONCE]]


def test_a_failed_shard_stays_where_it_is() -> None:
    failed = {shard: LocalShard(0, Fence(1), each.config, "failed") for shard, each in running(2).items()}
    assert shards_to_stop(failed, facts(failed, "failed"), {0}) == []
