"""What a change of the view means for a node: what its workers are sent, and what only the leader does."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.ids import GroupId, LeaderTerm
from sandwich_coordinator.problems import Code
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, CacheSpec, GroupPhase, GroupRecord, PlanRecord, RemovalRecord
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_node import ipc
from sandwich_node.agent.dependencies import Worker
from sandwich_node.agent.node_state import NodeState
from sandwich_node.agent.options import NodeOptions
from sandwich_node.agent.view_changes import ViewChanges
from sandwich_node.agent.worker_set import WorkerSet
from sandwich_node.agent.worker_settings import app_infos
from sandwich_node.log_lines import LogRing
from sandwich_node.nats_options import NatsOptions

BOT = GroupId("bot", 0)
EMPTY = ClusterView(keys=Keys())
ADDED = replace(
    EMPTY,
    apps={"bot": Entry(AppRecord(app="bot", token="t", token_hash="h", intents=1), 1, 1, 0)},
    groups={BOT: Entry(GroupRecord(app="bot", group=0, count=3, ids="0-2", term=LeaderTerm(1)), 1, 1, 0)},
)
GONE = replace(ADDED, apps={}, groups={}, revision=9)


@dataclass
class FakeWorker:
    """A slot that keeps what it is sent."""

    index: int = 0
    pid: int = 1
    ready: bool = True
    waiting: str = ""
    waiting_code: Code = Code.WORKER_NOT_READY
    alive: bool = True
    stats: ipc.WorkerStats = field(default_factory=lambda: ipc.WorkerStats(0, 0.0, []))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[ipc.ToWorker] = field(default_factory=list)

    def send(self, message: ipc.ToWorker) -> None:
        self.sent.append(message)

    async def run(self) -> None:
        self.ended.set()

    def stop(self) -> None:
        self.send(ipc.Shutdown())

    def cleaned(self) -> list[ipc.CleanGroupCache]:
        """The caches that it was asked to clean."""
        return [message for message in self.sent if isinstance(message, ipc.CleanGroupCache)]


def node(worker: FakeWorker, *, leads: bool, open_files: int = 1024) -> ViewChanges:
    state = NodeState("a", LogRing(), wall=lambda: 0.0, clock=lambda: 0.0)
    state.workers.slots[0] = worker
    options = NodeOptions(
        node="a", cluster="c", listen=Address("127.0.0.1", 1), workers=1, capacity=1, labels={}, open_files=open_files
    )
    return ViewChanges(options, state, leads=lambda: leads)


def test_the_leader_has_the_cache_of_a_removed_group_cleaned_under_a_fence_above_its_owners() -> None:
    worker = FakeWorker()
    changes = node(worker, leads=True)
    changes.note(None, ADDED)
    changes.note(ADDED, GONE)
    assert worker.cleaned() == [ipc.CleanGroupCache(app="bot", group=0, count=3, fence=9, cache=CacheSpec())]


def group(number: int, *, phase: GroupPhase = "active", replaces: int | None = None, count: int = 3) -> GroupRecord:
    ids = f"0-{count - 1}"
    return GroupRecord(
        app="bot", group=number, count=count, ids=ids, term=LeaderTerm(1), phase=phase, replaces=replaces
    )


def having(*groups: GroupRecord) -> ClusterView:
    return replace(ADDED, groups={GroupId("bot", each.group): Entry(each, 1, 1, 0) for each in groups}, revision=9)


def cleaned_for(before: ClusterView, after: ClusterView) -> list[tuple[int, ipc.NextGroup | None]]:
    worker = FakeWorker()
    changes = node(worker, leads=True)
    changes.note(None, before)
    changes.note(before, after)
    return [(message.group, message.next) for message in worker.cleaned()]


def test_the_guilds_of_a_removed_group_go_to_the_group_that_serves() -> None:
    switching = having(group(4, phase="closing"), group(5, phase="switching", replaces=4, count=8))
    after = ipc.NextGroup(group=5, count=8, ids="0-7", continues=True)
    assert cleaned_for(switching, having(group(5, count=8))) == [(4, after)]
    at_once = ipc.NextGroup(group=5, count=8, ids="0-7", continues=False)
    assert cleaned_for(having(group(4)), having(group(5, count=8))) == [(4, at_once)]
    # While another group is being prepared, and when an upcoming one is removed.
    both = having(group(5, count=8), group(6, phase="preparing", replaces=5))
    assert cleaned_for(having(group(4, phase="closing"), *records(both)), both) == [(4, at_once)]
    assert cleaned_for(both, having(group(5, count=8))) == [(6, None)]
    assert cleaned_for(switching, replace(switching, groups={}, apps={})) == [(4, None), (5, None)]


def records(view: ClusterView) -> list[GroupRecord]:
    return [entry.record for entry in view.groups.values()]


def test_requests_go_to_the_new_group_from_the_switch_on() -> None:
    phases: list[tuple[GroupPhase, GroupPhase, int]] = [
        ("active", "canary", 4),
        ("active", "preparing", 4),
        ("active", "holding", 4),
        ("closing", "switching", 5),
        ("closing", "active", 5),
    ]
    for old, new, serving in phases:
        view = having(group(4, phase=old), group(5, phase=new, replaces=4, count=8))
        info = app_infos(view)["bot"]
        assert (info.group, info.count) == (serving, {4: 3, 5: 8}[serving]), new
    without = app_infos(replace(ADDED, groups={}))["bot"]
    assert (without.group, without.count) == (0, 0)


def test_the_cache_of_an_application_that_is_being_removed_is_cleaned_when_that_is_asked_for_and_again() -> None:
    worker = FakeWorker()
    changes = node(worker, leads=True)
    spec = CacheSpec(namespace="shared")

    def removing(view: ClusterView, clean: int, revision: int) -> ClusterView:
        record = RemovalRecord(at=1.0, cache=spec, groups={0: 3, 2: 5}, clean=clean)
        return replace(view, removals={"bot": Entry(record, 1, revision, 0)}, revision=revision)

    views = [ADDED, removing(ADDED, 0, 4), removing(GONE, 0, 5), removing(GONE, 1, 6), removing(GONE, 2, 7), GONE]
    changes.note(None, views[0])
    found = []
    for before, after in itertools.pairwise(views):
        changes.note(before, after)
        found.append(len(worker.cleaned()))
    assert found == [0, 0, 2, 4, 4]
    assert worker.cleaned()[:2] == [
        ipc.CleanGroupCache(app="bot", group=0, count=3, fence=6, cache=spec),
        ipc.CleanGroupCache(app="bot", group=2, count=5, fence=6, cache=spec),
    ]


def test_a_removal_that_keeps_the_cache_keeps_it_also_when_its_last_steps_are_seen_as_one() -> None:
    """Its group goes, and then its record: a busy node has both in one batch of etcd's changes."""
    worker = FakeWorker()
    changes = node(worker, leads=True)
    record = RemovalRecord(at=1.0, cache=CacheSpec(), keep_cache=True, groups={0: 3})
    removing = replace(ADDED, removals={"bot": Entry(record, 1, 4, 0)}, revision=4)
    steps = [ADDED, removing, replace(removing, apps={}, revision=5), replace(GONE, revision=6)]
    changes.note(None, steps[0])
    for before, after in itertools.pairwise(steps):
        changes.note(before, after)
    assert worker.cleaned() == []


def test_a_node_that_does_not_lead_cleans_no_cache() -> None:
    worker = FakeWorker()
    changes = node(worker, leads=False)
    changes.note(None, ADDED)
    changes.note(ADDED, GONE)
    assert worker.cleaned() == []


def test_workers_are_sent_the_applications_only_when_these_change() -> None:
    worker = FakeWorker()
    changes = node(worker, leads=False)
    changes.note(None, ADDED)
    changes.note(ADDED, replace(ADDED, revision=5))
    assert worker.sent == [ipc.AppsChanged(app_infos(ADDED))]


def test_a_plan_with_more_shards_than_files_is_a_problem_until_it_shrinks() -> None:
    changes = node(FakeWorker(), leads=False, open_files=1)
    plan = PlanRecord(app="bot", group=0, term=LeaderTerm(1), nodes={"a": "0-2"})
    planned = replace(ADDED, plans={BOT: Entry(plan, 2, 2, 0)})
    changes.note(ADDED, planned)
    assert changes.too_few_files is not None
    assert "3 shards" in changes.too_few_files.text
    changes.note(planned, ADDED)
    assert changes.too_few_files is None


def test_a_worker_that_starts_later_is_sent_the_lease_and_the_applications() -> None:
    workers = WorkerSet()
    made: list[Callable[[Worker], None]] = []

    def make(
        settings: ipc.WorkerSettings,
        *,
        on_message: Callable[[Worker, ipc.ToAgent], None],
        on_started: Callable[[Worker], None],
        on_gone: Callable[[Worker], None],
    ) -> FakeWorker:
        made.append(on_started)
        return FakeWorker(settings.worker)

    workers.share_lease(7)
    workers.share_apps(ADDED)
    started: list[bool] = []
    workers.fill(
        make,
        ipc.WorkerSettings(worker=0, node="a", nats=NatsOptions(servers=()), api_url=""),
        1,
        on_message=lambda worker, message: None,
        on_started=lambda: started.append(True),
        on_gone=lambda worker: None,
    )
    worker = FakeWorker()
    made[0](worker)
    assert worker.sent == [ipc.LeaseHeld(7), ipc.AppsChanged(app_infos(ADDED))]
    assert started == [True]
