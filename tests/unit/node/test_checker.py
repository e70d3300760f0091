"""The check that nothing was lost, doubled or out of order can fail, and fails for the right reason."""

from collections.abc import Sequence

import pytest

from sandwich_node.dev.checker import DeliveryCheck, spare_sessions
from sandwich_sdk.wire.frame import session_hash


def verdict_of(received: Sequence[int], owed: Sequence[int]) -> tuple[int, int, int, bool]:
    check = DeliveryCheck()
    for seq in received:
        check.take(f"aa:{seq}")
    verdict = check.verdict({"aa": owed})
    return verdict.lost, verdict.doubled, verdict.out_of_order, verdict.clean


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ([1, 2, 3, 4], (0, 0, 0, True)),
        ([1, 2, 4], (1, 0, 0, False)),
        ([1, 2, 3], (1, 0, 0, False)),
        ([1, 2, 2, 3, 4], (0, 1, 0, False)),
        ([1, 3, 2, 4], (0, 0, 1, False)),
        ([], (4, 0, 0, False)),
    ],
)
def test_each_fault_is_distinguished(received: list[int], expected: tuple[int, int, int, bool]) -> None:
    assert verdict_of(received, [1, 2, 3, 4]) == expected


def test_nothing_owed_is_not_a_success() -> None:
    assert verdict_of([], [])[3] is False


def test_a_session_beside_a_streaming_one_is_spare_only_if_nothing_of_it_was_published() -> None:
    def begun(session: str, detail: str, outcome: str = "ok") -> dict[str, str]:
        return {"session": session, "detail": detail, "outcome": outcome}

    identifies = [
        begun("first", "host"),
        begun("beside", "host beside"),
        begun("needless", "host beside"),
        begun("refused", "host beside", outcome="rate_limited"),
    ]
    streamed = {session_hash("first"), session_hash("needless")}
    assert spare_sessions(identifies, streamed) == {session_hash("beside")}
