"""What is kept of the log: bounded, redacted, and placed where the record names a shard."""

import logging
import sys

import pytest

from sandwich_coordinator.ids import GroupId, ShardId
from sandwich_node.log_lines import LineBuffer, LineHandler, LogFilter, LogLine, LogRing, place_of

TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4OQ.GabcdE.abcdefghijklmnopqrstuvwxyz0123456789AB"
EVERYTHING = LogFilter()


def line(message: str, at: float = 0.0, level: str = "info", **more: object) -> LogLine:
    return LogLine(at=at, level=level, logger="x", message=message, **more)  # type: ignore[arg-type]


def messages(ring: LogRing, wanted: LogFilter = EVERYTHING, limit: int = 100, after: int | None = None) -> list[str]:
    return [found.message for found in ring.tail(wanted, limit=limit, after=after).lines]


@pytest.fixture
def kept() -> tuple[logging.Logger, LogRing]:
    ring = LogRing()
    log = logging.Logger("canary")
    log.addHandler(LineHandler(ring.add))
    return log, ring


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (TOKEN, f"IDENTIFY with {TOKEN}"),
        ("hunter2", "NATS at nats://sandwich:hunter2@10.0.0.1:4222 refused"),
        ("hunter2", "options(user='sandwich', password='hunter2')"),
        ("hunter2", '{"nats": {"password": "hunter2"}}'),
        ("c2Vzc2lvbg", "Cookie: sandwich_session=c2Vzc2lvbg; other=1"),
        ("c2Vzc2lvbg", "SessionRecord(session_id='c2Vzc2lvbg', resume_url='wss://x')"),
        ("c2Vzc2lvbg", "Authorization: Bearer c2Vzc2lvbg"),
    ],
)
def test_no_secret_reaches_the_ring(kept: tuple[logging.Logger, LogRing], secret: str, text: str) -> None:
    log, ring = kept
    log.warning(text)
    log.warning("%s", text)
    log.warning("with more", extra={"given": text})
    try:
        raise RuntimeError(text)
    except RuntimeError:
        log.exception("failed")
    found = messages(ring)
    assert len(found) == 4
    assert all(secret not in message for message in found)


def test_prose_about_sessions_and_tokens_stays(kept: tuple[logging.Logger, LogRing]) -> None:
    log, ring = kept
    log.warning("shard x/0/3 lost its session: timed out; set the token: sandwich app set")
    assert messages(ring) == ["shard x/0/3 lost its session: timed out; set the token: sandwich app set"]


def test_a_line_is_plain_bounded_and_names_its_shard(kept: tuple[logging.Logger, LogRing]) -> None:
    log, ring = kept
    log.warning("shard %s closed: %s", ShardId("welcomer", 1, 3), "a\x1b[2J\nb" * 1000)
    found = ring.tail(EVERYTHING, limit=1).lines[0]
    assert (found.app, found.shard, found.level, found.worker) == ("welcomer", "1/3", "warning", None)
    assert len(found.message) == 2000
    assert found.message.isprintable()


@pytest.mark.parametrize(
    ("args", "place"),
    [
        ((ShardId("x", 0, 3), "y"), ("x", "0/3")),
        ((GroupId("x", 2),), ("x", "")),
        (("x", "0/3", "why"), ("x", "0/3")),
        (("x", "0/3/9"), ("x", "0/3")),
        (("x", "a/b"), ("", "")),
        ((), ("", "")),
    ],
)
def test_places(args: tuple[object, ...], place: tuple[str, str]) -> None:
    assert place_of(logging.LogRecord("x", logging.INFO, "f", 1, "m", args, None)) == place


def test_a_record_that_cannot_be_formatted_is_not_kept_and_raises_nothing(
    kept: tuple[logging.Logger, LogRing], capsys: pytest.CaptureFixture[str]
) -> None:
    log, ring = kept
    log.warning("%d", "no number")
    assert messages(ring) == []
    assert "no number" in capsys.readouterr().err
    assert sys.exc_info() == (None, None, None)


def test_the_oldest_lines_make_room_by_number_and_by_bytes() -> None:
    ring = LogRing(lines_max=2)
    for number in range(3):
        ring.add(line(str(number)))
    assert messages(ring) == ["1", "2"]
    ring = LogRing(bytes_max=1000)
    ring.add(line("\N{BEAMED EIGHTH NOTES}" * 300))
    assert messages(ring) == [], "three bytes each"
    ring = LogRing(bytes_max=1000)
    for number in range(3):
        ring.add(line(f"{number}" * 300))
    assert messages(ring) == ["1" * 300, "2" * 300]


def test_lines_are_found_by_what_they_are() -> None:
    ring = LogRing()
    ring.add(line("one", at=1.0, app="x", shard="0/3"))
    ring.add(line("two", at=2.0, level="error", app="y"))
    ring.add(line("Three", at=3.0))
    assert messages(ring, LogFilter(app="x")) == ["one"]
    assert messages(ring, LogFilter(shard="3")) == messages(ring, LogFilter(shard="0/3")) == ["one"]
    assert messages(ring, LogFilter(level="warning")) == ["two"]
    assert messages(ring, LogFilter(text="THREE")) == ["Three"]
    assert messages(ring, LogFilter(since=2.0)) == ["two", "Three"]
    assert messages(ring, LogFilter(apps=frozenset({"y"}))) == ["two"]
    assert messages(ring, limit=2) == ["two", "Three"]


def test_a_reader_goes_on_where_it_was() -> None:
    ring = LogRing(100)
    ring.add(line("one"))
    found = ring.tail(EVERYTHING, limit=10)
    ring.add(line("two"))
    assert messages(ring, after=found.next) == ["two"]
    assert ring.tail(EVERYTHING, limit=10, after=2**62).lines == []


def test_a_worker_that_logs_too_much_is_counted() -> None:
    buffer = LineBuffer(most=2)
    for number in range(5):
        buffer.add(line(str(number)))
    lines, dropped = buffer.take()
    assert ([each.message for each in lines], dropped) == (["0", "1"], 3)
    assert buffer.take() == ([], 0)
    ring = LogRing()
    ring.add_of_worker(4, lines, dropped, at=9.0)
    found = ring.tail(EVERYTHING, limit=10).lines
    assert [each.worker for each in found] == [4, 4, 4]
    assert found[-1].message.startswith("3 more lines")
