"""What the status finds wrong: each of these clusters once read `healthy`."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.cli.render import app_rows, nodes_text, status_text, to_json
from sandwich_coordinator.config import ClusterSettings, DiscordSettings, NatsSettings, PolicySettings, RedisSettings
from sandwich_coordinator.fingerprints import LEASE_TTL, fingerprints
from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.health import NOT_LIVE_AFTER_S, find_problems
from sandwich_coordinator.operations.rows import departed_rows
from sandwich_coordinator.operations.snapshot import Snapshot, misdirected
from sandwich_coordinator.problems import KINDS, Code, Problem, degraded
from sandwich_coordinator.reachability import is_local
from sandwich_coordinator.status import ConsumerStatus, NodeStatus
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    DepartedRecord,
    GroupRecord,
    LeaderRecord,
    NodeRecord,
    ProposalRecord,
    Record,
    RemovalRecord,
    ShardsSpec,
)
from sandwich_coordinator.view import ClusterView

KEYS = Keys()
NOW = 10_000.0
SETTINGS = ClusterSettings(nats=NatsSettings(servers=["nats://n:4222"]), redis=RedisSettings(url="redis://r"))


def registered(name: str, address: str = "", host: str = "h1") -> NodeRecord:
    where = address or f"{name}.example:5469"
    return NodeRecord(node=name, instance=name, address=where, version="1", labels={"host": f"{host}/boot/ns"})


def answer(name: str, **fields: Any) -> NodeStatus:
    return NodeStatus(node=name, instance=name, version="1", uptime_s=1.0, **fields)


def claim(shard: int, **fields: Any) -> ClaimRecord:
    fields = {"state": "live", "since": NOW - 900, **fields}
    return ClaimRecord(app="bot", group=1, shard=shard, node="a", instance="a", worker=0, **fields)


def records() -> dict[str, Record]:
    """Two nodes on two hosts, one application with two live shards."""
    budget = BudgetRecord(
        url="u", shards=2, total=1000, remaining=900, reset_at=NOW + 100, max_concurrency=1, fetched_at=NOW
    )
    return {
        KEYS.node("a"): registered("a"),
        KEYS.node("b"): registered("b", host="h2"),
        KEYS.leader: LeaderRecord(node="a", instance="a"),
        KEYS.app("bot"): AppRecord(app="bot", token="t", token_hash="h", intents=1),
        KEYS.group("bot", 1): GroupRecord(app="bot", group=1, count=2, ids="0-1", term=LeaderTerm(1), state="live"),
        KEYS.claim("bot", 1, 0): claim(0),
        KEYS.claim("bot", 1, 1): claim(1),
        KEYS.budget("h"): budget,
    }


def cluster(changes: dict[str, Record | None] | None = None, **fields: Any) -> Snapshot:
    """A healthy cluster with these changes."""
    found = {key: record for key, record in (records() | (changes or {})).items() if record is not None}
    items = {key: KeyValue(key, record.encode(), 1, 1, 1, 9) for key, record in found.items()}
    view = ClusterView.from_items(KEYS, items)
    given: dict[str, Any] = {
        "answers": {name: answer(name) for name in view.nodes},
        "settings": fingerprints(SETTINGS),
        **fields,
    }
    return Snapshot(cluster="default", view=view, configured=True, now=NOW, **given)


def only(snapshot: Snapshot) -> Problem:
    (found,) = find_problems(snapshot)
    assert degraded([found])
    assert "degraded" in status_text(snapshot)
    return found


def test_a_healthy_cluster_has_no_problem() -> None:
    assert find_problems(cluster()) == []
    assert "healthy" in status_text(cluster())
    assert to_json(cluster())["healthy"] is True


def test_a_node_that_answers_at_the_address_of_another_is_a_mismatch_and_counts_once() -> None:
    answers: dict[str, NodeStatus | str] = {"a": answer("a"), "b": answer("a")}
    assert misdirected(answers) == {"b": "a"}
    found = only(cluster(answers=answers | {"b": "node a answers there"}, misdirected=misdirected(answers)))
    assert (found.code, found.subject) == (Code.NODE_MISDIRECTED, "node/b")
    assert "node b advertises b.example:5469, and node a answers there" in found.summary


def test_a_loopback_address_is_a_problem_only_where_nodes_are_on_several_hosts() -> None:
    local = registered("a", "127.0.0.1:5469")
    found = only(cluster({KEYS.node("a"): local}))
    assert (found.code, found.subject) == (Code.NODE_ADDRESS_LOCAL, "node/a")
    assert find_problems(cluster({KEYS.node("a"): local, KEYS.node("b"): registered("b", "127.0.0.1:5470")})) == []


def test_a_clock_that_differs_is_named_and_so_is_that_of_the_machine_that_asks() -> None:
    def clocks(**at: float | None) -> Snapshot:
        return cluster(answers={name: answer(name, at=clock) for name, clock in at.items()})

    found = only(clocks(a=NOW, b=NOW - 3600))
    assert (found.code, found.subject) == (Code.CLOCK_DIFFERS, "node/b")
    assert found.summary == "the clock of node b is 1h 0m behind that of the machine that asks"
    found = only(clocks(a=NOW - 3600, b=NOW - 3590))
    assert (found.code, found.subject) == (Code.CLOCK_DIFFERS, "cluster")
    assert found.summary == "the clock of the machine that asks is 59m ahead of those of all nodes"
    assert only(clocks(a=NOW + 90, b=None)).summary.startswith("the clock of node a is 1m ahead of that of")
    assert find_problems(clocks(a=NOW - 20, b=NOW + 20)) == []


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:5469", True), ("127.8.0.1:1", True), ("[::1]:5469", True), ("0.0.0.0:5469", True),
        ("localhost:5469", True), ("http://127.0.0.1:1", True), ("[::]:1", True), ("10.0.0.1:5469", False),
        ("node-a:5469", False), ("[2001:db8::1]:5469", False), ("https://a.example", False), ("", False), ("[", False),
    ],
)  # fmt: skip
def test_addresses_that_mean_the_own_host_are_known(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_a_node_that_was_killed_is_shown_as_gone_with_when_and_one_that_left_is_not() -> None:
    killed = DepartedRecord(node="c", at=NOW - 120)
    snapshot = cluster({KEYS.departed_node("c"): killed})
    found = only(snapshot)
    assert (found.code, found.subject, found.since) == (Code.NODE_GONE, "node/c", NOW - 120)
    assert "node c is gone without having left (2m ago)" in status_text(snapshot)
    assert "sandwich node forget c" in found.advice
    assert [row.split()[:2] for row in nodes_text(snapshot).splitlines()][-1] == ["c", "gone"]
    left = cluster({KEYS.departed_node("c"): msgspec.structs.replace(killed, left=True)})
    assert find_problems(left) == []
    assert departed_rows(left) == [{"node": "c", "at": NOW - 120, "left": True}]
    back = cluster({KEYS.departed_node("a"): msgspec.structs.replace(killed, node="a")})
    assert find_problems(back) == []


def test_without_a_node_an_application_does_not_read_live() -> None:
    gone = dict.fromkeys([KEYS.node("a"), KEYS.node("b"), KEYS.leader])
    lost = dict.fromkeys([KEYS.claim("bot", 1, shard) for shard in range(2)])
    snapshot = cluster(gone | lost)
    codes = {found.code for found in find_problems(snapshot)}
    assert codes == {Code.NO_NODES, Code.APP_DOWN, Code.SHARDS_UNCLAIMED}
    assert [row["state"] for row in app_rows(snapshot)] == ["down"]


def test_shards_that_are_not_live_for_a_minute_are_a_problem() -> None:
    late = claim(1, state="connecting", since=NOW - NOT_LIVE_AFTER_S)
    found = only(cluster({KEYS.claim("bot", 1, 1): late}))
    assert (found.code, found.subject) == (Code.SHARDS_NOT_LIVE, "app/bot/shards/1")
    assert (found.summary, found.since) == ("bot: shard 1 is not live but connecting", NOW - NOT_LIVE_AFTER_S)
    assert find_problems(cluster({KEYS.claim("bot", 1, 1): msgspec.structs.replace(late, since=NOW - 59)})) == []


def test_a_proposed_count_that_waits_to_be_accepted_is_a_problem() -> None:
    proposal = ProposalRecord(count=8, reason="Discord recommends 8 shards", at=NOW - 60)
    found = only(cluster({KEYS.proposal("bot"): proposal}))
    assert (found.code, found.since) == (Code.SHARD_COUNT_PENDING, NOW - 60)
    assert found.summary == "bot: 8 shards are proposed, and 2 run (Discord recommends 8 shards)"
    assert found.advice == "sandwich app scale bot --accept"
    runs = msgspec.structs.replace(proposal, count=2)
    assert find_problems(cluster({KEYS.proposal("bot"): runs})) == []


def test_settings_that_a_running_node_has_not_taken_are_named() -> None:
    newer = msgspec.structs.replace(SETTINGS, redis=RedisSettings(url="redis://other"))
    answers = {"a": answer("a", settings=fingerprints(SETTINGS)), "b": answer("b")}
    snapshot = cluster(answers=answers, settings=fingerprints(newer))
    found = only(snapshot)
    assert (found.code, found.subject) == (Code.SETTINGS_OUTDATED, "node/a")
    assert "older settings of redis than" in found.summary
    assert found.advice == KINDS[Code.SETTINGS_OUTDATED].advice
    assert find_problems(replace(snapshot, settings=fingerprints(SETTINGS))) == []


@pytest.mark.parametrize(
    "change",
    [{"discord": DiscordSettings(api_url="http://other")}, {"policy": PolicySettings(lease_ttl_s=9.0)}],
    ids=["discord", "policy.lease_ttl"],
)
def test_settings_that_only_a_restart_takes_have_that_advice(change: dict[str, Any]) -> None:
    answers = {"a": answer("a", settings=fingerprints(SETTINGS))}
    found = only(cluster(answers=answers, settings=fingerprints(msgspec.structs.replace(SETTINGS, **change))))
    assert found.advice == "restart the node; its sessions are kept"
    assert f"older settings of {next(iter(change))}" in found.summary


def test_a_node_that_reports_no_fingerprint_of_the_lease_is_of_an_older_version() -> None:
    older = {name: value for name, value in fingerprints(SETTINGS).items() if name != LEASE_TTL}
    assert find_problems(cluster(answers={"a": answer("a", settings=older)})) == []


def test_a_fingerprint_changes_with_a_sealed_password_and_shows_nothing_of_a_plain_one() -> None:
    def of(password: str) -> str:
        nats = msgspec.structs.replace(SETTINGS.nats, password=password)
        return fingerprints(msgspec.structs.replace(SETTINGS, nats=nats))["nats"]

    assert of("v1:0123456789abcdef:x") != of("v1:0123456789abcdef:y")
    assert of("plain:secret") == of("plain:other")


def test_a_failed_shard_has_the_advice_of_its_close_code_and_an_unknown_one_its_reason() -> None:
    refused = claim(0, state="failed", reason="4014: ...", close_code=4014)
    found = only(cluster({KEYS.claim("bot", 1, 0): refused}))
    assert (found.code, found.subject, found.since) == (Code.SHARDS_FAILED, "app/bot/shards/0", NOW - 900)
    assert "a privileged intent is not enabled" in found.advice
    assert "sandwich shard restart bot 0" in found.advice
    older = only(cluster({KEYS.claim("bot", 1, 0): claim(0, state="failed", reason="4004 token refused")}))
    assert "(4004 token refused)" in older.summary
    assert "correct what the reason names; then run sandwich shard restart bot 0" in older.advice


def test_a_refused_token_and_a_group_that_cannot_start_have_codes_of_their_own() -> None:
    failed = msgspec.structs.replace(records()[KEYS.group("bot", 1)], state="failed", reason="a count of 0")
    assert only(cluster({KEYS.group("bot", 1): failed})).code is Code.APP_INVALID
    refused = msgspec.structs.replace(records()[KEYS.budget("h")], error="Discord refused the token (401)")
    found = only(cluster({KEYS.group("bot", 1): failed, KEYS.budget("h"): refused}))
    assert (found.code, found.summary) == (Code.TOKEN_REFUSED, "bot: Discord refused the token (401)")


def test_consumer_groups_are_shown_once_as_the_leader_reports_them() -> None:
    groups = [ConsumerStatus(app="bot", group="greeter", lag=12)]
    snapshot = cluster(answers={"a": answer("a", leader=True, consumers=groups), "b": answer("b")})
    assert to_json(snapshot)["consumers"] == [{"app": "bot", "group": "greeter", "lag_frames": 12}]
    assert "greeter" in status_text(snapshot)


def test_what_an_operator_paused_is_a_notice_and_a_removal_that_does_not_end_is_a_warning() -> None:
    paused = msgspec.structs.replace(records()[KEYS.app("bot")], paused=True, paused_at=NOW - 300)
    (found,) = find_problems(snapshot := cluster({KEYS.app("bot"): paused}))
    assert (found.code, found.subject, found.since) == (Code.APP_PAUSED, "app/bot", NOW - 300)
    assert found.advice == "sandwich app resume bot starts it again"
    assert to_json(snapshot)["healthy"] is True
    (row,) = app_rows(snapshot)
    assert (row["state"], row["paused_at"], row["problems"]) == ("paused", NOW - 300, {"notice": 1})
    assert "paused for 5m" in status_text(snapshot)

    gone: dict[str, Record | None]
    gone = {KEYS.app("bot"): paused, KEYS.removal("bot"): RemovalRecord(at=NOW - 59)}
    assert find_problems(cluster(gone)) == []
    assert [row["state"] for row in app_rows(cluster(gone))] == ["removing"]
    late = only(cluster(gone | {KEYS.removal("bot"): RemovalRecord(at=NOW - 60)}))
    assert (late.code, late.subject) == (Code.REMOVAL_UNFINISHED, "app/bot")
    assert late.advice == "run sandwich app remove bot again: it goes on"


def test_a_shard_count_that_discord_refuses_has_the_recommended_one_in_its_advice() -> None:
    small = claim(1, state="failed", reason="4011: ...", close_code=4011)
    budget = msgspec.structs.replace(records()[KEYS.budget("h")], shards=12)
    fixed = msgspec.structs.replace(records()[KEYS.app("bot")], shards=ShardsSpec(count=2))
    found = only(cluster({KEYS.claim("bot", 1, 1): small, KEYS.budget("h"): budget, KEYS.app("bot"): fixed}))
    assert found.advice.endswith("; then run sandwich app scale bot --shards 12")
