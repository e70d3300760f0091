"""What `sandwich --api` reads is the same cluster, and has no secret."""

import pytest

from sandwich_coordinator.cli.paint import Paint
from sandwich_coordinator.cli.render import status_text, to_json
from sandwich_coordinator.operations.snapshot import compose
from sandwich_coordinator.operations.snapshot_json import decode_snapshot, encode_snapshot
from sandwich_coordinator.problems import Code, problem
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import KeyValue
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import (
    AppRecord,
    BudgetRecord,
    ClaimRecord,
    GroupRecord,
    LeaderRecord,
    NodeRecord,
    PlanRecord,
    Record,
    SessionRecord,
)
from sandwich_coordinator.view import ClusterView
from sandwich_coordinator.webhooks.records import Facts, KnownProblem, WebhookRecord, WebhookStateRecord

KEYS = Keys("prod")
SECRETS = ("v1:sealed-app", "v1:sealed-group", "session-7c", "wss://resume.example", "v1:sealed-url", "7fQx")
HIDDEN = ("hooks.example", "Hello {summary}", "said earlier")
"""Of webhooks: what only an admin sees."""
RECORDS: dict[str, tuple[Record, int]] = {
    KEYS.node("a"): (NodeRecord(node="a", instance="i", address="10.0.0.1:5469", version="1"), 7),
    KEYS.leader: (LeaderRecord(node="a", instance="i"), 7),
    KEYS.app("w"): (AppRecord(app="w", token=SECRETS[0], token_hash="ab12", intents=1), 0),
    KEYS.group("w", 1): (
        GroupRecord(app="w", group=1, count=2, ids="", term=5, state="live", token=SECRETS[1], token_hash="ab12"),  # type: ignore[arg-type]
        0,
    ),
    KEYS.plan("w", 1): (PlanRecord(app="w", group=1, term=5, nodes={"a": "0-1"}), 0),  # type: ignore[arg-type]
    KEYS.claim("w", 1, 0): (
        ClaimRecord(app="w", group=1, shard=0, node="a", instance="i", worker=0, state="live"),
        7,
    ),
    KEYS.session("w", 1, 0): (
        SessionRecord(
            session_id=SECRETS[2], resume_url=SECRETS[3], intents=1, count=2, first_seq=1, token_hash="ab12", guilds=9
        ),
        0,
    ),
    KEYS.webhook("alerts"): (
        WebhookRecord(
            name="alerts",
            type="generic",
            sealed=SECRETS[4],
            host=HIDDEN[0],
            last4=SECRETS[5],
            events=("problems",),
            template=HIDDEN[1],
        ),
        0,
    ),
    KEYS.webhook_state("alerts"): (
        WebhookStateRecord(
            of=1,
            facts=Facts(problems={"x": KnownProblem(severity="warning", summary=HIDDEN[2])}),
            failing_since=1.0,
            error="no answer in time",
        ),
        0,
    ),
    KEYS.budget("ab12"): (
        BudgetRecord(url="wss://x", shards=2, total=1000, remaining=3, reset_at=2e9, max_concurrency=1, fetched_at=1.0),
        0,
    ),
}


def view_of(records: dict[str, tuple[Record, int]], bad: bytes = b"") -> ClusterView:
    items = {
        key: KeyValue(key, record.encode(), 10 + number, 20 + number, 1, lease)
        for number, (key, (record, lease)) in enumerate(records.items())
    }
    if bad:
        items[KEYS.pin("w", 1, 1)] = KeyValue(KEYS.pin("w", 1, 1), bad, 50, 51, 1)
    return ClusterView.from_items(KEYS, items, 99)


def test_the_same_status_is_shown_from_json() -> None:
    view = view_of(RECORDS, bad=b"[]")
    answers = {"a": NodeStatus(node="a", instance="i", version="1", uptime_s=3, problems=["older sentence"])}
    snapshot = compose(
        view, answers, etcd_version="3.5.1", etcd_found=[problem(Code.ETCD_NO_SPACE, "etcd", "full")], now=1e9
    )
    body = encode_snapshot(snapshot)
    found = decode_snapshot(body)
    assert status_text(found, Paint(on=False)) == status_text(snapshot, Paint(on=False))
    assert to_json(found) == to_json(snapshot)
    assert "the messages of webhook alerts do not arrive: no answer in time" in status_text(found, Paint(on=False))
    assert found.view.claims == view.claims
    assert found.view.bad == view.bad
    assert found.policy == snapshot.policy
    assert found.view.revision == 99


def test_no_secret_is_in_it() -> None:
    body = encode_snapshot(compose(view_of(RECORDS), {}, etcd_version="", etcd_found=(), now=0.0)).decode()
    assert not [secret for secret in (*SECRETS, *HIDDEN) if secret in body]
    assert '"alerts"' in body
    assert '"guilds":9' in body


@pytest.mark.parametrize("body", [b"", b"[]", b'{"v":1}', b"<html>"])
def test_what_is_not_a_snapshot_is_named(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a snapshot"):
        decode_snapshot(body)


def test_a_newer_version_is_refused() -> None:
    view = view_of({})
    body = encode_snapshot(compose(view, {}, etcd_version="", etcd_found=(), now=0.0)).replace(b'"v":1', b'"v":2', 1)
    with pytest.raises(ValueError, match="version 2"):
        decode_snapshot(body)
