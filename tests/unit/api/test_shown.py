"""What the API shows follows from the view, the snapshot and who asks: without a store, a node or a request."""

from dataclasses import replace

import msgspec
import pytest

from sandwich_coordinator.access.roles import Identity, Role
from sandwich_coordinator.ids import GroupId, LeaderTerm, ShardId
from sandwich_coordinator.operations.dead_letters import LetterContent, StoredLetter
from sandwich_coordinator.operations.errors import NotFound, Refused
from sandwich_coordinator.operations.rows import app_rows
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.problems import Code, problem
from sandwich_coordinator.status import (
    AppStatus,
    ConsumerStatus,
    FailoverStatus,
    LossStatus,
    NodeStatus,
    ShardStatus,
    WorkerStatus,
)
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupRecord,
    NodeRecord,
    PinRecord,
    ProposalRecord,
    ShardState,
)
from sandwich_coordinator.view import BadEntry, ClusterView, Entry
from sandwich_coordinator.webhooks.records import Facts, WebhookRecord, WebhookStateRecord
from sandwich_node.api.models import PageQuery
from sandwich_node.api.shown.apps import app_shown, apps_page, check_readable
from sandwich_node.api.shown.consumers import consumers_page, content_shown
from sandwich_node.api.shown.groups import groups_of
from sandwich_node.api.shown.nodes import node_shown
from sandwich_node.api.shown.overview import (
    ProblemQuery,
    RecentQuery,
    budgets_page,
    cluster_figures,
    problems_page,
    recent_page,
)
from sandwich_node.api.shown.shards import ShardQuery, find_shard, pins_page, shard_details, shards_page
from sandwich_node.api.shown.webhooks import audited, find_webhook, webhook_of
from sandwich_sdk.wire.dead import DeadLetter

SEALED = "sealed:MTIz.G.x"
NOW = 1_800_000_000.0
ALL = Identity("token", "ci", Role.VIEWER)
OF_RADIO = replace(ALL, apps=frozenset({"radio"}))
PAGE = PageQuery()
TERM = LeaderTerm(1)


def claim(app: str, shard: int, *, group: int = 1, node: str = "a", state: ShardState = "live") -> Entry[ClaimRecord]:
    record = ClaimRecord(app, group, shard, node, "i", 0, since=NOW - 50.0, reason="as stored", state=state)
    return Entry(record, 9, 9, 5)


VIEW = replace(
    ClusterView(keys=Keys()),
    revision=70,
    nodes={
        "a": Entry(NodeRecord("a", "i", "10.0.0.1:5469", "1.2.0", capacity=200, started_at=NOW - 900.0), 2, 3, 5),
        "b": Entry(NodeRecord("b", "j", "10.0.0.2:5469", "1.1.0", state="draining"), 4, 8, 6),
    },
    apps={
        "music": Entry(AppRecord(app="music", token="t", token_hash="hm", intents=1), 10, 11, 0),
        "radio": Entry(AppRecord(app="radio", token=SEALED, token_hash="hr", intents=513), 12, 13, 0),
    },
    groups={
        GroupId("music", 1): Entry(GroupRecord("music", 1, 2, "0-1", term=TERM), 14, 14, 0),
        GroupId("radio", 0): Entry(GroupRecord("radio", 0, 1, "0", term=TERM), 15, 15, 0),
    },
    budgets={
        "hm": Entry(
            BudgetRecord(
                url="wss://g",
                shards=2,
                total=1000,
                remaining=900,
                reset_at=NOW + 60.0,
                max_concurrency=1,
                fetched_at=NOW,
                bot_id="11",
                bot_name="Music",
            ),
            16,
            16,
            0,
        )
    },
    claims={
        ShardId("music", 1, 0): claim("music", 0),
        ShardId("music", 1, 1): claim("music", 1, node="b"),
        ShardId("music", 0, 5): claim("music", 5, group=0, state="draining"),
    },
    pins={ShardId("music", 1, 1): Entry(PinRecord("b", NOW), 17, 17, 0)},
)
FAILOVER = FailoverStatus(
    at=NOW - 10.0, app="music", group=1, shard=0, source="b", node="a", cause="moved", how="resumed", took_s=0.5
)
LOSS = LossStatus(at=NOW - 20.0, app="radio", group=0, shard=0, node="a", session="s", last_seq=4, reason="gone")
OF_A = NodeStatus(
    node="a",
    instance="i",
    version="1.2.0",
    uptime_s=900.0,
    leader=True,
    workers=[WorkerStatus(id=0, pid=1, rss_bytes=100, cpu_percent=20.0), WorkerStatus(id=1, pid=2, rss_bytes=50)],
    apps={"music": AppStatus(guilds=30, events_per_s=2.04), "radio": AppStatus(guilds=5, events_per_s=1.0)},
    shards=[
        ShardStatus(
            app="music", group=1, shard=0, worker=0, state="resuming", since=NOW - 1.0, guilds=30, latency_ms=40.0
        ),
        ShardStatus(app="radio", group=0, shard=0, worker=0, state="live", latency_ms=90.0),
    ],
    failovers=[FAILOVER],
    losses=[LOSS],
)
SNAPSHOT = Snapshot(
    cluster="default",
    view=VIEW,
    configured=True,
    now=NOW,
    answers={"a": OF_A, "b": "does not answer"},
    etcd_version="3.5.21",
)
PROBLEMS = [
    problem(Code.NODE_UNREACHABLE, "node/b", "node b does not answer"),
    problem(Code.APP_PAUSED, "app/music", "music is paused"),
]


# --- the cluster ----------------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_applications_that_the_identity_sees() -> None:
    rows = app_rows(SNAPSHOT, PROBLEMS)
    whole, limited = (cluster_figures(SNAPSHOT, PROBLEMS, rows, identity) for identity in (ALL, OF_RADIO))
    assert (whole.guilds, whole.events_per_s, whole.apps, whole.nodes, whole.nodes_answering) == (35, 3.0, 2, 2, 1)
    assert (whole.versions, whole.etcd_version, whole.revision, whole.now) == (["1.1.0", "1.2.0"], "3.5.21", 70, NOW)
    assert whole.latency is not None
    assert (whole.latency.median_ms, whole.latency.worst_ms, whole.latency.app) == (90.0, 90.0, "radio")
    assert (limited.guilds, limited.events_per_s, limited.apps) == (5, 1.0, 1)
    assert (limited.nodes, limited.versions) == (None, [])
    assert sum(limited.problems.values()) == 0


def test_the_latency_is_the_median_and_the_worst_of_the_shards_that_have_one() -> None:
    shards = [
        ShardStatus(app="music", group=1, shard=number, worker=0, state=state, latency_ms=latency_ms)
        for number, (state, latency_ms) in enumerate([("live", 90.0), ("live", 20.0), ("live", 50.0), ("queued", None)])
    ]
    answer = msgspec.structs.replace(OF_A, shards=shards)
    snapshot = replace(SNAPSHOT, answers={"a": answer})
    found = cluster_figures(snapshot, PROBLEMS, app_rows(snapshot, PROBLEMS), ALL).latency
    assert found is not None
    assert (found.median_ms, found.worst_ms, found.app) == (50.0, 90.0, "music")


def test_problems_are_filtered_by_what_they_are_about() -> None:
    def codes(identity: Identity = ALL, **query: str) -> list[str]:
        found = problems_page(PROBLEMS[::-1], ProblemQuery.model_validate(query), identity)
        return [one.code for one in found.items]

    assert codes() == ["node-unreachable", "app-paused"], "the worst first"
    assert codes(app="music") == ["app-paused"]
    assert codes(node="b") == ["node-unreachable"]
    assert codes(severity=PROBLEMS[1].severity.value) == ["app-paused"]
    assert codes(OF_RADIO) == []


def test_a_budget_is_shown_once_with_the_applications_of_its_bot() -> None:
    twin = Entry(AppRecord(app="jingles", token="t", token_hash="hm", intents=1), 20, 20, 0)
    view = replace(VIEW, apps={**VIEW.apps, "jingles": twin})
    snapshot = replace(SNAPSHOT, view=view, policy=Policy())
    (budget,) = budgets_page(snapshot, PAGE, ALL).items
    assert (budget.apps, budget.bot_name, budget.remaining) == (["jingles", "music"], "Music", 900)
    assert budgets_page(snapshot, PAGE, OF_RADIO).items == []


def test_failovers_and_losses_are_one_list_newest_first() -> None:
    answers: list[NodeStatus | str] = [OF_A, "does not answer"]
    first = recent_page(answers, RecentQuery(limit=1), ALL)
    assert (len(first.failovers), first.losses) == (1, [])
    assert first.next is not None
    rest = recent_page(answers, RecentQuery(limit=1, after=first.next), ALL)
    assert (rest.failovers, [one.reason for one in rest.losses], rest.next) == ([], ["gone"], None)
    assert recent_page(answers, RecentQuery(kind="losses", app="music"), ALL).losses == []
    assert recent_page(answers, RecentQuery(), OF_RADIO).failovers == []


# --- shards and groups ----------------------------------------------------------------------------------------------


def test_a_shard_is_as_its_node_says_else_as_its_claim_says_else_unclaimed() -> None:
    view = replace(VIEW, claims={key: entry for key, entry in VIEW.claims.items() if key.shard != 5})
    found = shards_page(replace(SNAPSHOT, view=view), None, ShardQuery(), ALL).items
    assert [(one.app, one.shard, one.state, one.node) for one in found] == [
        ("music", 0, "resuming", "a"),
        ("music", 1, "live", "b"),
        ("radio", 0, "unclaimed", None),
    ]
    first, second, third = found
    assert (first.since, first.guilds, first.pinned_to) == (NOW - 1.0, 30, None)
    assert (second.since, second.guilds, second.reason, second.pinned_to) == (NOW - 50.0, None, "as stored", "b")
    assert (third.since, third.worker) == (None, None)


def test_a_shard_that_still_closes_is_shown_after_its_group_is_gone() -> None:
    found = shards_page(SNAPSHOT, "music", ShardQuery(group=0), ALL).items
    assert [(one.shard, one.state, one.serves) for one in found] == [(5, "draining", False)]


@pytest.mark.parametrize(
    ("query", "shards"),
    [(ShardQuery(node="b"), [1]), (ShardQuery(state="resuming"), [0]), (ShardQuery(node="b", state="resuming"), [])],
)
def test_shards_are_filtered_by_node_and_state(query: ShardQuery, shards: list[int]) -> None:
    assert [one.shard for one in shards_page(SNAPSHOT, "music", query, ALL).items] == shards


@pytest.mark.parametrize("number", ["2", "-1", "²", "x" * 40, "1000000000"])
def test_a_shard_that_is_not_there_is_answered_with_those_that_are(number: str) -> None:
    with pytest.raises(NotFound, match="group 1; it has 0-1"):
        find_shard(VIEW, "music", number, None, ALL)


def test_the_history_of_a_shard_is_its_own() -> None:
    assert find_shard(VIEW, "music", "5", 0, ALL) == ShardId("music", 0, 5)
    shard = find_shard(VIEW, "music", "0", None, ALL)
    later = FailoverStatus(**{name: getattr(FAILOVER, name) for name in FAILOVER.__struct_fields__} | {"at": NOW})
    of_b = NodeStatus(node="b", instance="j", version="1.1.0", uptime_s=1.0, failovers=[later], losses=[LOSS])
    found = shard_details(replace(SNAPSHOT, answers={"a": OF_A, "b": of_b}), shard)
    assert [one.at for one in found.failovers] == [NOW, NOW - 10.0]
    assert (found.losses, found.shard.state) == ([], "resuming")


def test_pins_are_those_of_the_applications_that_the_identity_sees() -> None:
    assert [(one.shard, one.node) for one in pins_page(VIEW, None, PAGE, ALL).items] == [(1, "b")]
    assert pins_page(VIEW, None, PAGE, OF_RADIO).items == []


def test_of_two_groups_the_one_whose_events_consumers_get_serves() -> None:
    upcoming = GroupRecord("music", 2, 4, "0-3", term=TERM, phase="preparing", replaces=1, created_at=NOW)
    view = replace(
        VIEW,
        groups={**VIEW.groups, GroupId("music", 2): Entry(upcoming, 30, 30, 0)},
        claims={**VIEW.claims, ShardId("music", 2, 3): claim("music", 3, group=2, state="identifying")},
        proposals={"music": Entry(ProposalRecord(count=8, reason="it grows", guilds=9, at=NOW), 31, 31, 0)},
    )
    found = groups_of(view, "music", Policy(), NOW)
    assert [(one.group, one.serves, one.shards) for one in found.groups] == [
        (1, True, {"live": 2}),
        (2, False, {"identifying": 1}),
    ]
    assert found.change is not None
    assert (found.change.from_group, found.change.to_group, found.change.phase) == (1, 2, "preparing")
    assert found.proposal is not None
    assert found.proposal.count == 8
    assert groups_of(view, "radio", Policy(), NOW).change is None


# --- applications, nodes --------------------------------------------------------------------------------------------


def test_an_application_is_shown_with_its_configuration_and_no_token() -> None:
    found = app_shown(VIEW, "radio", app_rows(SNAPSHOT, PROBLEMS))
    assert VIEW.apps["radio"].record.token == SEALED
    assert SEALED not in found.model_dump_json()
    assert (found.revision, found.group, found.bot_id) == (13, 0, "")
    assert found.configuration["intents"] == ["GUILDS", "GUILD_MESSAGES"]
    assert "intents" not in found.defaults
    assert "large_threshold" in found.defaults
    assert app_shown(VIEW, "music", app_rows(SNAPSHOT, PROBLEMS)).bot_name == "Music"
    assert [one.app for one in apps_page(app_rows(SNAPSHOT, PROBLEMS), PAGE, OF_RADIO).items] == ["radio"]


def test_an_application_that_cannot_be_read_is_not_one_that_is_not_there() -> None:
    check_readable(VIEW, "radio")
    with pytest.raises(NotFound):
        check_readable(VIEW, "nope")
    damaged = replace(VIEW, bad={VIEW.keys.app("nope"): BadEntry("not JSON", 9, 0)})
    with pytest.raises(Refused, match="damaged"):
        check_readable(damaged, "nope")


def test_a_node_that_does_not_answer_is_shown_with_what_it_registered() -> None:
    silent, answering = node_shown(SNAPSHOT, "b"), node_shown(SNAPSHOT, "a")
    assert (silent.answers, silent.error, silent.state, silent.guilds) == (False, "does not answer", "draining", 0)
    assert (answering.answers, answering.capacity, answering.revision) == (True, 200, 3)
    assert (answering.guilds, answering.rss_bytes, answering.cpu_percent) == (35, 150, 20.0)


# --- consumers and webhooks -----------------------------------------------------------------------------------------


def test_consumer_groups_are_those_that_the_leader_read() -> None:
    of_a = NodeStatus(
        node="a",
        instance="i",
        version="1",
        uptime_s=1.0,
        leader=True,
        consumers=[ConsumerStatus(app=app, group="web", lag=3) for app in ("radio", "music")],
        dead_letters={"music": 2},
    )
    other = NodeStatus(
        node="b", instance="j", version="1", uptime_s=1.0, consumers=[ConsumerStatus(app="music", group="old", lag=9)]
    )
    first = consumers_page([other, of_a, "does not answer"], None, PageQuery(limit=2), ALL)
    assert (first.dead_letters, [one.app for one in first.consumers]) == ({"music": 2}, ["music"])
    assert first.next is not None
    rest = consumers_page([other, of_a], None, PageQuery(limit=2, after=first.next), ALL)
    assert ([(one.app, one.group) for one in rest.consumers], rest.next) == ([("radio", "web")], None)
    assert consumers_page([of_a], "music", PAGE, OF_RADIO).consumers == []


def test_a_letter_that_is_no_event_is_shown_as_it_is() -> None:
    letter = DeadLetter(
        group="web", kind="corrupt", id="", type="", tries=3, error="x", at=NOW, subject="s", stream_seq=4
    )
    stored = StoredLetter(app="music", number=9, seqs=(8, 9), letter=letter)
    found = content_shown(stored, LetterContent(stored=stored, headers={"A": "b"}, payload=b"\x00\xff"))
    assert (found.payload, found.headers, found.event) == ("AP8=", {"A": "b"}, None)
    assert (found.letter.number, found.letter.shard_group, found.letter.tries) == (9, None, 3)


def test_a_webhook_is_shown_without_its_url_and_secret() -> None:
    record = WebhookRecord(
        name="alerts", type="discord", sealed="SEALED", host="discord.com", last4="oken", events=("problems",)
    )
    state = WebhookStateRecord(of=40, facts=Facts(), missed=2, error="404")
    view = replace(
        VIEW, webhooks={"alerts": Entry(record, 40, 41, 0)}, webhook_states={"alerts": Entry(state, 42, 42, 0)}
    )
    found = webhook_of(view, "alerts")
    assert (found.ends_in, found.missed, found.error, found.revision) == ("oken", 2, "404", 41)
    assert "SEALED" not in found.model_dump_json() + str(audited(find_webhook(view, "alerts").record))
    with pytest.raises(NotFound):
        webhook_of(view, "nope")
