"""What becomes of two looks at the cluster."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.snapshot import Snapshot, compose
from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.status import FailoverStatus, LossStatus, NodeStatus
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, ClaimRecord, GroupRecord, LeaderRecord, NodeRecord, Record
from sandwich_coordinator.view import ClusterView
from sandwich_coordinator.webhooks.facts import GONE_KEPT_S, Notice, Seen, carried, notices, observe, wanted
from sandwich_coordinator.webhooks.records import NOTICE_KINDS, Facts, WebhookRecord

KEYS = Keys("c")
NOW = 1_800_000_000.0


def app(name: str, **more: Any) -> AppRecord:
    return AppRecord(app=name, token="", token_hash="h", intents=1, **more)


def group(name: str, state: str = "live") -> GroupRecord:
    return GroupRecord(app=name, group=0, count=4, ids="0-3", term=LeaderTerm(1), state=state)  # type: ignore[arg-type]


def claim(name: str, shard: int, state: str = "live") -> ClaimRecord:
    return ClaimRecord(app=name, group=0, shard=shard, node="a", instance="i", worker=0, state=state)  # type: ignore[arg-type]


def node(name: str) -> NodeRecord:
    return NodeRecord(node=name, instance="i", address="h:1", version="1")


def seen(
    records: dict[str, Record], problems: Sequence[Problem] = (), answers: dict[str, NodeStatus | str] | None = None
) -> Seen:
    items = {key: KeyValue(key, record.encode(), 1, 1, 1, lease=7) for key, record in records.items()}
    view = ClusterView.from_items(KEYS, items)
    snapshot: Snapshot = compose(view, answers or {}, etcd_version="", etcd_found=(), now=NOW)
    return observe(snapshot, problems)


def said(before: Seen, after: Seen) -> list[tuple[str, str, str, str]]:
    return [(each.kind, each.state, each.severity, each.summary) for each in notices(before.facts, after)]


RUNNING: dict[str, Record] = {
    KEYS.leader: LeaderRecord(node="a", instance="i"),
    KEYS.node("a"): node("a"),
    KEYS.app("x"): app("x"),
    KEYS.group("x", 0): group("x"),
    **{KEYS.claim("x", 0, shard): claim("x", shard) for shard in range(4)},
}


def test_nothing_new_is_nothing_to_say() -> None:
    assert said(seen(RUNNING), seen(RUNNING)) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({KEYS.leader: LeaderRecord(node="b", instance="i")}, [("leader", "notice", "node b leads now, after a")]),
        ({KEYS.node("b"): node("b")}, [("nodes", "notice", "node b has joined")]),
        ({KEYS.app("y"): app("y")}, [("apps", "notice", "y was added")]),
        ({KEYS.app("x"): app("x", paused=True)}, [("apps", "notice", "x was paused")]),
        ({KEYS.group("x", 0): group("x", "degraded")}, [("apps", "warning", "x is degraded now; it was live")]),
        ({KEYS.group("x", 0): group("x", "failed")}, [("apps", "critical", "x is failed now; it was live")]),
        ({KEYS.claim("x", 0, 2): claim("x", 2, "resuming")}, [("shards", "warning", "x: shards 2 are not live")]),
    ],
)
def test_each_change_is_a_notice(changes: dict[str, Record], expected: list[tuple[str, str, str]]) -> None:
    found = [(kind, severity, text) for kind, _, severity, text in said(seen(RUNNING), seen(RUNNING | changes))]
    assert found == expected


def test_what_is_over_is_said_with_the_severity_that_it_had() -> None:
    bad = RUNNING | {KEYS.group("x", 0): group("x", "failed"), KEYS.claim("x", 0, 2): claim("x", 2, "failed")}
    assert said(seen(bad), seen(RUNNING)) == [
        ("apps", "happened", "critical", "x is live now; it was failed"),
        ("shards", "happened", "warning", "x: all its shards are live again"),
    ]


def test_a_problem_begins_and_ends_and_is_one_while_its_shards_change() -> None:
    some = problem(Code.SHARDS_NOT_LIVE, "app/x/shards/0-3", "x: shards 0-3 are not live")
    fewer = problem(Code.SHARDS_NOT_LIVE, "app/x/shards/2", "x: shards 2 are not live")
    began = said(seen(RUNNING), seen(RUNNING, [some]))
    assert began == [("problems", "began", "warning", "x: shards 0-3 are not live")]
    assert said(seen(RUNNING, [some]), seen(RUNNING, [fewer])) == []
    assert said(seen(RUNNING, [fewer]), seen(RUNNING)) == [("problems", "ended", "warning", fewer.summary)]


def test_a_problem_that_gets_worse_begins_again() -> None:
    mild = problem(Code.CONSUMER_BEHIND, "app/x", "x: behind")
    worse = msgspec.structs.replace(mild, severity=type(mild.severity).CRITICAL)
    assert said(seen(RUNNING, [mild]), seen(RUNNING, [worse])) == [("problems", "began", "critical", "x: behind")]
    assert said(seen(RUNNING, [worse]), seen(RUNNING, [mild])) == []


def test_problems_of_budgets_and_nodes_have_their_own_kind_and_momentary_ones_do_not_end() -> None:
    found = [
        problem(Code.SESSION_STARTS_LOW, "app/x", "x: 3 left"),
        problem(Code.NODE_UNREACHABLE, "node/b", "node b does not answer"),
        problem(Code.STREAM_REMADE, "app/x", "the stream was made again"),
    ]
    after = said(seen(RUNNING), seen(RUNNING, found))
    assert {(kind, state) for kind, state, _, _ in after} == {
        ("budget", "began"),
        ("nodes", "began"),
        ("problems", "happened"),
    }
    assert {kind for kind, *_ in said(seen(RUNNING, found), seen(RUNNING))} == {"budget", "nodes"}


def test_a_node_that_is_lost_is_reported_once() -> None:
    two = RUNNING | {KEYS.node("b"): node("b")}
    assert said(seen(two), seen(RUNNING)) == [("nodes", "happened", "notice", "node b is not there any more")]
    gone = problem(Code.NODE_GONE, "node/b", "node b is gone without having left")
    assert said(seen(two), seen(RUNNING, [gone])) == [("nodes", "happened", "warning", gone.summary)]


def answering(
    failovers: Sequence[FailoverStatus] = (), losses: Sequence[LossStatus] = ()
) -> dict[str, NodeStatus | str]:
    status = NodeStatus(node="a", instance="i", version="1", uptime_s=1, failovers=list(failovers), losses=list(losses))
    return {"a": status}


def failover(shard: int, at: float) -> FailoverStatus:
    return FailoverStatus(
        at=at, app="x", group=0, shard=shard, source="b", node="a", cause="node gone", how="resumed", took_s=2.5
    )


def test_failovers_and_losses_are_reported_once_and_together() -> None:
    loss = LossStatus(at=12.0, app="x", group=0, shard=3, node="a", session="s", last_seq=9, reason="too old")
    before = seen(RUNNING, answers=answering([failover(0, 10.0)]))
    after = seen(RUNNING, answers=answering([failover(0, 10.0), failover(1, 11.0), failover(2, 12.0)], [loss]))
    assert said(before, after) == [
        ("losses", "happened", "warning", "x: events of shard 3 after 9 are lost (too old)"),
        ("failovers", "happened", "notice", "x: shards 1-2 went from b to a (node gone, resumed, 2.5 s at most)"),
    ]
    silent = seen(RUNNING, answers={"a": "no answer"})
    kept = carried(after.facts, silent)
    assert notices(kept, after) == []
    assert notices(carried(kept, after), after) == []


def test_what_nodes_reported_that_are_gone_for_long_is_not_kept() -> None:
    before = Facts(failovers={"a": 1.0, "gone": 1.0, "just-gone": NOW - 1})
    assert GONE_KEPT_S > 1
    assert carried(before, seen(RUNNING)).failovers == {"a": 1.0, "just-gone": NOW - 1}


def hook(**more: Any) -> WebhookRecord:
    return WebhookRecord(**{"name": "h", "type": "generic", "events": NOTICE_KINDS, **more})


def notice(**more: Any) -> Notice:
    fields = {"kind": "apps", "state": "happened", "severity": "warning", "at": NOW, "summary": "s", **more}
    return Notice(**fields)


@pytest.mark.parametrize(
    ("of", "is_wanted"),
    [
        (hook(), True),
        (hook(events=("leader",)), False),
        (hook(min_severity="critical"), False),
        (hook(min_severity="warning"), True),
        (hook(apps=("x",)), True),
        (hook(apps=("y",)), False),
    ],
)
def test_a_webhook_gets_what_it_wants(of: WebhookRecord, is_wanted: bool) -> None:
    assert wanted([notice(app="x")], of) == ([notice(app="x")] if is_wanted else [])


def test_a_webhook_does_not_report_its_own_failure_and_one_of_applications_nothing_of_the_cluster() -> None:
    assert wanted([notice(subject="webhook/h"), notice(subject="webhook/other")], hook()) == [
        notice(subject="webhook/other")
    ]
    assert wanted([notice(subject="cluster")], hook(apps=("x",))) == []


def test_facts_are_small_and_survive_etcd() -> None:
    facts = seen(RUNNING, [problem(Code.APP_PAUSED, "app/x", "x is paused")]).facts
    assert msgspec.json.decode(msgspec.json.encode(facts), type=Facts) == facts
    many = [problem(Code.APP_PAUSED, f"app/x{number}", "s") for number in range(1000)]
    assert len(seen(RUNNING, many).facts.problems) == 200
