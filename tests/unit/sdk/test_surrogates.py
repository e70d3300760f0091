"""Lone surrogates in an event."""

import pytest

from sandwich_sdk.event import Event
from sandwich_sdk.wire.headers import WireError
from sandwich_sdk.wire.surrogates import without_lone_surrogates

META = rb',"__sandwich":{"v":1,"app":"a","bot":"","route":"","shard":[0,0,1],"id":"s:1"}}'


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb"\ud83d", rb"\ufffd"),
        (rb"a\uDE00b", rb"a\ufffdb"),
        (rb"\ud83d\ud83d\ude00", rb"\ufffd\ud83d\ude00"),
        (rb"\ude00\ud83d", rb"\ufffd\ufffd"),
        (rb"\\ud83d", rb"\\ud83d"),
        (rb"\\\ud83d\"", rb"\\\ufffd\""),
        (rb"\u00e9\n\ud83d\ude00", rb"\u00e9\n\ud83d\ude00"),
    ],
)
def test_only_lone_surrogates_are_replaced(text: bytes, read: bytes) -> None:
    assert without_lone_surrogates(text) == read


def test_an_event_with_a_lone_surrogate_can_be_read() -> None:
    raw = rb'{"t":"X","s":1,"op":0,"d":{"content":"a\ud83d"}' + META
    event = Event(raw)
    assert event.data == {"content": "a\ufffd"}
    assert event.raw == raw


def test_invalid_json_is_still_an_error() -> None:
    with pytest.raises(WireError):
        Event(rb'{"t":"X","s":1,"op":0,"d":{"content":"\ud83d}' + META)
