"""Which session a new owner resumes, and from where."""

from typing import Any

import pytest

from sandwich_coordinator.types import SessionRecord
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.shards.resume import resume_point
from sandwich_sdk.wire.frame import session_hash

RECORD = SessionRecord(
    session_id="abc", resume_url="wss://r", intents=5, count=4, first_seq=1, token_hash="t"
)  # fmt: skip
SAME: dict[str, Any] = {"intents": 5, "count": 4, "token_hash": "t"}


def test_the_sequence_comes_from_the_stream() -> None:
    point = resume_point(RECORD, Checkpoint(session_hash("abc"), 117), **SAME)
    assert (point.session_id, point.url, point.seq) == ("abc", "wss://r", 117)


def test_a_session_the_stream_does_not_know_yet_is_resumed_from_its_ready() -> None:
    assert resume_point(RECORD, Checkpoint(session_hash("older"), 900), **SAME).seq == 1


@pytest.mark.parametrize("changed", [{"intents": 6}, {"count": 8}, {"token_hash": "u"}])
def test_a_session_of_another_configuration_is_not_resumed(changed: dict[str, object]) -> None:
    point = resume_point(RECORD, Checkpoint(session_hash("abc"), 117), **{**SAME, **changed})
    assert point.session_id == ""
    assert "changed" in point.reason


def test_without_a_record_the_shard_identifies() -> None:
    assert resume_point(None, Checkpoint("x", 3), **SAME).session_id == ""
