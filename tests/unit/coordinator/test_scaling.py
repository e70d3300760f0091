"""Scaling and restarting an application: what is refused, what it costs, and how it is waited for. Time is virtual."""

import asyncio
import functools
import io
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.new_sessions import ask_before_new_sessions
from sandwich_coordinator.cli.progress import plan_lines, progress_lines
from sandwich_coordinator.groups import planned_ids, serving_groups
from sandwich_coordinator.ids import GroupId, LeaderTerm
from sandwich_coordinator.leader import reconcile
from sandwich_coordinator.operations.applications import change_app
from sandwich_coordinator.operations.errors import Conflict, Invalid, NotFound, NotReached, OperationError, Refused
from sandwich_coordinator.operations.progress import Progress, ScaleAdvanced, ScaleDone, ScaleFailing
from sandwich_coordinator.operations.rows import plan_of_row, plan_row
from sandwich_coordinator.operations.scaling import (
    ScaleRequest,
    await_scale,
    cancel_scale,
    plan_restart,
    plan_scale,
    store_request,
)
from sandwich_coordinator.operations.waiting import read_view
from sandwich_coordinator.plans import LeaderMemory
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.scale_plan import desired_shards, no_room
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    CacheSpec,
    ClaimRecord,
    GroupRecord,
    LeaderRecord,
    NodeRecord,
    ProposalRecord,
    SessionRecord,
    ShardsSpec,
    ShardState,
)
from verification.simulation.loop import run_virtual

KEYS = Keys()


def on_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        run_virtual(test())

    return run


POLICY = Policy(identify_spacing_s=5.0)


class Cluster:
    """One bot with four live shards on a node; the leader is real, and the test plays the node."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.events: list[Progress] = []
        self.memory = LeaderMemory()

    async def begin(self, *, remaining: int = 100, max_concurrency: int = 2, **app: Any) -> "Cluster":
        self.lease = await self.store.grant(10_000)
        shards = app.pop("shards", ShardsSpec(count=4))
        record = AppRecord(
            app="bot", token="t", token_hash="h", intents=1, shards=shards, cache=CacheSpec(enabled=False), **app
        )
        budget = BudgetRecord(
            url="u",
            shards=6,
            total=100,
            remaining=remaining,
            reset_at=7200.0,
            max_concurrency=max_concurrency,
            fetched_at=0.0,
        )
        leader = LeaderRecord(node="a", instance="a")
        node = NodeRecord(node="a", instance="a", address="", version="1")
        await self.store.txn(
            [],
            [
                Put(KEYS.leader, leader.encode(), self.lease),
                Put(KEYS.node("a"), node.encode(), self.lease),
                Put(KEYS.app("bot"), record.encode()),
                Put(KEYS.budget("h"), budget.encode()),
            ],
        )
        await self.lead()
        await self.claims("live")
        await self.lead()
        return self

    async def lead(self) -> None:
        """Let the leader decide until it writes nothing."""
        for _ in range(10):
            view = await read_view(self.store, KEYS)
            assert view.leader is not None
            term = LeaderTerm(view.leader.create_revision)
            now = asyncio.get_running_loop().time()
            done = reconcile(view, {}, self.memory, term=term, now=now, wall=now, policy=POLICY)
            self.memory = done.memory
            if not [write for write in done.writes if (await self.store.txn(write.compares, write.writes)).succeeded]:
                return
        raise AssertionError("the leader finds no end")

    async def claims(self, state: ShardState, group: int | None = None, only: list[int] | None = None) -> None:
        """Every planned shard of the group (the serving one) gets into this state."""
        view = await read_view(self.store, KEYS)
        key = serving_groups(view)["bot"] if group is None else GroupId("bot", group)
        record = view.groups[key].record
        for shard in planned_ids(record) if only is None else only:
            claim = ClaimRecord(
                app="bot", group=key.group, shard=shard, node="a", instance="a", worker=0, state=state, reason="why"
            )
            session = SessionRecord(
                session_id="s", resume_url="u", intents=1, count=record.count, first_seq=1, token_hash="h"
            )
            writes = [Put(KEYS.claim(*key, shard), claim.encode(), self.lease)]
            if state == "live":
                writes.append(Put(KEYS.session(*key, shard), session.encode()))
            await self.store.txn([], writes)

    async def group(self, number: int) -> GroupRecord | None:
        entry = (await read_view(self.store, KEYS)).groups.get(GroupId("bot", number))
        return entry.record if entry is not None else None

    async def app(self) -> AppRecord:
        return (await read_view(self.store, KEYS)).apps["bot"].record

    async def limit(self, node: NodeRecord) -> None:
        """This is how a node is registered from now on."""
        await self.store.txn([], [Put(KEYS.node(node.node), node.encode(), self.lease)])

    async def plan(self, count: Any, ids: str | None = None) -> ScaleRequest:
        return await plan_scale(self.store, KEYS, "bot", count, ids, policy=POLICY)

    async def scale(self, count: Any) -> None:
        await store_request(self.store, await self.plan(count))
        await self.lead()

    async def cancel(self) -> bool:
        return await cancel_scale(self.store, KEYS, "bot", policy=POLICY)

    async def wait(self, timeout_s: float = 60.0) -> ScaleDone:
        return await await_scale(self.store, KEYS, "bot", policy=POLICY, timeout_s=timeout_s, report=self.events.append)

    async def go_through(self, until: str = "active") -> None:
        """Play the node: bring the upcoming group to `until`."""
        steps: list[tuple[str, ShardState, int]] = [
            ("preparing", "ready", 1),
            ("holding", "ready", 1),
            ("switching", "holding", 1),
            ("active", "live", 1),
        ]
        for phase, state, group in steps:
            await asyncio.sleep(1.0)
            if phase == "active":
                await self.claims("ended", 0)
            await self.claims(state, group)
            await self.lead()
            if phase == until:
                return


@on_virtual_time
async def test_a_plan_names_the_cost_and_writes_nothing() -> None:
    cluster = await Cluster().begin()
    before = cluster.store.database.revision
    request = await cluster.plan(7)
    assert cluster.store.database.revision == before
    plan = request.plan
    assert plan is not None
    # Seven starts, two at a time, each pair in five seconds.
    assert (plan.before, plan.after, plan.starts, plan.left, plan.seconds) == (4, 7, 7, 100, 20.0)
    assert (plan.reasons, plan.at_once, plan.enough) == (("4 shards -> 7 shards",), False, True)
    assert plan_lines(plan, 0.0) == [
        "bot: 4 shards -> 7 shards",
        "  7 session starts of the 100 that are left of 100, 20 are kept for failover",
        "  at least 20s; the present shards serve until the new ones are ready",
        "  about 1 MiB of memory more until then, without traffic",
    ]
    assert plan_row(plan)["begins_now"] is True


@on_virtual_time
async def test_a_plan_says_how_many_shards_have_no_room() -> None:
    cluster = await Cluster().begin()
    node = NodeRecord(node="a", instance="a", address="", version="1", max_shards=9)
    await cluster.limit(node)
    plan = (await cluster.plan(5)).plan
    assert plan is not None
    assert (plan.without_room, no_room(plan)) == (0, "")
    plan = (await cluster.plan(8)).plan
    assert plan is not None
    assert plan.without_room == 3, "four of the nine places are taken"
    assert plan_row(plan)["shards_without_room"] == 3
    assert plan_lines(plan, 0.0)[-1] == (
        "  no node has room for 3 of the 8 new shards: start more nodes, or start nodes with a higher --max-shards"
    )
    with pytest.raises(CommandError, match="bot: not all new shards have room, nothing was changed; --force"):
        ask_before_new_sessions([plan], yes=True, force=False)
    ask_before_new_sessions([plan], yes=True, force=True)
    await cluster.limit(msgspec.structs.replace(node, state="draining"))
    plan = (await cluster.plan(8)).plan
    assert plan is not None
    assert plan.without_room == 0, "no node takes shards just now: nothing is known"
    await cluster.limit(msgspec.structs.replace(node, max_shards=0))
    plan = (await cluster.plan(8)).plan
    assert plan is not None
    assert plan.without_room == 0


@on_virtual_time
async def test_a_group_that_ends_first_leaves_its_places_to_the_next_one() -> None:
    cluster = await Cluster().begin()
    await cluster.limit(NodeRecord(node="a", instance="a", address="", version="1", max_shards=4))
    rolling, hard = [await plan_restart(cluster.store, KEYS, "bot", hard=hard, policy=POLICY) for hard in (False, True)]
    assert rolling.plan is not None
    assert hard.plan is not None
    assert (rolling.plan.without_room, hard.plan.without_room) == (4, 0)


@on_virtual_time
async def test_a_plan_counts_the_nodes_with_the_labels_alone() -> None:
    cluster = await Cluster().begin(placement={"zone": "east"})
    east = NodeRecord(node="b", instance="b", address="", version="1", max_shards=3, labels={"zone": "east"})
    await cluster.limit(east)
    plan = (await cluster.plan(8)).plan
    assert plan is not None
    assert plan.without_room == 5
    assert "--max-shards" in plan.room_advice
    await cluster.limit(msgspec.structs.replace(east, labels={"zone": "west"}))
    plan = (await cluster.plan(8)).plan
    assert plan is not None
    assert (plan.without_room, plan.room_advice) == (8, "no node that takes shards has the labels zone=east")
    assert plan_of_row(plan_row(plan)) == plan


@on_virtual_time
async def test_what_app_set_changes_names_the_group_that_it_adds() -> None:
    cluster = await Cluster().begin()
    change = functools.partial(change_app, cluster.store, KEYS, "bot")
    for path, value, starts in (("intents",), 3, 4), (("shards", "count"), 6, 6):
        plan = (await change({path: value}, dry_run=True)).new_group
        assert plan is not None
        assert (plan.app, plan.starts) == ("bot", starts)
    assert (await change({("events", "ignore"): ["TYPING_START"]}, dry_run=True)).new_group is None
    assert (await change({("intents",): 3, ("paused",): True}, dry_run=True)).new_group is None
    await change({("intents",): 3})
    other = await change({("events", "ignore"): ["TYPING_START"]}, dry_run=True)
    assert other.new_group is None, "the new group comes anyway"


def test_new_sessions_without_a_terminal_need_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    @on_virtual_time
    async def test() -> None:
        plan = (await (await Cluster().begin()).plan(8)).plan
        assert plan is not None
        monkeypatch.setattr("sys.stdin", io.StringIO())
        with pytest.raises(CommandError, match="say --yes"):
            ask_before_new_sessions([plan], yes=False, force=False)
        ask_before_new_sessions([plan], yes=True, force=False)
        ask_before_new_sessions([], yes=False, force=False)

    test()


@on_virtual_time
async def test_the_present_count_needs_no_new_group() -> None:
    cluster = await Cluster().begin()
    assert (await cluster.plan(4)).plan is None
    limited = (await cluster.plan(4, "0-1")).plan
    assert limited is not None
    assert limited.reasons == ("4 shards -> 4 shards (here 0-1)",)


@on_virtual_time
async def test_too_few_session_starts_are_named_with_the_time_of_their_reset() -> None:
    cluster = await Cluster().begin(remaining=5)
    plan = (await cluster.plan(6)).plan
    assert plan is not None
    assert not plan.enough
    assert plan_lines(plan, 3600.0)[-1] == "  it begins when the session starts are reset, in 1h 0m"
    await cluster.scale(6)
    assert await cluster.group(1) is None


@pytest.mark.parametrize(
    ("count", "ids", "text"),
    [
        (0, None, "--shards 0: a bot has 1 to "),
        (200, None, "--shards: 200 shards need as many session starts"),
        (8, "6-9", "--ids: "),
        (8, "x", "--ids: "),
    ],
)
def test_a_count_or_ids_that_cannot_be_are_refused(count: int, ids: str | None, text: str) -> None:
    @on_virtual_time
    async def run() -> None:
        cluster = await Cluster().begin()
        with pytest.raises(Invalid) as found:
            await cluster.plan(count, ids)
        assert str(found.value).startswith(text)

    run()


@on_virtual_time
async def test_a_count_that_is_too_small_for_the_guilds_of_the_running_shards_is_refused() -> None:
    cluster = await Cluster().begin()
    view = await read_view(cluster.store, KEYS)
    for shard, entry in view.sessions.items():
        full = msgspec.structs.replace(entry.record, guilds=1500)
        await cluster.store.txn([], [Put(KEYS.session(*shard), full.encode())])
    guilds, least = 6000, 3
    assert len(view.sessions) == 4
    with pytest.raises(Invalid, match=rf"--shards: the bot is in {guilds} guilds.* 2500"):
        await cluster.plan(least - 1)
    assert (await cluster.plan(least)).plan is not None


@on_virtual_time
async def test_a_large_bot_is_warned_of_a_count_that_discord_may_not_take() -> None:
    cluster = await Cluster().begin(max_concurrency=6)
    assert ["(4010)" in text for text in (await cluster.plan(8)).warnings] == [True]
    assert (await cluster.plan(12)).warnings == ()


@on_virtual_time
async def test_an_unknown_application_and_one_that_is_paused() -> None:
    cluster = await Cluster().begin()
    with pytest.raises(NotFound, match="bot"):
        await plan_scale(cluster.store, KEYS, "bott", 2, None, policy=POLICY)
    record = msgspec.structs.replace(await cluster.app(), paused=True)
    await cluster.store.txn([], [Put(KEYS.app("bot"), record.encode())])
    with pytest.raises(Refused, match="sandwich app resume bot"):
        await plan_restart(cluster.store, KEYS, "bot", hard=False, policy=POLICY)


@on_virtual_time
async def test_a_scale_is_followed_to_its_end() -> None:
    cluster = await Cluster().begin()
    await cluster.scale(3)
    waiting = asyncio.ensure_future(cluster.wait())
    await cluster.go_through()
    done = await waiting
    assert (done.app, 3.5 < done.took_s < 4.5) == ("bot", True)
    view = await read_view(cluster.store, KEYS)
    assert list(view.groups) == [GroupId("bot", 1)]
    assert view.groups[GroupId("bot", 1)].record.phase == "active"
    lines = [line for event in cluster.events for line in progress_lines(event)]
    assert lines[0] == "bot: group 0 -> 1: 0 of 1 the first shard of the new group is ready, about 10s left"
    assert lines[-1].startswith("bot: done after")
    phases = [event.progress.phase for event in cluster.events if isinstance(event, ScaleAdvanced)]
    assert sorted(set(phases), key=phases.index) == ["canary", "preparing", "holding", "switching"]


@on_virtual_time
async def test_a_change_under_way_refuses_the_next_one_and_says_how_to_take_it_back() -> None:
    cluster = await Cluster().begin()
    await cluster.scale(3)
    with pytest.raises(Refused, match=r"0 -> 1, canary, 0 of 3.*sandwich app scale bot --cancel"):
        await cluster.plan(5)
    with pytest.raises(Refused, match="under way"):
        await plan_restart(cluster.store, KEYS, "bot", hard=False, policy=POLICY)


@pytest.mark.parametrize("phase", ["canary", "preparing", "holding"])
def test_a_scale_is_taken_back_in_every_phase_before_the_switch(phase: str) -> None:
    @on_virtual_time
    async def run() -> None:
        cluster = await Cluster().begin()
        await cluster.scale(3)
        if phase != "canary":
            await cluster.go_through(phase)
        assert await cluster.cancel()
        await cluster.lead()
        view = await read_view(cluster.store, KEYS)
        assert list(view.groups) == [GroupId("bot", 0)]
        assert view.groups[GroupId("bot", 0)].record.phase == "active"
        assert (await cluster.app()).shards == ShardsSpec(count=4)
        assert not await cluster.cancel()

    run()


@on_virtual_time
async def test_a_switch_that_has_begun_is_not_taken_back() -> None:
    cluster = await Cluster().begin()
    await cluster.scale(3)
    await cluster.go_through("switching")
    with pytest.raises(Refused, match="has begun"):
        await cluster.cancel()


@on_virtual_time
async def test_taking_back_loses_against_a_switch_that_begins_at_the_same_time() -> None:
    cluster = await Cluster().begin()
    await cluster.scale(3)
    await cluster.go_through("holding")
    txn = cluster.store.txn

    async def late(*args: Any) -> Any:
        store.stop()
        await cluster.claims("holding", 1)
        await cluster.lead()
        return await txn(*args)

    store = patch.object(cluster.store, "txn", late)
    store.start()
    with pytest.raises(Conflict):
        await cluster.cancel()
    record = await cluster.group(1)
    assert record is not None
    assert record.phase == "switching"


@on_virtual_time
async def test_new_intents_are_taken_back_to_those_of_the_serving_group() -> None:
    cluster = await Cluster().begin()
    record = msgspec.structs.replace(await cluster.app(), intents=513)
    await cluster.store.txn([], [Put(KEYS.app("bot"), record.encode())])
    await cluster.lead()
    assert await cluster.group(1) is not None
    assert await cluster.cancel()
    assert (await cluster.app()).intents == 1


@on_virtual_time
async def test_a_restart_makes_a_group_of_the_same_shape_and_is_taken_back() -> None:
    cluster = await Cluster().begin()
    request = await plan_restart(cluster.store, KEYS, "bot", hard=False, policy=POLICY)
    assert request.plan is not None
    assert (request.plan.reasons, request.plan.starts) == (("a restart was asked for",), 4)
    await store_request(cluster.store, request)
    await cluster.lead()
    record = await cluster.group(1)
    assert record is not None
    assert (record.count, record.phase, record.replaces) == (4, "canary", 0)
    assert await cluster.cancel()
    await cluster.lead()
    assert await cluster.group(1) is None
    assert (await plan_restart(cluster.store, KEYS, "bot", hard=False, policy=POLICY)).plan is not None


@on_virtual_time
async def test_a_hard_restart_says_that_the_present_shards_end_first() -> None:
    cluster = await Cluster().begin()
    request = await plan_restart(cluster.store, KEYS, "bot", hard=True, policy=POLICY)
    assert request.plan is not None
    assert request.plan.at_once
    assert "the present shards end first" in plan_lines(request.plan, 0.0)[2]
    await store_request(cluster.store, request)
    await cluster.lead()
    assert await cluster.group(0) is None


@on_virtual_time
async def test_failed_shards_of_the_new_group_are_reported_once_and_the_wait_ends_in_time() -> None:
    cluster = await Cluster().begin()
    await cluster.scale(3)
    await cluster.go_through("preparing")
    await cluster.claims("failed", 1, [2])
    await cluster.lead()
    with pytest.raises(NotReached, match=r"not scaled after 5 s.*--cancel"):
        await cluster.wait(5.0)
    failing = [event for event in cluster.events if isinstance(event, ScaleFailing)]
    assert [event.shards for event in failing] == [(2,)]
    serving = await cluster.group(0)
    assert serving is not None
    assert (serving.state, serving.phase) == ("live", "active")


@on_virtual_time
async def test_two_operators_at_once_do_not_overwrite_each_other() -> None:
    cluster = await Cluster().begin()
    first, second = await cluster.plan(3), await cluster.plan(8)
    await store_request(cluster.store, first)
    with pytest.raises(OperationError, match="another operator"):
        await store_request(cluster.store, second)


@on_virtual_time
async def test_an_automatic_count_keeps_what_runs() -> None:
    cluster = await Cluster().begin()
    assert (await cluster.plan("auto")).plan is None


@on_virtual_time
async def test_the_desired_shards_are_those_of_both_groups_and_of_a_proposal() -> None:
    cluster = await Cluster().begin()
    assert desired_shards(await read_view(cluster.store, KEYS)) == {"bot": 4}
    await cluster.scale(3)
    assert desired_shards(await read_view(cluster.store, KEYS)) == {"bot": 7}
    await cluster.cancel()
    await cluster.lead()
    await cluster.store.txn([], [Put(KEYS.proposal("bot"), ProposalRecord(count=9, reason="more guilds").encode())])
    assert desired_shards(await read_view(cluster.store, KEYS)) == {"bot": 13}
