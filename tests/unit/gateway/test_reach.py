"""An address that does not answer: the other one is tried, the general one is doubted, a new one is taken."""

import itertools

import pytest

from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway.effects import State
from sandwich_node.gateway.session import Session
from tests.unit.gateway.shard import BASE_URL, SESSION, Shard

MOVED = "wss://moved.example"


def refused_for(shard: Shard, seconds: float) -> None:
    """Every connection is refused, until so much time has passed."""
    end = shard.now + seconds
    if shard.machine.state is State.NEW:
        shard.feed(ev.Started())
    while shard.now < end:
        if shard.machine.state is State.WAITING:
            shard.reconnect()
        shard.feed(ev.ConnectFailed("connection refused"))


@pytest.mark.parametrize("session", [None, SESSION])
def test_the_general_address_is_doubted_after_some_seconds_and_not_before(session: Session | None) -> None:
    shard = Shard(session)
    began = shard.now
    refused_for(shard, 60)
    (first, *more) = shard.all(fx.GatewayUnreachable)
    assert (first.url, first.reason) == (BASE_URL, "could not connect: connection refused")
    assert more
    shard = Shard(session)
    while not shard.all(fx.GatewayUnreachable):
        refused_for(shard, 0.001)
    assert 5 <= shard.now - began < 20


def test_an_address_that_takes_connections_and_says_nothing_is_doubted_too() -> None:
    shard = Shard(None)
    shard.feed(ev.Started())
    shard.feed(ev.Connected())
    shard.advance(21)
    assert shard.last(fx.GatewayUnreachable).url == BASE_URL
    shard = Shard(None)
    shard.feed(ev.Started())
    while shard.now < 1030:
        shard.feed(ev.Connected())
        shard.feed(ev.Closed(None, "connection reset"))
        shard.reconnect()
    assert shard.all(fx.GatewayUnreachable)


def test_an_address_that_answers_between_failures_is_not_doubted() -> None:
    shard = Shard(None)
    shard.feed(ev.Started())
    for _ in range(20):
        shard.feed(ev.ConnectFailed("connection refused"))
        shard.reconnect()
        shard.hello()
        shard.advance(4)
        shard.feed(ev.Closed())
        shard.reconnect()
    assert not shard.all(fx.GatewayUnreachable)


def test_a_session_whose_own_address_fails_falls_back_and_doubts_nothing() -> None:
    shard = Shard()
    shard.feed(ev.Started())
    assert shard.last(fx.Connect).url.startswith("wss://resume.example/")
    for _ in range(4):
        shard.advance(10)
        assert shard.reconnect().url.startswith(BASE_URL)
        shard.hello()
        shard.feed(ev.Closed())
        shard.reconnect()
    assert not shard.all(fx.GatewayUnreachable)


@pytest.mark.parametrize("session", [None, SESSION])
@pytest.mark.parametrize("waited", [6, 100, 600])
def test_a_shard_that_waits_after_failures_takes_a_new_address_at_once(session: Session | None, waited: int) -> None:
    shard = Shard(session)
    refused_for(shard, waited)
    before = shard.now
    shard.feed(ev.GatewayMoved(MOVED))
    assert shard.reconnect().url.startswith(MOVED)
    assert shard.now - before < 0.5


@pytest.mark.parametrize("connected", [False, True])
def test_a_shard_that_is_trying_the_old_address_lets_it_go_for_the_new_one(connected: bool) -> None:
    shard = Shard(None)
    shard.feed(ev.Started())
    if connected:
        shard.feed(ev.Connected())
    shard.feed(ev.GatewayMoved(MOVED))
    assert shard.last(fx.CloseSocket).code == 4000
    before = shard.now
    assert shard.reconnect().url.startswith(MOVED)
    assert shard.now - before < 0.5


def test_a_live_shard_keeps_its_connection_and_uses_the_new_address_once_the_session_is_gone() -> None:
    shard = Shard().live()
    assert shard.feed(ev.GatewayMoved(MOVED)) == []
    assert shard.machine.state is State.LIVE
    shard.feed(ev.Closed())
    assert shard.reconnect().url.startswith("wss://resume.example/")
    shard.hello()
    shard.feed(ev.Closed(4009))
    assert shard.reconnect().url.startswith(MOVED)


def test_a_connection_to_the_sessions_own_address_is_not_given_up_for_a_new_general_one() -> None:
    shard = Shard()
    shard.feed(ev.Started())
    assert shard.feed(ev.GatewayMoved(MOVED)) == []
    shard.feed(ev.ConnectFailed("refused"))
    assert shard.reconnect().url.startswith(MOVED)


@pytest.mark.parametrize("url", ["", "gateway.example", "http://gateway.example", "ws://", "wss://[::1"])
def test_what_is_no_address_changes_nothing(url: str) -> None:
    shard = Shard(None)
    refused_for(shard, 10)
    shard.feed(ev.GatewayMoved(url))
    assert shard.reconnect().url.startswith(BASE_URL)


# Once a session is gone


def lose_session_by_resets(shard: Shard) -> tuple[float, float]:
    """Every RESUME is reset; when the session was given up, and when the shard asked to IDENTIFY."""
    while not shard.all(fx.SessionLost):
        shard.hello()
        shard.feed(ev.Closed(None, "connection reset"))
        if not shard.all(fx.SessionLost):
            shard.reconnect()
    lost = shard.now
    shard.reconnect()
    shard.hello()
    assert isinstance(shard.did[-1], fx.RequestIdentify)
    return lost, shard.now


@pytest.mark.parametrize("seed", range(8))
def test_after_a_flapping_time_the_shard_asks_for_its_turn_as_soon_as_the_session_is_gone(seed: int) -> None:
    lost, asked = lose_session_by_resets(Shard(seed=seed))
    assert asked - lost < 0.5


@pytest.mark.parametrize("seed", range(8))
def test_so_it_does_with_a_session_of_its_own_that_lived_for_a_while(seed: int) -> None:
    shard = Shard(None, seed=seed).live()
    for _ in range(6):
        for _ in range(4):
            shard.advance(12)
            shard.feed(ev.Received(11))
        shard.feed(ev.Closed())
        shard.reconnect()
        shard.live()
    shard.feed(ev.Closed())
    shard.reconnect()
    lost, asked = lose_session_by_resets(shard)
    assert asked - lost < 0.5


def test_connections_that_fail_after_the_session_is_gone_do_not_begin_the_wait_for_an_identify_again() -> None:
    shard = Shard(None)
    for _ in range(6):
        # Sessions that die at once: the next IDENTIFY is minutes away.
        shard.live()
        shard.feed(ev.Closed(4009))
        shard.reconnect()
    shard.live()
    sent = shard.now
    shard.feed(ev.Closed(4009))
    shard.reconnect()
    due = shard.now
    assert due - sent > 60
    began = shard.now
    for _ in range(3):
        shard.feed(ev.ConnectFailed("refused"))
        shard.reconnect()
    assert shard.now - began < 10


def test_sessions_that_die_at_once_still_wait_longer_and_longer_for_an_identify() -> None:
    shard, times = Shard(None), []
    for _ in range(8):
        shard.live()
        times.append(shard.now)
        shard.feed(ev.Closed(4009))
        shard.reconnect()
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits[0] >= 2.5
    assert max(waits) > 100
