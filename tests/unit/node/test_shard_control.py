"""What reaches the agent late, from a run of a shard that is over, does not touch the shard's next run."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.ids import Fence, LeaderTerm, ShardId
from sandwich_coordinator.store.base import Compare, Delete, KeyValue, Put, StoreUnavailable, TxnResult
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupPhase,
    GroupRecord,
    NodeRecord,
    PlanRecord,
    SessionRecord,
    ShardsSpec,
    ShardState,
)
from sandwich_coordinator.view import ClusterView
from sandwich_node import ipc
from sandwich_node.agent.identify_loop import IdentifyLoop
from sandwich_node.agent.membership import Membership
from sandwich_node.agent.node_state import NodeState
from sandwich_node.agent.shard_control import (
    JUMP,
    LOOK_S,
    PATIENT_PER_S,
    RESTORED_WAIT_S,
    SAVE_BUDGET_S,
    ShardControl,
)
from sandwich_node.log_lines import LogRing
from tests.unit.node.test_view_changes import FakeWorker
from verification.simulation.loop import run_virtual

KEYS, LEASE, SHARD, FENCE = Keys(), 11, ShardId("bot", 0, 0), Fence(20)
NODE = NodeRecord(node="a", instance="a1", address="", version="1")
APP = AppRecord(app="bot", token="t", token_hash="h", intents=1, shards=ShardsSpec(count=1))
SESSION = SessionRecord(session_id="s", resume_url="u", intents=1, count=1, first_seq=1, token_hash="h")
SAVED = ipc.SessionSaved(SHARD, SESSION, "1", "bot")


class Writes(MemoryStore):
    """A store that takes every write, or is away. `puts`: what was written last under each key."""

    is_away = False

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.puts: dict[str, bytes] = {}

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        if self.is_away:
            raise StoreUnavailable("no answer")
        self.puts |= {write.key: write.value for write in writes if isinstance(write, Put)}
        return TxnResult(succeeded=True, revision=1)


class Node:
    """The shards of node a, with two workers, in a cluster of which the test says what the node sees."""

    def __init__(self) -> None:
        self.store = Writes(asyncio.get_running_loop().time)
        self.workers = FakeWorker(), FakeWorker(index=1)
        state = NodeState("a", LogRing(), wall=lambda: 0.0, clock=lambda: 0.0)
        state.workers.slots.update(enumerate(self.workers))
        membership = Membership(self.store, KEYS, NODE, ttl_s=5, on_change=lambda: None)
        membership.lease = LEASE
        self._items: dict[str, KeyValue] = {}
        self._view = ClusterView(keys=KEYS)
        self.control = ShardControl(
            self.store,
            membership,
            state,
            view=lambda: self._view,
            connected=lambda: True,
            token_of=lambda app: app.token,
            stream_of=lambda app: (3600.0, 1 << 30, 1),
            api_url="https://discord.com/api/v10",
        )
        self._put(KEYS.node("a"), NODE.encode(), 1, LEASE)
        self._put(KEYS.app("bot"), APP.encode(), 2)
        self._put(KEYS.group("bot", 0), GroupRecord("bot", 0, 1, "0", term=LeaderTerm(1)).encode(), 3)
        budget = BudgetRecord(
            url="wss://gateway.discord.gg",
            shards=1,
            total=1000,
            remaining=1000,
            reset_at=1e9,
            max_concurrency=1,
            fetched_at=0.0,
            bot_id="1",
        )
        self._put(KEYS.budget("h"), budget.encode(), 3)

    def _put(self, key: str, value: bytes, revision: int, lease: int = 0) -> None:
        self._items[key] = KeyValue(key, value, revision, revision, 1, lease)

    def put_node(self, name: str) -> None:
        """Another node is in the cluster."""
        self._put(KEYS.node(name), msgspec.structs.replace(NODE, node=name).encode(), 6, 33)

    def put_app(self, **changes: Any) -> None:
        """The application was changed."""
        self._put(KEYS.app("bot"), msgspec.structs.replace(APP, **changes).encode(), 7)

    def put_next_group(self, phase: GroupPhase) -> None:
        """The next generation is in this phase, and its only shard is planned for node a."""
        record = GroupRecord("bot", 1, 1, "0", term=LeaderTerm(1), phase=phase, replaces=0)
        plan = PlanRecord(app="bot", group=1, term=LeaderTerm(1), nodes={"a": "0"})
        self._put(KEYS.group("bot", 1), record.encode(), 8)
        self._put(KEYS.plan("bot", 1), plan.encode(), 8)

    def drop_group(self) -> None:
        """The leader deleted the group."""
        self._items.pop(KEYS.group("bot", 0))

    async def sees(
        self,
        *,
        planned: str = "a",
        owner: str | None = "a",
        session: bool = True,
        state: ShardState = "claiming",
        revision: int = 50,
    ) -> None:
        """The node's view from now on: for which node the shard is planned, and who claims it."""
        plan = PlanRecord(app="bot", group=0, term=LeaderTerm(1), nodes={planned: "0"})
        self._put(KEYS.plan("bot", 0), plan.encode(), 4)
        self._items.pop(KEYS.claim(*SHARD), None)
        self._items.pop(KEYS.session(*SHARD), None)
        if owner is not None:
            claim = ClaimRecord("bot", 0, 0, node=owner, instance=f"{owner}1", worker=0, fence=FENCE, state=state)
            self._put(KEYS.claim(*SHARD), claim.encode(), FENCE, LEASE if owner == "a" else 22)
        if session:
            self._put(KEYS.session(*SHARD), SESSION.encode(), 5)
        before, view = self._view, ClusterView.from_items(KEYS, self._items, revision=revision)
        if before is not None:
            # What has not changed is the same object, as in a view that follows the store.
            parts = {name: getattr(before, name) for name in ("apps", "groups", "budgets", "nodes")}
            view = replace(view, **{name: part for name, part in parts.items() if part == getattr(view, name)})
        self._view = view
        self.control.changed()
        await asyncio.sleep(0.1)

    async def receives(self, *messages: ipc.ToAgent, worker: int = 0) -> None:
        """A worker sends messages."""
        for message in messages:
            self.control.on_message(self.workers[worker], message)
        await asyncio.sleep(0.1)

    @property
    def phase(self) -> str | None:
        """The phase in which the node believes the shard to be."""
        return self.control.local[SHARD].phase if SHARD in self.control.local else None

    def runs(self, worker: int = 0) -> list[int]:
        """The runs that a worker was asked to start."""
        return [each.run for each in self.workers[worker].sent if isinstance(each, ipc.StartShard)]

    def stops(self, worker: int = 0) -> list[str]:
        """Why a worker was asked to stop the shard, each time."""
        return [each.reason for each in self.workers[worker].sent if isinstance(each, ipc.StopShard)]


def with_node(scenario: Callable[[Node], Coroutine[None, None, None]]) -> None:
    async def work() -> None:
        node = Node()
        running = asyncio.create_task(node.control.run())
        await node.sees()
        assert (node.runs(), node.phase) == ([1], "running")
        await scenario(node)
        assert not running.done()
        running.cancel()

    run_virtual(work())


def test_a_session_that_is_saved_late_stops_no_next_run_of_its_shard() -> None:
    async def scenario(node: Node) -> None:
        node.store.is_away = True
        await node.sees(planned="b")
        assert node.phase == "stopping"
        await node.receives(SAVED, ipc.ShardStopped(SHARD, 1, "released"))
        await node.sees()
        await asyncio.sleep(SAVE_BUDGET_S)
        assert (node.runs(), node.phase) == ([1, 2], "running"), "the plan had changed back, under the same fence"
        node.store.is_away = False
        await asyncio.sleep(SAVE_BUDGET_S)
        assert (node.runs(), node.phase) == ([1, 2], "running")

    with_node(scenario)


def test_the_deadline_of_a_save_stops_no_next_run_of_its_shard() -> None:
    async def scenario(node: Node) -> None:
        node.store.is_away = True
        await node.sees(planned="b")
        await node.receives(SAVED, ipc.ShardStopped(SHARD, 1, "released"))
        await node.sees()
        node.store.is_away = False
        await asyncio.sleep(SAVE_BUDGET_S / 2)
        assert (node.runs(), node.phase) == ([1, 2], "running"), "the session was saved in time"
        await asyncio.sleep(SAVE_BUDGET_S)
        assert (node.runs(), node.phase) == ([1, 2], "running")

    with_node(scenario)


def test_a_fenced_run_that_is_settled_late_leaves_the_next_run_of_its_shard_known() -> None:
    async def scenario(node: Node) -> None:
        node.store.is_away = True
        await node.receives(SAVED, ipc.ShardStopped(SHARD, 1, "fenced", "by another", 30))
        await node.sees(owner="b")
        assert SHARD not in node.control.local
        await node.sees()
        node.store.is_away = False
        await asyncio.sleep(SAVE_BUDGET_S)
        assert (node.runs(), node.phase) == ([1, 2], "running")

    with_node(scenario)


def test_a_crashed_run_is_forgotten_without_the_next_run_of_its_shard() -> None:
    async def scenario(node: Node) -> None:
        await node.receives(ipc.ShardStopped(SHARD, 1, "crashed"))
        await node.sees(owner="b")
        await node.sees()
        assert node.runs() == [1, 2]
        await asyncio.sleep(SAVE_BUDGET_S)
        assert (node.runs(), node.phase) == ([1, 2], "running")

    with_node(scenario)


def test_a_run_that_the_node_does_not_know_is_stopped_and_its_state_is_not_taken_for_the_present_ones() -> None:
    async def scenario(node: Node) -> None:
        await node.receives(ipc.ShardChanged(SHARD, "live"))
        await node.receives(ipc.ShardChanged(SHARD, "connecting"), worker=1)
        assert (len(node.stops(1)), node.stops(0)) == (1, [])
        assert node.control.facts[SHARD].state == "live"

    with_node(scenario)


def test_a_shard_without_a_session_whose_claim_vanishes_starts_again_under_a_new_one() -> None:
    async def scenario(node: Node) -> None:
        await node.receives(ipc.SessionDropped(SHARD, "Discord ended it"), ipc.IdentifyWanted(SHARD))
        await node.sees(owner=None)
        assert len(node.stops()) == 1
        await node.receives(ipc.ShardStopped(SHARD, 1, "released"))
        assert SHARD not in node.control.local
        written = msgspec.json.decode(node.store.puts[KEYS.claim(*SHARD)], type=ClaimRecord)
        assert written.fence == 0, "the revision of this write is the fence"

    with_node(scenario)


def test_a_shard_that_has_sent_its_identify_keeps_its_fence_when_its_claim_vanishes() -> None:
    async def scenario(node: Node) -> None:
        await node.receives(ipc.SessionDropped(SHARD, "Discord ended it"), ipc.IdentifyWanted(SHARD))
        await node.receives(ipc.IdentifySent(SHARD))
        assert node.control.local[SHARD].has_session
        await node.sees(owner=None)
        assert (node.stops(), node.phase) == ([], "running")

    with_node(scenario)


class Turns(IdentifyLoop):
    """Notes which shards ask for their turn."""

    def __init__(self) -> None:
        self.asked: list[ShardId] = []

    def want(self, shard: ShardId, *, spare: bool = False) -> None:
        self.asked.append(shard)

    def withdraw(self, shard: ShardId) -> None:
        pass


def test_a_turn_is_asked_for_once_all_nodes_can_see_that_the_shard_waits_for_it() -> None:
    async def scenario(node: Node) -> None:
        turns = node.control.identifying = Turns()
        lost = ipc.SessionDropped(SHARD, "Discord ended it"), ipc.ShardChanged(SHARD, "identifying")
        await node.receives(*lost, ipc.IdentifyWanted(SHARD))
        assert msgspec.json.decode(node.store.puts[KEYS.claim(*SHARD)], type=ClaimRecord).state == "identifying"
        assert turns.asked == [], "written, and not in the view yet"
        await node.sees(state="identifying")
        assert turns.asked == [SHARD]
        await node.receives(ipc.IdentifyWanted(SHARD), ipc.IdentifyWithdrawn(SHARD))
        await node.sees(state="identifying")
        assert turns.asked == [SHARD], "withdrawn before it was asked for"

    with_node(scenario)


def test_a_node_of_many_writes_states_at_its_share_of_a_rate_and_at_once_when_a_shard_moves() -> None:
    async def scenario(node: Node) -> None:
        for number in range(PATIENT_PER_S):
            node.put_node(f"n{number}")

        def written() -> ShardState:
            return msgspec.json.decode(node.store.puts[KEYS.claim(*SHARD)], type=ClaimRecord).state

        await node.sees(state="claiming")
        await node.receives(ipc.ShardChanged(SHARD, "identifying"))
        assert written() == "identifying"
        await node.sees(state="identifying")
        await node.receives(ipc.ShardChanged(SHARD, "live"))
        assert written() == "identifying"
        await asyncio.sleep(1.0)
        assert written() == "live"
        await node.sees(planned="b", state="live")
        assert written() == "draining"

    with_node(scenario)


@pytest.mark.parametrize(("phase", "waits"), [("preparing", True), ("switching", False)])
def test_a_node_of_many_claims_shards_of_an_upcoming_group_at_that_rate_and_of_a_serving_one_at_once(
    phase: GroupPhase, waits: bool
) -> None:
    async def scenario(node: Node) -> None:
        for number in range(PATIENT_PER_S):
            node.put_node(f"n{number}")
        await node.sees(state="claiming")
        await node.receives(ipc.ShardChanged(SHARD, "identifying"))
        node.put_next_group(phase)
        await node.sees(state="identifying")
        claim = KEYS.claim("bot", 1, 0)
        assert (claim not in node.store.puts) is waits
        await asyncio.sleep(1.0)
        assert claim in node.store.puts

    with_node(scenario)


def test_a_session_that_a_restored_etcd_does_not_have_is_saved_again() -> None:
    async def scenario(node: Node) -> None:
        newer = msgspec.structs.replace(SESSION, session_id="newer")
        await node.receives(ipc.SessionSaved(SHARD, newer, "1", "bot"))
        node.store.puts.clear()
        for is_there in (True, False):
            await node.sees(state="live", session=is_there)
            await asyncio.sleep(LOOK_S)
            saved = node.store.puts.pop(KEYS.session(*SHARD))
            assert msgspec.json.decode(saved, type=SessionRecord) == newer

    with_node(scenario)


def test_running_shards_get_what_has_changed_and_only_that() -> None:
    async def scenario(node: Node) -> None:
        sent = node.workers[0].sent
        del sent[:]
        await node.sees(state="live")
        assert sent == []
        node.put_app(presence={"status": "idle"})
        await node.sees(state="live")
        assert [type(each) for each in sent] == [ipc.SetPresence]

    with_node(scenario)


def test_a_session_that_etcd_has_or_that_another_owner_saved_or_that_ended_is_left_alone() -> None:
    async def scenario(node: Node) -> None:
        await node.receives(SAVED)
        node.store.puts.clear()
        await node.sees(state="live")
        await asyncio.sleep(LOOK_S)
        await node.receives(ipc.SessionDropped(SHARD, "Discord ended it"))
        await node.sees(state="live", session=True)
        await asyncio.sleep(LOOK_S)
        await node.sees(owner="b", session=False)
        await asyncio.sleep(LOOK_S)
        assert KEYS.session(*SHARD) not in node.store.puts

    with_node(scenario)


def test_a_session_that_was_deleted_with_its_group_is_not_saved_again() -> None:
    async def scenario(node: Node) -> None:
        await node.receives(SAVED)
        await node.sees(state="live")
        node.store.puts.clear()
        node.drop_group()
        await node.sees(state="live", session=False)
        await asyncio.sleep(LOOK_S)
        assert KEYS.session(*SHARD) not in node.store.puts

    with_node(scenario)


@pytest.mark.parametrize("revision", [49, 50 + JUMP])
def test_after_a_restore_a_node_waits_before_it_claims_what_it_does_not_run(revision: int) -> None:
    async def scenario(node: Node) -> None:
        await node.receives(ipc.ShardStopped(SHARD, 1, "crashed"))
        await node.sees(owner="b")
        await asyncio.sleep(SAVE_BUDGET_S)
        assert SHARD not in node.control.local
        node.store.puts.clear()
        await node.sees(owner=None, revision=revision)
        await asyncio.sleep(RESTORED_WAIT_S / 2)
        assert KEYS.claim(*SHARD) not in node.store.puts
        await asyncio.sleep(RESTORED_WAIT_S)
        assert KEYS.claim(*SHARD) in node.store.puts

    with_node(scenario)


def test_a_shard_that_stopped_for_a_move_which_a_restored_etcd_does_not_know_resumes_its_own_session() -> None:
    async def scenario(node: Node) -> None:
        newer = msgspec.structs.replace(SESSION, session_id="newer")
        await node.receives(ipc.SessionSaved(SHARD, newer, "1", "bot"))
        await asyncio.sleep(SAVE_BUDGET_S)
        node.store.is_away = True
        await node.sees(planned="b")
        await node.receives(ipc.ShardStopped(SHARD, 1, "released"))
        await asyncio.sleep(SAVE_BUDGET_S)
        assert node.phase == "stopped"
        node.store.is_away = False
        await node.sees(session=True, revision=49)
        assert node.phase == "running"
        (_, again) = [each for each in node.workers[0].sent if isinstance(each, ipc.StartShard)]
        assert again.session == newer
        await asyncio.sleep(LOOK_S)
        assert msgspec.json.decode(node.store.puts[KEYS.session(*SHARD)], type=SessionRecord) == newer

    with_node(scenario)
