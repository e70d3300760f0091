"""What a shard is started with, and what is sent to it of a change while it runs."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.assignment import LocalShard, ShardConfig, Start
from sandwich_coordinator.ids import Fence, GroupId, LeaderTerm, ShardId
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, BudgetRecord, CacheSpec, EventsSpec, GroupRecord
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_node import ipc
from sandwich_node.agent.shard_messages import NO_PRESENCE, ShardChanges, start_message, with_token_of

OLD, NEW = GroupId("bot", 3), GroupId("bot", 4)
SHARD = ShardId("bot", 4, 1)
APP = AppRecord(app="bot", token="t", token_hash="h", intents=1, presence={"status": "idle"})
BUDGET = BudgetRecord(
    url="wss://g", shards=8, total=9, remaining=9, reset_at=0.0, max_concurrency=1, fetched_at=0.0, bot_id="17"
)
CONFIG = ShardConfig("h", intents=1, count=8, compression="zstd-stream", large_threshold=50)
START = Start(SHARD, 2, Fence(50), CONFIG, None)


def view(app: AppRecord = APP, **new: Any) -> ClusterView:
    old = GroupRecord("bot", 3, 4, "0-3", term=LeaderTerm(1), intents=513)
    upcoming = GroupRecord("bot", 4, 8, "0-7", term=LeaderTerm(1), replaces=3, phase="preparing")
    return replace(
        ClusterView(keys=Keys()),
        apps={"bot": Entry(app, 1, 1, 0)},
        groups={OLD: Entry(old, 2, 2, 0), NEW: Entry(msgspec.structs.replace(upcoming, **new), 3, 3, 0)},
        budgets={"h": Entry(BUDGET, 4, 4, 0)},
    )


def message(seen: ClusterView) -> ipc.StartShard:
    return start_message(START, seen, run=9, token="secret", api_url="https://d/api", stream=(3600.0, 1 << 20, 3))


def test_a_start_has_what_the_view_and_the_claim_say() -> None:
    found = message(view())
    assert (found.key, found.run, found.fence, found.count, found.token) == (SHARD, 9, 50, 8, "secret")
    assert (found.route, found.bot, found.gateway_url) == ("bot", "17", "wss://g")
    assert (found.stream_max_age_s, found.stream_max_bytes, found.stream_replicas) == (3600.0, 1 << 20, 3)
    assert (found.phase, found.previous) == ("preparing", ipc.PreviousGroup(group=3, count=4, ids="0-3", intents=513))
    assert message(view(msgspec.structs.replace(APP, route="music"))).route == "music"
    assert message(view(replaces=None)).previous is None
    assert message(view(replaces=1)).previous is None, "that group is gone"


@pytest.mark.parametrize(("token_hash", "token"), [("", "t"), ("h", "t"), ("before", "older")])
def test_a_group_may_have_an_earlier_token_of_its_application(token_hash: str, token: str) -> None:
    group = GroupRecord("bot", 3, 4, "0-3", term=LeaderTerm(1), token_hash=token_hash, token="older")
    assert with_token_of(group, APP).token == token


class Node:
    """A shard that was started in worker 2."""

    def __init__(self) -> None:
        self.local = {SHARD: LocalShard(2, Fence(50), CONFIG)}
        self.changes = ShardChanges()
        self.changes.started(message(view()))

    def sent(self, seen: ClusterView) -> list[tuple[int, ipc.ToWorker]]:
        return list(self.changes.messages(seen, self.local))


def test_a_change_is_sent_once() -> None:
    node = Node()
    assert node.sent(view()) == []
    changed = msgspec.structs.replace(
        APP, presence=None, cache=CacheSpec(enabled=False), events=EventsSpec(ignore=["TYPING_START"])
    )
    options = ipc.ShardOptions(cache=changed.cache, events=changed.events, invites=changed.invites)
    assert node.sent(view(changed, phase="holding")) == [
        (2, ipc.SetPresence(SHARD, NO_PRESENCE)),
        (2, ipc.SetOptions(SHARD, options)),
        (2, ipc.SetPhase(SHARD, "holding")),
    ]
    assert node.sent(view(changed, phase="holding")) == []
    assert node.sent(view(changed, phase="active")) == [(2, ipc.SetPhase(SHARD, "active"))]


def test_a_shard_that_stops_is_sent_nothing_and_one_that_starts_again_only_what_changed_since() -> None:
    node = Node()
    node.local[SHARD] = replace(node.local[SHARD], phase="stopping")
    assert node.sent(view(phase="holding")) == []
    node.changes.forget(SHARD)
    node.local[SHARD] = replace(node.local[SHARD], phase="running")
    assert node.sent(view(phase="holding")) == [], "it was not started"
    node.changes.started(message(view(phase="holding")))
    assert node.sent(view(phase="holding")) == []


def test_an_application_that_is_gone_changes_nothing() -> None:
    assert Node().sent(replace(view(phase="holding"), apps={}, groups={})) == []
