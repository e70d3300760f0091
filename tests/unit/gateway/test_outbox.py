"""What may be sent when."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandwich_node.gateway.outbox import Outbox, SendLimiter

_STEPS = st.lists(
    st.tuples(
        st.floats(0, 30, allow_nan=False),
        st.sampled_from(["beat", "asked", "command", "command", "presence"]),
        st.integers(1, 60),
    ),
    max_size=60,
)


@given(_STEPS, st.sampled_from([0.5, 5.0, 41.25]))
@settings(max_examples=150, deadline=None)
def test_no_window_ever_holds_more_than_discord_allows(steps: list[tuple[float, str, int]], interval_s: float) -> None:
    limiter, now = SendLimiter(interval_s), 0.0
    limiter.handshake(now)
    sends, presences = [now], []
    for pause, kind, times in steps:
        now += pause
        for _ in range(times):
            if kind in ("beat", "asked"):
                if limiter.heartbeat(now, requested=kind == "asked"):
                    sends.append(now)
                continue
            op = 3 if kind == "presence" else 8
            if limiter.command_at(now, op) <= now:
                limiter.command(now, op)
                sends.append(now)
                if op == 3:
                    presences.append(now)
    assert _most(sends, 60.0) <= 120
    assert _most(presences, 20.0) <= 5


def _most(times: list[float], window_s: float) -> int:
    return max((sum(1 for other in times if time <= other <= time + window_s) for time in times), default=0)


@given(st.integers(0, 300), st.sampled_from([5.0, 41.25]))
@settings(max_examples=50, deadline=None)
def test_scheduled_heartbeats_always_have_room(commands: int, interval_s: float) -> None:
    limiter = SendLimiter(interval_s)
    for step in range(60):
        now = step * interval_s
        assert limiter.heartbeat(now, requested=False)
        for _ in range(commands):
            limiter.heartbeat(now, requested=True)
            if limiter.command_at(now, 8) <= now:
                limiter.command(now, 8)


def test_what_the_limiter_promises_comes_true() -> None:
    limiter, outbox = SendLimiter(41.25), Outbox(256)
    for guild in range(200):
        outbox.put(8, {"guild_id": str(guild)})
    now, sent = 0.0, Counter[float]()
    while len(outbox):
        at = outbox.next_at(now, limiter)
        assert at is not None
        now = max(now, at)
        while outbox.take(now, limiter) is not None:
            sent[now] += 1
    assert sent == {0.0: 114, 60.5: 86}


def test_a_limited_presence_delays_no_other_command() -> None:
    limiter, outbox = SendLimiter(41.25), Outbox(256)
    for _ in range(5):
        outbox.put(3, {"status": "idle"})
        assert outbox.take(0.0, limiter) is not None
    outbox.put(3, {"status": "dnd"})
    outbox.put(8, {"guild_id": "1"})
    taken = outbox.take(0.0, limiter)
    assert taken is not None
    assert taken[0] == 8
    assert outbox.take(0.0, limiter) is None
    assert outbox.next_at(0.0, limiter) == 20.5


def test_the_queue_is_bounded_but_a_replacement_always_fits() -> None:
    outbox = Outbox(2)
    outbox.put(3, {"status": "idle"})
    outbox.put(8, {"guild_id": "1"})
    outbox.put(3, {"status": "dnd"})
    with pytest.raises(ValueError, match="2 commands are waiting"):
        outbox.put(8, {"guild_id": "2"})


@pytest.mark.parametrize(
    ("op", "data"),
    [
        (2, {}),
        (8, {"query": "é" * 2040}),
        (3, {"status": "x" * 3100}),
        (8, {"guild_id": object()}),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(op: int, data: dict[str, object]) -> None:
    outbox = Outbox(8)
    with pytest.raises(ValueError):
        outbox.put(op, data)
    assert len(outbox) == 0
