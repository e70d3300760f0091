"""Parts of a large event: complete, interrupted, or incomplete."""

from sandwich_sdk.parts import COMPLETE, INCOMPLETE, INTERRUPTED, Assembly
from sandwich_sdk.wire.headers import FENCE, FrameHeaders

SUBJECT = "sandwich.app.events.all.0.1"


def part(index: int, total: int = 3, *, epoch: int = 5) -> FrameHeaders:
    return FrameHeaders(session="s", first_seq=7, last_seq=7, count=1, epoch=epoch, part=(index, total))


def begun() -> Assembly:
    assembly = Assembly(SUBJECT, part(1))
    assembly.add(SUBJECT, part(1), b"a")
    return assembly


def test_parts_in_chain_order_give_the_frame() -> None:
    assembly = begun()
    assembly.add(SUBJECT, part(2), b"b")
    assert assembly.state == INCOMPLETE
    assembly.add(SUBJECT, part(3), b"c")
    assert (assembly.state, assembly.payload) == (COMPLETE, b"abc")


def test_a_fence_discards_the_parts_before_it() -> None:
    assembly = begun()
    fence = FrameHeaders(session="s", first_seq=6, last_seq=6, count=0, epoch=9, kind=FENCE)
    assembly.add("sandwich.app.events.other.0.1", fence, b"")
    assert assembly.state == INTERRUPTED


def test_the_new_writers_parts_do_not_complete_the_old_writers() -> None:
    assembly = begun()
    assembly.add(SUBJECT, part(2, epoch=9), b"b")
    assert assembly.state == INTERRUPTED


def test_the_same_writers_frame_on_another_lane_is_skipped() -> None:
    assembly = begun()
    assembly.add("sandwich.app.events.other.0.1", part(1), b"x")
    assembly.add(SUBJECT, part(2), b"b")
    assembly.add(SUBJECT, part(3), b"c")
    assert assembly.payload == b"abc"
