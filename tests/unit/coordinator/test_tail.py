"""What `sandwich tail` makes of frames."""

import zstandard

from sandwich_coordinator.cli.tail import TailOptions, frame_lines, joined
from sandwich_sdk.wire.headers import FrameHeaders

OPTIONS = TailOptions(apps=("music",), types=frozenset({"X"}), as_json=False)


def headers(*, count: int = 1, kind: str = "", part: tuple[int, int] | None = None) -> FrameHeaders:
    return FrameHeaders(session="aa", first_seq=7, last_seq=7, count=count, epoch=1, kind=kind, part=part)


def payload(kind: str) -> bytes:
    line = b'{"t":"%s","s":7,"op":0,"d":{"a":1},"__sandwich":{"shard":[0,3,4]}}\n' % kind.encode()
    return zstandard.compress(line)


def test_an_event_is_one_short_line() -> None:
    assert frame_lines("music", headers(), payload("X"), OPTIONS) == ['music 3/4 7 X {"a":1}']


def test_other_types_and_fences_are_not_shown_and_a_gap_is() -> None:
    assert frame_lines("music", headers(), payload("Y"), OPTIONS) == []
    assert frame_lines("music", headers(count=0, kind="fence"), b"", OPTIONS) == []
    assert frame_lines("music", headers(count=0, kind="gap"), b"{}", OPTIONS) == ["music gap: events were lost after 7"]


def test_parts_are_joined_and_a_run_whose_start_was_missed_is_passed_over() -> None:
    parts: dict[str, bytes] = {}
    assert joined(parts, "s", headers(part=(2, 3)), b"b") is None
    assert joined(parts, "s", headers(part=(3, 3)), b"c") is None
    assert joined(parts, "s", headers(part=(1, 2)), b"a") is None
    assert joined(parts, "s", headers(part=(2, 2)), b"b") == b"ab"
    assert parts == {}
