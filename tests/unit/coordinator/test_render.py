import pytest

from sandwich_coordinator.cli.render import app_rows, status_text
from sandwich_coordinator.durations import duration
from sandwich_coordinator.ids import LeaderTerm
from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.problems import degraded
from sandwich_coordinator.status import AppStatus, CacheStatus, NodeStatus
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupRecord,
    GroupState,
    LeaderRecord,
    NodeRecord,
)
from sandwich_coordinator.view import ClusterView

KEYS = Keys()
NODE = NodeRecord(node="n1", instance="i", address="10.0.0.1:5469", version="0.1.0")
LEADER = LeaderRecord(node="n1", instance="i")
APP = AppRecord(app="a", token="v1:x", token_hash="h", intents=1)
GROUP = GroupRecord(app="a", group=1, count=2, ids="0-1", term=LeaderTerm(1), state="degraded")
CLAIM = ClaimRecord(
    app="a", group=1, shard=0, node="n1", instance="i", worker=0, state="failed", reason="4004", close_code=4004
)
BUDGET = BudgetRecord(url="u", shards=2, total=1000, remaining=50, reset_at=7300.0, max_concurrency=1, fetched_at=0.0)
FULL = """\
cluster default: degraded

problems
  ! a: shard 0 failed (Discord closed with 4004: authentication failed): the token is wrong or was reset: \
store the application's current token; \
then run sandwich app set a --token-file FILE (or put it into its source and run sandwich cluster apply)
  ! a: shard 1 runs nowhere: they start when a node takes them
  ! node n1 does not answer (no connection): see that its address is reachable from here
  ! a: 50 of 1000 session starts left, reset in 2h 0m: avoid restarts that cannot resume until the reset

nodes
NODE  STATE  LEADER  SHARDS  EVENTS/S  WORKERS  VERSION  ADDRESS
n1    ready  yes     1       -         1        0.1.0    10.0.0.1:5469

applications
APP  STATE     SHARDS LIVE    GUILDS  EVENTS/S  CACHE  SESSION STARTS           PROBLEMS
a    degraded  0/2, 1 failed  0       0         -      50/1000, reset in 2h 0m  3"""


def test_problems_come_first_with_what_to_do() -> None:
    records = {
        KEYS.node("n1"): NODE, KEYS.leader: LEADER, KEYS.app("a"): APP, KEYS.group("a", 1): GROUP,
        KEYS.claim("a", 1, 0): CLAIM, KEYS.budget("h"): BUDGET,
    }  # fmt: skip
    items = {key: KeyValue(key, record.encode(), 1, 1, 1, 9) for key, record in records.items()}
    view = ClusterView.from_items(KEYS, items)
    answers = {"n1": "no connection"}
    assert status_text(Snapshot(cluster="default", view=view, configured=True, now=100.0, answers=answers)) == FULL


def test_an_empty_cluster_says_what_to_run() -> None:
    snapshot = Snapshot(cluster="default", view=ClusterView(keys=KEYS), configured=False, now=0.0)
    assert degraded(find_problems(snapshot))
    assert "no applications yet: run sandwich cluster apply -f cluster.yml" in status_text(snapshot)
    assert "no nodes: start one with sandwich-node join" in status_text(snapshot)


def test_durations_have_two_units_at_most() -> None:
    assert [duration(s) for s in (59, 720, 12_000, 352_800)] == ["59s", "12m", "3h 20m", "4d 2h"]


def cache_as_reported(*parts: CacheStatus | str, state: GroupState = "live") -> str:
    """What the status says of the cache of two shards, by what each node reports of it."""
    group = GroupRecord(app="a", group=1, count=2, ids="0-1", term=LeaderTerm(1), state=state)
    records = {KEYS.app("a"): APP, KEYS.group("a", 1): group}
    items = {key: KeyValue(key, record.encode(), 1, 1, 1, 9) for key, record in records.items()}
    answers: dict[str, NodeStatus | str] = {
        f"n{number}": part
        if isinstance(part, str)
        else NodeStatus(node=f"n{number}", instance="i", version="0", uptime_s=1.0, apps={"a": AppStatus(cache=part)})
        for number, part in enumerate(parts)
    }
    view = ClusterView.from_items(KEYS, items)
    (row,) = app_rows(Snapshot(cluster="default", view=view, configured=True, now=100.0, answers=answers))
    return str(row["cache"])


ONE = CacheStatus(shards=1)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((ONE, ONE), "complete"),
        ((CacheStatus(shards=2),), "complete"),
        ((ONE,), "not known of 1 of 2 shards"),
        ((ONE, "no connection"), "not known of 1 of 2 shards"),
        ((CacheStatus(shards=1, awaited=3),), "not known of 1 of 2 shards"),
        ((ONE, CacheStatus(shards=1, behind=1)), "1 of 2 shards behind"),
        ((ONE, CacheStatus(shards=1, behind=1, backlog=7)), "7 events behind"),
        ((ONE, CacheStatus(shards=1, behind=1, backlog=7, incomplete=1)), "1 of 2 shards incomplete"),
        ((ONE, CacheStatus(shards=1, awaited=3)), "3 guilds to come"),
        ((), "-"),
    ],
)
def test_a_cache_is_complete_only_where_every_shard_says_so(parts: tuple[CacheStatus | str, ...], says: str) -> None:
    assert cache_as_reported(*parts) == says


def test_shards_that_are_not_to_run_are_not_missed() -> None:
    assert cache_as_reported(ONE, state="failed") == "complete"
