"""What becomes of two looks at the cluster."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.operations.snapshot import Snapshot, compose
from sandwich_coordinator.problems import Code, Problem, app_of_subject, problem
from sandwich_coordinator.status import FailoverStatus, LossStatus, NodeStatus
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, ClaimRecord, GroupRecord, LeaderRecord, NodeRecord, Record
from sandwich_coordinator.view import ClusterView
from sandwich_coordinator.webhooks.facts import (
    GONE_KEPT_S,
    KNOWN_MAX,
    PROBLEMS_MAX,
    Notice,
    Seen,
    carried,
    notices,
    observe,
    wanted,
)
from sandwich_coordinator.webhooks.records import NOTICE_KINDS, Facts, KnownProblem, WebhookRecord, WebhookStateRecord

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


def picture(
    records: dict[str, Record], answers: dict[str, NodeStatus | str] | None = None, now: float = NOW
) -> Snapshot:
    items = {key: KeyValue(key, record.encode(), 1, 1, 1, lease=7) for key, record in records.items()}
    view = ClusterView.from_items(KEYS, items)
    return compose(view, answers or {}, etcd_version="", etcd_found=(), now=now)


def seen(
    records: dict[str, Record],
    problems: Sequence[Problem] = (),
    answers: dict[str, NodeStatus | str] | None = None,
    now: float = NOW,
) -> Seen:
    return observe(picture(records, answers, now), problems)


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


def without(*shards: int) -> dict[str, Record]:
    """Without the claims of these shards, as when their node is gone."""
    gone = {KEYS.claim("x", 0, shard) for shard in shards}
    return {key: record for key, record in RUNNING.items() if key not in gone}


def test_shards_that_run_nowhere_are_not_live() -> None:
    assert said(seen(RUNNING), seen(without(1, 2))) == [("shards", "happened", "warning", "x: shards 1-2 are not live")]
    resuming = RUNNING | {KEYS.claim("x", 0, 2): claim("x", 2, "resuming")}
    assert said(seen(resuming), seen(without(2))) == []
    assert said(seen(without(0, 1, 2, 3)), seen(RUNNING)) == [
        ("shards", "happened", "warning", "x: all its shards are live again")
    ]


def test_shards_are_counted_for_the_application_whose_they_are() -> None:
    two = without(3) | {
        KEYS.app("y"): app("y"),
        KEYS.group("y", 0): group("y"),
        **{KEYS.claim("y", 0, shard): claim("y", shard) for shard in (1, 2, 3)},
        KEYS.group("z", 0): group("z", "paused"),
    }
    assert seen(two).facts.not_live == {"x": "3", "y": "0"}


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


TWO: dict[str, Record] = RUNNING | {KEYS.node("b"): node("b")}
SILENT = "no answer"


def status(name: str, *problems: Problem) -> NodeStatus:
    return NodeStatus(node=name, instance="i", version="1", uptime_s=1, problems=problems)


def found_in(records: dict[str, Record], a: NodeStatus | str, b: NodeStatus | str) -> Seen:
    """What follows from what two nodes answer."""
    snapshot = picture(records, {"a": a, "b": b})
    return observe(snapshot, find_problems(snapshot))


REDIS = problem(Code.REDIS_UNREACHABLE, "redis", "Redis is not reached")


def of_redis(before: Facts, after: Seen) -> list[str]:
    return [each.state for each in notices(before, after) if each.subject == "redis"]


def test_a_problem_is_not_over_because_the_node_that_reports_it_misses_an_answer() -> None:
    began = found_in(TWO, status("a"), status("b", REDIS))
    silent = found_in(TWO, status("a"), SILENT)
    assert of_redis(began.facts, silent) == []
    kept = carried(carried(began.facts, silent), silent)
    assert of_redis(kept, began) == []
    assert of_redis(kept, found_in(TWO, status("a"), status("b"))) == ["ended"]
    # Its lease has run out.
    assert of_redis(kept, found_in(RUNNING, status("a"), SILENT)) == ["ended"]


def test_the_last_word_of_every_node_that_reports_a_problem_counts() -> None:
    both = found_in(TWO, status("a", REDIS), status("b", REDIS))
    one_silent = found_in(TWO, status("a", REDIS), SILENT)
    assert of_redis(carried(both.facts, one_silent), found_in(TWO, status("a"), SILENT)) == []
    one_well = carried(both.facts, found_in(TWO, status("a"), SILENT))
    # What a said last is that it is over.
    assert of_redis(one_well, found_in(TWO, SILENT, status("b"))) == ["ended"]
    never = found_in(TWO, status("a", REDIS), status("b"))
    assert of_redis(never.facts, found_in(TWO, status("a"), SILENT)) == ["ended"]


def test_a_problem_of_several_nodes_with_different_words_is_one_until_none_has_it() -> None:
    some = [
        msgspec.structs.replace(problem(Code.SHARDS_WAITING, f"app/x/shards/{number}", "wait"), nodes=(name,))
        for number, name in enumerate("ab")
    ]
    began = seen(TWO, some, {"a": status("a"), "b": status("b")})
    assert notices(began.facts, seen(TWO, [], {"a": status("a"), "b": SILENT})) == []


@pytest.mark.parametrize("code", [Code.SETTINGS_OUTDATED, Code.CLOCK_DIFFERS])
def test_what_a_nodes_own_answer_shows_is_not_over_while_it_does_not_answer(code: Code) -> None:
    own = problem(code, "node/b", "seen in what b answers")
    began = seen(TWO, [own], {"a": status("a"), "b": status("b")})
    silent = seen(TWO, [], {"a": status("a"), "b": SILENT})
    assert said(began, silent) == []
    assert [each.state for each in notices(carried(began.facts, silent), seen(TWO, [], {"b": status("b")}))] == [
        "ended"
    ]


def test_what_happened_once_is_not_new_after_an_answer_that_is_missing() -> None:
    remade = msgspec.structs.replace(problem(Code.STREAM_REMADE, "app/x", "the stream was made again"), nodes=("b",))
    began = seen(TWO, [remade], {"b": status("b")})
    kept = carried(began.facts, seen(TWO, [], {"b": SILENT}))
    assert notices(kept, began) == []


def many(count: int, code: Code = Code.APP_PAUSED) -> list[Problem]:
    return [problem(code, f"app/x{number}", "s") for number in range(count)]


def test_problems_of_one_name_take_one_place() -> None:
    shards = [problem(Code.SHARDS_NOT_LIVE, f"app/x/shards/{number}", "not live") for number in range(0, 1000, 2)]
    facts = seen(RUNNING, [*shards, problem(Code.APP_PAUSED, "app/y", "y is paused")]).facts
    assert facts.problems.keys() == {"shards-not-live:app/x", "app-paused:app/y"}


def test_a_problem_is_not_over_because_there_are_many_worse_ones() -> None:
    before = seen(RUNNING, many(30))
    crowd = many(PROBLEMS_MAX, Code.REDIS_FULL)
    after = seen(RUNNING, [*crowd, *many(29)])
    found = notices(before.facts, after)
    assert [each.state for each in found].count("began") == PROBLEMS_MAX
    assert [each.subject for each in found if each.state == "ended"] == ["app/x29"]
    again = notices(carried(before.facts, after), seen(RUNNING, many(29)))
    assert {(each.state, each.severity) for each in again} == {("ended", "critical")}
    assert len(again) == PROBLEMS_MAX


def test_of_problems_that_are_known_the_worst_are_kept() -> None:
    facts = seen(RUNNING, [problem(Code.REDIS_FULL, "redis", "full"), *many(150)]).facts
    mild = {f"app-paused:app/old{number}": KnownProblem(severity="notice", summary="s") for number in range(5000)}
    before = msgspec.structs.replace(facts, problems=mild | facts.problems)
    standing = [problem(Code.APP_PAUSED, name.partition(":")[2], "s") for name in mild]
    crowd = many(PROBLEMS_MAX, Code.NATS_OLD)
    after = seen(RUNNING, [*crowd, problem(Code.REDIS_FULL, "redis", "full"), *many(150), *standing])
    kept = carried(before, after).problems
    assert len(kept) == KNOWN_MAX
    assert kept.keys() >= {"redis-full:redis", *(f"nats-old:app/x{number}" for number in range(PROBLEMS_MAX))}


def test_the_application_of_a_subject() -> None:
    subjects = ["app/x", "app/x/shards/0-3", "cluster", "node/app", "application/x"]
    assert [app_of_subject(subject) for subject in subjects] == ["x", "x", "", "", ""]


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


def of_b(*losses: float, failovers: Sequence[float] = ()) -> dict[str, NodeStatus | str]:
    """What b has, by its times, and a nothing."""
    lost = [
        LossStatus(at=at, app="x", group=0, shard=1, node="b", session="s", last_seq=7, reason="too old")
        for at in losses
    ]
    moved = [msgspec.structs.replace(failover(2, at), node="b", source="a") for at in failovers]
    return {"a": status("a"), "b": msgspec.structs.replace(status("b"), losses=lost, failovers=moved)}


def times(before: Facts, after: Seen) -> list[tuple[str, float]]:
    return [(each.kind, each.at - NOW) for each in notices(before, after) if each.kind in ("failovers", "losses")]


def test_a_new_webhook_reports_nothing_old_of_a_node_that_answers_only_later() -> None:
    first = seen(TWO, answers={"a": status("a"), "b": SILENT})
    late = seen(TWO, answers=of_b(NOW - 500, NOW + 3, failovers=[NOW - 900]), now=NOW + 10)
    assert times(first.facts, late) == [("losses", 3)]
    # However long that takes.
    kept = first.facts
    for hour in range(1, 4):
        kept = carried(kept, seen(TWO, answers={"a": status("a"), "b": SILENT}, now=NOW + hour * 3600))
    assert times(kept, seen(TWO, answers=of_b(NOW - 500, NOW + 3), now=NOW + 15_000)) == [("losses", 3)]


def test_a_node_with_another_clock_that_answers_from_the_start_has_all_that_is_new_reported() -> None:
    first = seen(TWO, answers=of_b())
    assert times(first.facts, seen(TWO, answers=of_b(NOW - 30), now=NOW + 2)) == [("losses", -30)]


@pytest.mark.parametrize("away_s", [1.0, 2 * GONE_KEPT_S])
def test_a_node_that_was_away_has_nothing_old_reported_when_it_is_back(away_s: float) -> None:
    old = [NOW - 9000, NOW - 8000]
    made = seen(TWO, answers=of_b(), now=NOW - 20_000)
    known = carried(made.facts, seen(TWO, answers=of_b(*old, failovers=old)))
    away = carried(known, seen(RUNNING, answers={"a": status("a")}, now=NOW + away_s))
    assert "b" not in away.losses
    back = of_b(*old, NOW + away_s, failovers=old)
    assert times(away, seen(TWO, answers=back, now=NOW + away_s + 5)) == [("losses", away_s)]


def test_what_happened_has_its_own_time_however_late_it_is_sent() -> None:
    first = seen(TWO, answers=of_b())
    late = seen(TWO, answers=of_b(NOW + 10, failovers=[NOW + 20, NOW + 25]), now=NOW + 2400)
    assert times(first.facts, late) == [("losses", 10), ("failovers", 25)]
    joined = seen(RUNNING, now=NOW)
    assert [each.at for each in notices(joined.facts, seen(TWO, now=NOW + 2400))] == [NOW + 2400]


def test_what_an_older_version_kept_is_still_read() -> None:
    raw = (
        b'{"of":3,"missed":1,"facts":{"leader":"a","nodes":["a"],"apps":{"x":"running"},"groups":{"x":"live"},'
        b'"problems":{"redis-full:redis":{"severity":"critical","summary":"Redis is full"}},'
        b'"failovers":{"a":10.0}}}'
    )
    facts = msgspec.json.decode(raw, type=WebhookStateRecord).facts
    assert (facts.at, facts.problems["redis-full:redis"].nodes) == (0.0, ())
    after = seen(RUNNING, answers=answering([failover(0, 10.0), failover(1, 11.0)]))
    assert [(each.kind, each.state) for each in notices(facts, after)] == [
        ("problems", "ended"),
        ("failovers", "happened"),
    ]
    assert notices(carried(facts, after), after) == []


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
