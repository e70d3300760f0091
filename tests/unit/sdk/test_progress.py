"""The events of each frame that a process has handled."""

from hypothesis import given
from hypothesis import strategies as st

from sandwich_sdk.progress import FrameProgress, Progress, retry_delay_s


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=6))
def test_exactly_the_events_that_were_not_handled_remain(rounds: list[list[bool]]) -> None:
    done, handled = FrameProgress(), set[int]()
    for outcomes in rounds:
        for offset in done.remaining(6):
            assert offset not in handled
            if outcomes[offset]:
                handled.add(offset)
                done.mark(offset)
            else:
                done.mark_failed(offset)
        assert set(done.remaining(6)) == set(range(6)) - handled


def test_the_oldest_frames_are_dropped_first() -> None:
    progress = Progress(limit=2)
    for seq in (1, 2):
        progress.of(("app", seq, 0)).mark(0)
    progress.of(("app", 1, 0))
    progress.of(("app", 3, 0))
    assert progress.of(("app", 1, 0)).position == 1
    assert progress.of(("app", 2, 0)).position == 0


def test_the_delay_doubles_up_to_a_minute() -> None:
    assert [retry_delay_s(1.0, tries) for tries in (1, 2, 3, 7, 400)] == [1.0, 2.0, 4.0, 60.0, 60.0]
    assert retry_delay_s(90.0, 1) == 90.0
