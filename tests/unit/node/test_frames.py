"""The queue of events not yet in the stream."""

import json

from sandwich_node.sinks.frames import EventBuffer, ShardAddress
from sandwich_sdk.wire.frame import inflate, split_events

ADDRESS = ShardAddress(app="bot", group=1, shard=7, count=8, route="music", bot="42")
RAW = b'{"t":"X","s":%d,"op":0,"d":{"big":12345678901234567890,"f":1.10}}'


def made(**bounds: int) -> EventBuffer:
    events = EventBuffer(ADDRESS, **bounds)
    events.start_session("aa", 0)
    return events


def test_an_event_keeps_discords_bytes_and_says_where_it_came_from() -> None:
    events = made()
    events.push(RAW % 1, "X", 1)
    batch = events.take()
    assert batch is not None
    (line,) = split_events(inflate(batch.payload()))
    assert line.startswith((RAW % 1)[:-1])
    assert json.loads(line)["__sandwich"] == {
        "v": 1, "app": "bot", "bot": "42", "route": "music", "shard": [1, 7, 8], "id": "aa:1",
    }  # fmt: skip


def test_an_event_on_several_lines_is_put_on_one() -> None:
    events = made()
    events.push(b'{\n "t":"X",\n "s":1, "op":0,\n "d":{"text":"a\\nb  c"}}\n', "X", 1)
    batch = events.take()
    assert batch is not None
    (line,) = split_events(inflate(batch.payload()))
    assert json.loads(line)["d"] == {"text": "a\nb  c"}


def test_a_batch_never_mixes_sessions_or_passes_a_gap() -> None:
    events = made()
    events.push(RAW % 1, "X", 1)
    events.push_control("gap", session="aa", last_seq=1, note=b"{}")
    events.start_session("bb", 0)
    events.push(RAW % 1, "READY", 1)
    events.push(RAW % 2, "X", 2)
    batches = []
    while (batch := events.take()) is not None:
        batches.append((batch.kind, batch.session, batch.first_seq, batch.last_seq))
    assert batches == [("", "aa", 1, 1), ("gap", "aa", 1, 1), ("", "bb", 1, 2)]


def test_a_full_buffer_says_so_and_has_room_again_only_when_half_is_gone() -> None:
    events = made(events_max=4)
    assert [events.push(RAW % seq, "X", seq) for seq in (1, 2, 3, 4)] == [True, True, True, False]
    assert not events.has_room
    batch = events.take()
    assert batch is not None
    assert not events.has_room, "what is not acknowledged still takes memory"
    events.confirm(batch)
    assert events.has_room
    assert events.empty


def test_an_event_seen_before_is_dropped_and_counted() -> None:
    events = made()
    for seq in (1, 2, 2, 1, 3):
        events.push(RAW % seq, "X", seq)
    batch = events.take()
    assert batch is not None
    assert (batch.first_seq, batch.last_seq, len(batch.lines), events.repeated) == (1, 3, 3, 2)
