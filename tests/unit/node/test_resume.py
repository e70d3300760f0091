"""Which session a new owner resumes, and from where."""

from typing import Any

import pytest

from sandwich_coordinator.types import SessionRecord
from sandwich_node.gateway.session import Session
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.shards.resume import LostEvents, first_session, resume_point
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


def test_a_session_that_the_stream_knows_is_resumed_and_loses_nothing() -> None:
    session, lost = first_session(RECORD, Checkpoint(session_hash("abc"), 117), **SAME)
    assert session == Session(id="abc", sequence=117, resume_url="wss://r")
    assert lost == ()


def test_a_session_that_cannot_be_resumed_is_reported_with_its_last_stored_event() -> None:
    assert first_session(None, Checkpoint("x", 3), **SAME) == (None, (LostEvents("x", 3, "no session is kept"),))
    assert first_session(None, Checkpoint("", 0), **SAME) == (None, ())


def test_a_session_whose_ready_was_not_stored_is_resumed_and_both_losses_are_reported() -> None:
    session, lost = first_session(RECORD, Checkpoint(session_hash("older"), 900), **SAME)
    assert session == Session(id="abc", sequence=1, resume_url="wss://r")
    assert [(events.session, events.last_seq) for events in lost] == [
        (session_hash("older"), 900),
        (session_hash("abc"), 0),
    ]
    session, lost = first_session(RECORD, Checkpoint("", 0), **SAME)
    assert [(events.session, events.last_seq) for events in lost] == [(session_hash("abc"), 0)]
