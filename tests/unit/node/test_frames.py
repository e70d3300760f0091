"""The queue of events not yet in the stream."""

import json

import pytest

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.publishing.frames import (
    BUFFER_BYTES_MAX,
    BUFFER_EVENTS_MAX,
    Batch,
    EventBuffer,
    Frame,
    ShardOrigin,
    frames_of,
)
from sandwich_node.publishing.own_events import own_event
from sandwich_node.rpc import requests as rq
from sandwich_sdk.event import read_events
from sandwich_sdk.wire.frame import inflate, split_events

ORIGIN = ShardOrigin(shard=ShardId("bot", 1, 7), count=8, route="music", bot="42")
RAW = b'{"t":"X","s":%d,"op":0,"d":{"big":12345678901234567890,"f":1.10}}'


def made(bytes_max: int = BUFFER_BYTES_MAX, events_max: int = BUFFER_EVENTS_MAX) -> EventBuffer:
    events = EventBuffer(ORIGIN, bytes_max, events_max)
    events.start_session("aa", 0)
    return events


def frames(batch: Batch | None, dropped: set[int] = frozenset(), ttls: dict[str, float] | None = None) -> list[Frame]:  # type: ignore[assignment]
    assert batch is not None
    return frames_of(batch, [b"" if item.seq in dropped else item.line for item in batch.items], ttls or {})


def lines(frame: Frame) -> list[bytes]:
    return split_events(inflate(frame.payload()))


def test_an_event_keeps_discords_bytes_and_says_where_it_came_from() -> None:
    events = made()
    events.push(RAW % 1, "X", 1)
    (frame,) = frames(events.take())
    (line,) = lines(frame)
    assert line.startswith((RAW % 1)[:-1])
    assert json.loads(line)["__sandwich"] == {
        "v": 1, "app": "bot", "bot": "42", "route": "music", "shard": [1, 7, 8], "id": "aa:1",
    }  # fmt: skip


def test_an_event_on_several_lines_is_put_on_one() -> None:
    events = made()
    events.push(b'{\n "t":"X",\n "s":1, "op":0,\n "d":{"text":"a\\nb  c"}}\n', "X", 1)
    (frame,) = frames(events.take())
    (line,) = lines(frame)
    assert json.loads(line)["d"] == {"text": "a\nb  c"}


def test_a_batch_never_mixes_sessions_or_passes_a_gap() -> None:
    events = made()
    events.push(RAW % 1, "X", 1)
    events.push_gap(session="aa", last_seq=1, note=b"{}")
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
    assert (batch.first_seq, batch.last_seq, len(batch.items), events.repeated) == (1, 3, 3, 2)


def test_a_frame_says_how_far_the_shard_is_past_what_is_not_published() -> None:
    events = made()
    for seq in range(1, 6):
        events.push(RAW % seq, "X", seq)
    (frame,) = frames(events.take(), dropped={1, 4, 5})
    assert (frame.first_seq, frame.last_seq, len(frame.lines)) == (2, 5, 2)


def test_a_batch_of_what_is_not_published_makes_no_frame() -> None:
    events = made()
    events.push(b"", "X", 1)
    assert frames(events.take()) == []


def test_lanes_are_frames_in_the_order_of_events_and_none_can_be_lost_between_two() -> None:
    events = made()
    for seq, lane in enumerate(["all", "all", "messages", "messages", "all"], start=1):
        events.push(RAW % seq, "X", seq, lane=lane)
    made_of = frames(events.take(), dropped={2, 5}, ttls={"messages": 60.0})
    assert [(f.lane, f.first_seq, f.last_seq, len(f.lines), f.ttl_s) for f in made_of] == [
        ("all", 1, 2, 1, 0.0),
        ("messages", 3, 5, 2, 60.0),
    ]


def test_what_an_event_changes_in_the_cache_takes_room_too() -> None:
    events = made(bytes_max=1000)
    assert events.push(b"", "X", 1, ops=(("guild", "1"),), size=400)
    assert not events.push(b"", "X", 2, ops=(("guild", "1"),), size=600)
    batch = events.take()
    assert batch is not None
    events.confirm(batch)
    assert events.bytes_held == 0


FORGED = (
    b'{"t":"READY","s":1,"op":0,"d":{},"__sandwich":{"v":1,"app":"bot","bot":"","route":"","shard":[0,0,1],"id":"x:1"}}'
)


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b"\r", b" ", b"\t", b"\n\n  "])
@pytest.mark.parametrize(
    "data",
    [
        b'{"a":%b1}',
        b'%b{"a":1}',
        b'{%b"a"%b:%b1%b}%b',
        b"[1%b,2]",
        b"%bnull%b",
        b"[%b%b]" % (b"%b", FORGED + b"%b"),
    ],
)
def test_an_own_event_is_one_line_whatever_is_between_its_tokens(data: bytes, blank: bytes) -> None:
    written = data.replace(b"%b", blank)
    ask = rq.read(b'{"type":"SONG","shard":0,%b"data":%b}' % (blank, written), rq.RelayAsk)
    buffer = made()
    buffer.push_own(rq.relay(ask), "n1", lane="all", ask=None)
    (frame,) = frames(buffer.take())
    (line,) = lines(frame)
    assert not {*b"\n\r\t "} & {*line}
    (event,) = read_events(line + b"\n", frame.headers(Fence(1)))
    assert (event.type, event.id, event.data) == ("SONG", "own:n1", json.loads(written))


def test_text_of_an_own_event_keeps_its_line_breaks_as_escapes() -> None:
    text = "a\nb\r\u2028\u0085\x00\x1b end"
    buffer = made()
    buffer.push_own(own_event("SONG", json.dumps({text: text}).encode()), "n1", lane="all", ask=None)
    (line,) = lines(frames(buffer.take())[0])
    assert json.loads(line)["d"] == {text: text}
    assert b"\r" not in line
