"""What Redis answers goes into events only as one line of JSON that every consumer can decode."""

import msgspec
import pytest

from sandwich_node.cache.replies import Applied, Left, read_reply
from sandwich_node.events.enrich import with_extra
from sandwich_sdk.event import Event

LINE = b'{"t":"X","s":1,"op":0,"d":1,"__sandwich":{"app":"a","bot":"","route":"","shard":[0,0,1],"id":"x:1"}}\n'


def before(value: bytes) -> tuple[bytes, int]:
    applied = Applied()
    read_reply([0, 0, 0, 0, b"", [b"1b", value]], applied, Left())
    return applied.extras[1].fields(), applied.damaged


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 101 + b"]" * 101,
        b"[" * 900 + b"]" * 900,
        b"[" * 100_000 + b"]" * 100_000,
        b'"\xff"',
        b'"a\nb"',
        b"{}\n{}",
        b'{},"forged":1',
        b"",
        b"\n",
    ],
)
def test_a_damaged_before_is_null_and_counted(value: bytes) -> None:
    assert before(value) == (b'"before":null', 1)


@pytest.mark.parametrize("value", [b'{"a":\n[1,\r\n 2]}', b"\n null \n", b"[" * 100 + b"]" * 100, '"é\u2028"'.encode()])
def test_a_sound_before_is_on_the_events_line(value: bytes) -> None:
    fields, damaged = before(value)
    line = with_extra(LINE, fields)
    assert not damaged
    assert line.count(b"\n") == 1
    assert Event(line.rstrip(b"\n")).before == msgspec.json.decode(value)


def test_a_name_that_is_not_utf8_ends_nothing() -> None:
    left = Left()
    read_reply([0, 0, 0, 0, b"", [b"1p", b"\xff"]], Applied(), left)
    assert left.learned == {(1, "\ufffd")}
