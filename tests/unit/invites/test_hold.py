"""The bound on how long joins may hold a shard's events."""

from hypothesis import given
from hypothesis import strategies as st

from sandwich_node.invites.hold import WINDOW_S, HoldBudget


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40), st.floats(0, 5))
def test_no_event_is_held_for_longer_than_the_hold_however_often_joins_wait(
    steps: list[tuple[float, float]], hold_s: float
) -> None:
    budget, now, waits = HoldBudget(hold_s), 0.0, []
    for pause, share in steps:
        now += pause * budget.window_s
        wait_s = budget.allowed_s(now) * share
        budget.spent(now, now + wait_s)
        waits.append((now, now + wait_s))
        now += wait_s
    for _, end in waits:
        since = end - budget.window_s
        assert sum(max(0.0, min(e, end) - max(s, since)) for s, e in waits) <= hold_s + 1e-6


def test_a_join_may_wait_again_once_a_second_has_passed() -> None:
    budget = HoldBudget(0.3)
    budget.spent(0.0, 0.2)
    assert 0.09 < budget.allowed_s(0.2) < 0.11
    budget.spent(0.2, 0.3)
    assert budget.allowed_s(0.3) == 0.0
    assert budget.allowed_s(WINDOW_S + 0.3) == 0.3


def test_a_long_hold_is_never_more_than_half_of_the_time() -> None:
    budget = HoldBudget(5.0)
    budget.spent(0.0, 5.0)
    assert budget.allowed_s(10.0) == 0.0
    assert budget.allowed_s(15.0) == 5.0


def test_a_hold_of_zero_never_waits() -> None:
    assert HoldBudget(0.0).allowed_s(100.0) == 0.0
