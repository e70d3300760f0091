"""What a node writes of its shards: states that lasted, under its own claims; sessions that a backup did not have."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.assignment import LocalNode, LocalShard, ShardConfig, Start
from sandwich_coordinator.ids import Fence, GroupId, LeaderTerm, ShardId
from sandwich_coordinator.store.base import Compare, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import ClaimRecord, GroupRecord, SessionRecord
from sandwich_coordinator.view import ClusterView, Entry
from sandwich_node.agent.batched_writes import GuardedWrite
from sandwich_node.agent.shard_records import PASSING_S, missing_sessions, newest_session, state_writes
from sandwich_node.agent.status import ShardFacts

SHARD = ShardId("bot", 0, 3)
NOW = 1_800_000_000.0
OWN = LocalNode(node="a", instance="a1", lease=5, connected=True, loads={0: 1})
CLAIM = ClaimRecord("bot", 0, 3, "a", "a1", 0)
CONFIG = ShardConfig("h", intents=1, count=4, compression="zstd-stream", large_threshold=50)
LOCAL = {SHARD: LocalShard(0, Fence(40), CONFIG)}
LIVE = ShardFacts(0, "live", "", NOW - 3.0)
SESSION = SessionRecord(session_id="s", resume_url="u", intents=1, count=4, first_seq=1, token_hash="h")


def view(claim: ClaimRecord | None = CLAIM, *, revision: int = 60, session: SessionRecord | None = None) -> ClusterView:
    return replace(
        ClusterView(keys=Keys()),
        revision=revision,
        groups={GroupId("bot", 0): Entry(GroupRecord("bot", 0, 4, "0-3", term=LeaderTerm(1)), 2, 2, 0)},
        claims={} if claim is None else {SHARD: Entry(claim, 40, 40, 5)},
        sessions={} if session is None else {SHARD: Entry(session, 50, 50, 0)},
    )


def writes(seen: ClusterView, facts: ShardFacts = LIVE, **more: Any) -> tuple[dict[ShardId, GuardedWrite], bool]:
    given: dict[str, Any] = {"rereads": (), "written": (), "now": NOW} | more
    own, local = given.pop("own", OWN), given.pop("local", LOCAL)
    return state_writes(seen, own, local, {SHARD: facts}, **given)


def test_a_state_is_written_under_the_claim_that_the_shard_runs_under() -> None:
    found, awaited = writes(view())
    assert not awaited
    (guard,), (put,) = found[SHARD].compares, found[SHARD].writes
    assert guard == Compare(Keys().claim(*SHARD), "mod_revision", 40)
    assert isinstance(put, Put)
    wanted = msgspec.structs.replace(CLAIM, state="live", since=NOW - 3.0, fence=Fence(40))
    assert (msgspec.json.decode(put.value, type=ClaimRecord), put.lease) == (wanted, 5)


@pytest.mark.parametrize(
    ("seen", "more"),
    [
        (view(None), {}),
        (view(msgspec.structs.replace(CLAIM, state="live")), {}),
        (view(msgspec.structs.replace(CLAIM, instance="a0")), {}),
        (view(msgspec.structs.replace(CLAIM, fence=Fence(39))), {}),
        (view(), {"own": replace(OWN, lease=None)}),
        (view(), {"written": {SHARD}}),
        (view(), {"local": {}}),
        (view(), {"facts": ShardFacts(0, "ready-to-go", "", NOW)}),
    ],
    ids=["no claim", "known", "of an earlier start", "another fence", "no lease", "on its way", "not here", "no state"],
)
def test_nothing_is_written_that_is_known_or_of_another_owner(seen: ClusterView, more: dict[str, Any]) -> None:
    assert writes(seen, **more) == ({}, False)


@pytest.mark.parametrize("state", ["connecting", "resuming"])
def test_a_passing_state_is_written_when_it_lasts(state: str) -> None:
    facts = ShardFacts(0, state, "", NOW)
    assert writes(view(), facts, now=NOW + PASSING_S / 2) == ({}, True)
    assert set(writes(view(), facts, now=NOW + PASSING_S)[0]) == {SHARD}
    assert set(writes(view(), facts, now=NOW - 1.0)[0]) == {SHARD}, "the clock was set back"


def test_a_live_shard_that_waits_for_a_second_session_says_so_in_its_claim() -> None:
    live = view(msgspec.structs.replace(CLAIM, state="live"))
    (put,) = writes(live, rereads={SHARD})[0][SHARD].writes
    assert isinstance(put, Put)
    assert msgspec.json.decode(put.value, type=ClaimRecord).rereads


def missing(seen: ClusterView, *, local: Any = LOCAL, saved_at: int = 55, busy: bool = False) -> list[ShardId]:
    known, saving = {SHARD: SESSION}, {SHARD} if busy else set()
    return [shard for shard, _ in missing_sessions(seen, OWN, local, known, saved_at={SHARD: saved_at}, busy=saving)]


def test_a_session_that_etcd_does_not_have_any_more_is_saved_again() -> None:
    other = msgspec.structs.replace(SESSION, session_id="before")
    assert missing(view()) == missing(view(session=other)) == [SHARD]
    assert missing(view(session=SESSION)) == []
    assert missing(view(revision=54)) == [], "the view does not have the write yet"
    assert missing(view(), busy=True) == []
    assert missing(view(None)) == []
    assert missing(view(msgspec.structs.replace(CLAIM, instance="a0"))) == []
    assert missing(replace(view(), groups={})) == [], "it goes with its group"
    assert missing(view(), local={SHARD: replace(LOCAL[SHARD], phase="stopping")}) == []


@pytest.mark.parametrize(
    ("stored", "fence", "known", "resumed"),
    [
        ({}, 40, {"session_id": "newer", "first_seq": 7}, "newer"),
        ({}, 41, {"session_id": "newer"}, "s"),
        ({}, 40, None, "s"),
        ({"intents": 3}, 40, {"session_id": "newer"}, "s"),
        ({"token_hash": "other"}, 40, {"session_id": "newer"}, "s"),
        (None, 40, {"session_id": "newer"}, None),
    ],
)
def test_a_shard_that_starts_again_under_its_claim_resumes_the_session_that_it_had_here(
    stored: dict[str, Any] | None, fence: int, known: dict[str, Any] | None, resumed: str | None
) -> None:
    """It stopped for a move that etcd never received, and etcd was restored from before the session began."""
    in_etcd = None if stored is None else msgspec.structs.replace(SESSION, **stored)
    here = None if known is None else msgspec.structs.replace(SESSION, **known)
    found = newest_session(Start(SHARD, 0, Fence(fence), CONFIG, in_etcd), LOCAL[SHARD], here)
    assert (found.session_id if found is not None else None) == resumed
