"""What `sandwich tail` makes of frames."""

import pytest
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


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "damaged",
    [
        b'{"t":"X","s":7,"op":0,"d":"\xff","__sandwich":{"shard":[0,3,4]}}',
        b'{"t":"X","s":7,"op":0,"d":%b,"__sandwich":{"shard":[0,3,4]}}' % (b"[" * 50_000 + b"]" * 50_000),
        b'{"t":"X","s":7,"op":0,"d":1e999,"__sandwich":{"shard":[0,3,4]}}',
        b'{"t":["X"],"s":7,"op":0,"d":1,"__sandwich":{"shard":[0,3,4]}}',
        b'{"t":"X","s":7,"op":0,"d":1,"__sandwich":1}',
        b'{"t":"X","s":7,"op":0,"d":{"a":',
        b"1}",
        b"[]",
        b"",
    ],
)
def test_a_damaged_event_hides_no_other_event_of_its_frame(damaged: bytes, as_json: bool) -> None:
    good = b'{"t":"X","s":8,"op":0,"d":{"a":1},"__sandwich":{"shard":[0,3,4]}}'
    options = TailOptions(apps=("music",), types=frozenset({"X"}), as_json=as_json)
    lines = frame_lines("music", headers(count=2), zstandard.compress(damaged + b"\n" + good + b"\n"), options)
    assert len(lines) == 2
    assert f"music (an event of {len(damaged)} bytes that cannot be read: " in lines[0]
    assert lines[1] == (good.decode() if as_json else 'music 3/4 8 X {"a":1}')


@pytest.mark.parametrize("shard", [b"[]", b"{}", b"1", b"null"])
def test_a_shard_that_is_none_is_damage_on_a_short_line_and_as_it_is_in_json(shard: bytes) -> None:
    line = b'{"t":"X","s":7,"op":0,"d":1,"__sandwich":{"shard":%b}}' % shard
    as_json = TailOptions(apps=("music",), types=frozenset(), as_json=True)
    assert "cannot be read" in frame_lines("music", headers(), zstandard.compress(line + b"\n"), OPTIONS)[0]
    assert frame_lines("music", headers(), zstandard.compress(line + b"\n"), as_json) == [line.decode()]
