"""The rules of a shard, in virtual time. Whole stories are in tests/scenarios."""

import itertools
import json
import random

import pytest

from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway import opcodes
from sandwich_node.gateway.effects import State
from sandwich_node.gateway.machine import TRANSITIONS, IllegalEvent, ShardMachine
from sandwich_node.gateway.session import Session
from tests.unit.gateway.shard import READY, RESUME_URL, SESSION, TOKEN, Shard, config

FATAL = (4004, 4010, 4011, 4012, 4013, 4014)
ENDS_SESSION = (4001, 4003, 4006, 4007, 4009)
KEEPS_SESSION = (None, 1000, 1001, 1006, 1011, 3000, 4000, 4002, 4005, 4008, 4321)


@pytest.mark.parametrize("code", FATAL)
@pytest.mark.parametrize("session", [SESSION, None])
def test_a_fatal_close_stops_the_shard_and_says_what_to_do(code: int, session: Session | None) -> None:
    shard = Shard(session).live()
    shard.feed(ev.Closed(code))
    failed = shard.last(fx.Failed)
    assert failed.code == code
    assert str(code) in failed.reason
    assert failed.reason.endswith(".")
    assert shard.machine.deadline() is None


@pytest.mark.parametrize("code", ENDS_SESSION)
def test_a_close_that_ends_the_session_says_so_before_asking_to_identify(code: int) -> None:
    shard = Shard().live()
    shard.machine.dispatched(30)
    shard.feed(ev.Closed(code))
    assert shard.last(fx.SessionLost).session == Session("abc", 30, RESUME_URL)
    assert shard.reconnect().url.startswith("wss://gateway.example/")
    shard.hello()
    kinds = [type(effect) for effect in shard.did]
    assert kinds.index(fx.SessionLost) < kinds.index(fx.RequestIdentify)


@pytest.mark.parametrize("code", KEEPS_SESSION)
def test_any_other_close_resumes_on_the_resume_url(code: int | None) -> None:
    shard = Shard().live()
    shard.machine.dispatched(30)
    shard.feed(ev.Closed(code))
    assert shard.reconnect().url.startswith("wss://resume.example/")
    shard.hello()
    assert json.loads(shard.sent(6)[-1])["d"] == {"token": TOKEN, "session_id": "abc", "seq": 30}
    assert not shard.all(fx.SessionLost)


@pytest.mark.parametrize("code", [4002, 4005, 4321])
def test_a_close_to_be_resumed_once_identifies_when_it_answers_the_resume(code: int) -> None:
    shard = Shard()
    shard.hello()
    shard.feed(ev.Closed(code))
    assert shard.all(fx.SessionLost)


def test_a_resume_that_made_progress_is_never_counted_as_refused() -> None:
    shard = Shard()
    for sequence in range(18, 30):
        shard.hello()
        shard.machine.dispatched(sequence)
        shard.feed(ev.Closed(4000))
        shard.reconnect()
    assert not shard.all(fx.SessionLost)


def test_dropped_resumes_try_both_urls_and_give_the_session_up_in_the_end() -> None:
    shard, urls = Shard(), []
    while not shard.all(fx.SessionLost):
        shard.hello()
        urls.append(shard.last(fx.Connect).url)
        shard.feed(ev.Closed())
        shard.reconnect()
    assert len(urls) == 6
    assert {url.split("?")[0] for url in urls} == {"wss://resume.example/", "wss://gateway.example/"}


@pytest.mark.parametrize(("answer", "code", "lost"), [(b"true", 4000, 0), (b"false", 1000, 1), (b"null", 1000, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_an_invalid_session_waits_a_moment_before_the_next_connection(
    answer: bytes, code: int, lost: int, seed: int
) -> None:
    shard = Shard(seed=seed).live()
    shard.feed(ev.Received(9, answer))
    assert shard.last(fx.CloseSocket).code == code
    assert len(shard.all(fx.SessionLost)) == lost
    before = shard.now
    shard.reconnect()
    assert 1.0 <= shard.now - before <= 5.5


def test_an_invalid_session_without_a_session_identifies_again_later() -> None:
    shard = Shard(None)
    shard.hello()
    shard.feed(ev.IdentifyGranted())
    shard.feed(ev.Received(9, b"true"))
    assert not shard.all(fx.SessionLost)
    shard.reconnect()
    shard.hello()
    assert len(shard.all(fx.RequestIdentify)) == 2


@pytest.mark.parametrize("seed", range(20))
def test_the_first_heartbeat_comes_after_a_random_part_of_the_interval(seed: int) -> None:
    shard = Shard(seed=seed).live(40)
    start = shard.now
    shard.advance(40, until=lambda effect: isinstance(effect, fx.Send) and effect.op == 1)
    assert 0 <= shard.now - start < 40
    first = shard.now
    shard.feed(ev.Received(11))
    shard.advance(41, until=lambda effect: isinstance(effect, fx.Send) and effect.op == 1)
    assert shard.now - first == pytest.approx(40)


def test_a_requested_heartbeat_neither_judges_nor_moves_the_next() -> None:
    shard = Shard().live(40)
    shard.advance(40)
    due = shard.machine.deadline()
    for _ in range(3):
        shard.feed(ev.Received(1))
    assert shard.machine.deadline() == due
    assert len(shard.sent(1)) == 4
    assert not shard.all(fx.CloseSocket)


def test_a_flood_of_heartbeat_requests_leaves_room_for_our_own() -> None:
    shard = Shard().live(40)
    for _ in range(500):
        shard.feed(ev.Received(1))
    requested = len(shard.sent(1))
    assert requested < 120
    shard.feed(ev.Received(11))
    shard.advance(40)
    assert len(shard.sent(1)) == requested + 1


def test_a_shard_that_overslept_does_not_blame_the_connection() -> None:
    shard = Shard().live(40)
    shard.advance(40)
    shard.now += 200
    assert [type(effect) for effect in shard.machine.tick(shard.now)] == [fx.Send]


def test_a_barrier_is_passed_by_the_ack_of_a_heartbeat_that_left_after_the_request() -> None:
    shard = Shard().live()
    shard.feed(ev.BarrierRequested(1))
    assert len(shard.sent(1)) == 1
    assert not shard.all(fx.BarrierPassed)
    assert fx.BarrierPassed(1) in shard.feed(ev.Received(11))
    shard.feed(ev.Received(11))
    assert len(shard.all(fx.BarrierPassed)) == 1


def test_the_ack_of_an_older_heartbeat_does_not_pass_a_barrier() -> None:
    shard = Shard().live()
    shard.feed(ev.Received(1))
    shard.feed(ev.Received(1))
    shard.feed(ev.BarrierRequested(7))
    shard.feed(ev.Received(11))
    shard.feed(ev.Received(11))
    assert not shard.all(fx.BarrierPassed)
    shard.feed(ev.Received(11))
    assert shard.last(fx.BarrierPassed) == fx.BarrierPassed(7)


def test_a_barrier_outlives_its_connection_and_is_passed_behind_the_replay() -> None:
    shard = Shard().live()
    shard.feed(ev.BarrierRequested(1))
    shard.feed(ev.Closed())
    shard.reconnect()
    shard.hello()
    shard.feed(ev.Received(11))
    shard.feed(ev.Received(0, b"{}", 18, "RESUMED"))
    assert not shard.all(fx.BarrierPassed)
    shard.feed(ev.Received(11))
    assert shard.all(fx.BarrierPassed) == [fx.BarrierPassed(1)]


def test_a_resumed_of_an_earlier_connection_in_the_replay_passes_no_barrier() -> None:
    shard = Shard()
    shard.hello()
    shard.feed(ev.BarrierRequested(1))
    assert not shard.sent(1)
    shard.feed(ev.Received(0, b"{}", 18, "RESUMED"))
    shard.machine.dispatched(19)
    shard.feed(ev.Received(0, b"{}", 20, "RESUMED"))
    assert not shard.all(fx.BarrierPassed)
    shard.feed(ev.Received(11))
    assert shard.all(fx.BarrierPassed) == [fx.BarrierPassed(1)]


def test_a_new_session_fails_a_barrier() -> None:
    shard = Shard().live()
    shard.feed(ev.BarrierRequested(3))
    shard.feed(ev.Received(9, b"false"))
    shard.reconnect()
    shard.hello()
    shard.feed(ev.IdentifyGranted())
    shard.feed(ev.Received(0, READY, 1, "READY"))
    assert (shard.all(fx.BarrierPassed), shard.all(fx.BarrierFailed)) == ([], [fx.BarrierFailed(3)])


def test_a_second_barrier_replaces_the_first() -> None:
    shard = Shard().live()
    shard.feed(ev.BarrierRequested(1))
    shard.feed(ev.BarrierRequested(2))
    shard.feed(ev.Received(11))
    assert not shard.all(fx.BarrierPassed)
    shard.feed(ev.Received(11))
    assert shard.all(fx.BarrierPassed) == [fx.BarrierPassed(2)]


def test_a_barrier_uses_no_heartbeat_that_is_reserved_and_is_passed_by_the_next_scheduled_one() -> None:
    shard = Shard().live(40)
    for _ in range(500):
        shard.feed(ev.Received(1))
    answered = len(shard.sent(1))
    for _ in range(answered):
        shard.feed(ev.Received(11))
    shard.feed(ev.BarrierRequested(1))
    assert len(shard.sent(1)) == answered
    shard.advance(40, until=lambda effect: isinstance(effect, fx.Send) and effect.op == 1)
    shard.feed(ev.Received(11))
    assert shard.all(fx.BarrierPassed) == [fx.BarrierPassed(1)]


def test_a_barrier_of_a_shard_that_has_ended_is_ignored() -> None:
    shard = Shard().live()
    shard.feed(ev.StopRequested("released"))
    assert shard.feed(ev.BarrierRequested(1)) == []


def test_latency_is_the_time_to_the_acknowledgement() -> None:
    shard = Shard().live(40)
    shard.feed(ev.Received(1))
    shard.now += 0.25
    assert shard.feed(ev.Received(11)) == [fx.LatencyMeasured(0.25)]
    assert shard.feed(ev.Received(11)) == []


@pytest.mark.parametrize("data", [b"null", b"{}", b'{"heartbeat_interval":0}', b'{"heartbeat_interval":"x"}', b"[1"])
def test_an_absurd_hello_is_a_protocol_error(data: bytes) -> None:
    shard = Shard()
    shard.feed(ev.Started())
    shard.feed(ev.Connected())
    shard.feed(ev.Received(10, data))
    assert shard.last(fx.CloseSocket).code == 4000
    assert not shard.all(fx.SessionLost)


@pytest.mark.parametrize("data", [b"{}", READY.replace(b"new", b""), b'{"session_id":1}'])
def test_a_ready_without_a_session_identifies_again(data: bytes) -> None:
    shard = Shard(None)
    shard.hello()
    shard.feed(ev.IdentifyGranted())
    shard.feed(ev.Received(0, data, 1, "READY"))
    assert shard.last(fx.CloseSocket).code == 4000
    assert shard.machine.session is None


def test_a_dispatch_before_ready_is_a_protocol_error() -> None:
    shard = Shard(None)
    shard.hello()
    shard.feed(ev.Received(0, b"{}", 4, "MESSAGE_CREATE"))
    assert shard.last(fx.CloseSocket).code == 4000


def test_a_resume_url_that_is_less_protected_than_the_base_is_not_used() -> None:
    shard = Shard(Session("abc", 1, "ws://resume.example"))
    shard.feed(ev.Started())
    assert shard.last(fx.Connect).url.startswith("wss://gateway.example/")


def test_unknown_opcodes_are_a_sign_of_life_and_nothing_else() -> None:
    shard = Shard().live()
    assert shard.feed(ev.Received(99, b'{"x":1}')) == []


def test_no_ready_for_minutes_is_given_up_while_heartbeats_go_on() -> None:
    shard = Shard(None)
    shard.hello(40)
    shard.feed(ev.IdentifyGranted())
    for _ in range(17):
        shard.advance(10)
        shard.feed(ev.Received(11))
    before = shard.machine.state
    shard.advance(11, until=lambda effect: isinstance(effect, fx.CloseSocket))
    assert (before, shard.machine.state) == (State.IDENTIFYING, State.WAITING)


def test_a_long_replay_is_not_given_up_while_it_makes_progress() -> None:
    shard = Shard()
    shard.hello(40)
    for sequence in range(18, 40):
        shard.advance(30)
        shard.machine.dispatched(sequence)
    assert shard.machine.state is State.RESUMING


@pytest.mark.parametrize("seed", range(3))
def test_a_day_of_refused_identifies_stays_far_below_the_budget(seed: int) -> None:
    shard = Shard(None, seed=seed)
    end = shard.now + 86_400
    shard.feed(ev.Started())
    while shard.now < end:
        shard.hello()
        shard.feed(ev.IdentifyGranted())
        shard.feed(ev.Received(9, b"false"))
        shard.reconnect()
    assert 100 < len(shard.all(fx.IdentifySent)) < 400


def test_a_day_of_sessions_that_die_at_once_stays_far_below_the_budget() -> None:
    shard = Shard(None)
    end = shard.now + 86_400
    shard.feed(ev.Started())
    while shard.now < end:
        shard.live()
        shard.advance(3)
        shard.feed(ev.Closed(4003))
        shard.reconnect()
    assert len(shard.all(fx.IdentifySent)) < 400


def test_backoff_grows_while_connections_open_but_no_session_lives() -> None:
    shard, waits = Shard(None), []
    shard.feed(ev.Started())
    for _ in range(12):
        shard.feed(ev.Connected())
        shard.feed(ev.Closed())
        before = shard.now
        shard.reconnect()
        waits.append(shard.now - before)
    assert waits[0] < 0.5
    assert max(waits) > 50
    assert max(waits) <= 120


def test_a_session_that_keeps_resuming_never_waits_long_enough_to_overflow_its_replay() -> None:
    shard, waits = Shard(), []
    shard.live()
    for _ in range(20):
        shard.feed(ev.Closed())
        before = shard.now
        shard.reconnect()
        waits.append(shard.now - before)
        shard.live()
    assert waits[0] < 0.5
    assert 1.0 < max(waits) <= 4.0


def test_while_discord_may_keep_the_session_a_gateway_that_is_away_is_tried_every_few_seconds() -> None:
    shard, tries = Shard().live(), []
    shard.feed(ev.Closed())
    began = shard.now
    while shard.now < began + 3600:
        shard.reconnect()
        tries.append(shard.now - began)
        shard.feed(ev.ConnectFailed("refused"))
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    hopeful = [wait for wait, at in zip(waits, tries, strict=False) if at < 180]
    assert max(hopeful) <= 10
    assert len(hopeful) < 40
    assert max(waits[len(hopeful) :]) > 60


def test_a_shard_without_a_session_gives_a_gateway_that_is_away_more_and_more_time() -> None:
    shard, waits = Shard(None), []
    shard.feed(ev.Started())
    for _ in range(12):
        before = shard.now
        shard.feed(ev.ConnectFailed("refused"))
        shard.reconnect()
        waits.append(shard.now - before)
    assert 60 < max(waits) <= 120


def test_shards_closed_together_come_back_apart() -> None:
    waits = []
    for seed in range(50):
        shard = Shard(seed=seed).live()
        shard.advance(11)
        shard.feed(ev.Closed(4000))
        before = shard.now
        shard.reconnect()
        waits.append(shard.now - before)
    assert min(waits) >= 0.5
    assert max(waits) - min(waits) > 0.2


@pytest.mark.parametrize("steps", range(6))
def test_a_stop_at_any_moment_keeps_the_session_and_ends_everything(steps: int) -> None:
    shard = Shard()
    story: list[ev.Event] = [
        ev.Started(),
        ev.Connected(),
        ev.Received(10, b'{"heartbeat_interval":40000}'),
        ev.Received(0, b"{}", 18, "RESUMED"),
        ev.Closed(),
    ]
    for event in story[:steps]:
        shard.feed(event)
    shard.feed(ev.StopRequested("released"))
    stopped = shard.last(fx.Stopped)
    assert stopped.session is not None
    assert stopped.session.id == "abc"
    assert {close.code for close in shard.all(fx.CloseSocket)} <= {4000}
    assert shard.machine.deadline() is None
    assert shard.feed(ev.StopRequested("again")) == []


def test_a_stop_that_ends_the_session_closes_with_1000() -> None:
    shard = Shard().live()
    shard.feed(ev.StopRequested("removed", keep_session=False))
    assert shard.last(fx.CloseSocket).code == 1000
    assert shard.last(fx.Stopped).session is None


def test_a_presence_changed_at_run_time_is_shown_by_the_next_identify() -> None:
    shard = Shard(None, presence={"status": "online"}).live()
    shard.feed(ev.CommandQueued(3, {"status": "dnd"}))
    shard.feed(ev.Closed(4003))
    shard.reconnect()
    shard.live()
    first, second = (json.loads(payload)["d"]["presence"] for payload in shard.sent(2))
    assert (first, second) == ({"status": "online"}, {"status": "dnd"})


def test_commands_survive_a_reconnect_and_leave_after_resumed() -> None:
    shard = Shard().live()
    shard.feed(ev.Closed())
    shard.feed(ev.CommandQueued(8, {"guild_id": "1", "query": "", "limit": 0}))
    assert not shard.sent(8)
    shard.reconnect()
    shard.live()
    assert len(shard.sent(8)) == 1


def test_a_refused_command_does_not_become_the_presence() -> None:
    shard = Shard(None)
    shard.feed(ev.CommandQueued(3, {"status": "x" * 5000}))
    assert shard.all(fx.CommandRefused)
    assert shard.machine.presence is None


def test_the_token_is_in_no_repr() -> None:
    shard = Shard(None).live()
    assert TOKEN in shard.sent(2)[0].decode()
    assert TOKEN not in repr(shard.did)
    assert TOKEN not in repr(shard.machine.config)
    assert TOKEN not in f"{config()}"


def test_what_is_not_in_the_table_is_one_error() -> None:
    events: tuple[ev.Event, ...] = (
        ev.Started(),
        ev.Connected(),
        ev.ConnectFailed(""),
        ev.Received(11),
        ev.Garbled(""),
        ev.Closed(),
    )
    refused = 0
    for state, event in itertools.product(State, events):
        if (state, type(event)) not in TRANSITIONS:
            machine = ShardMachine(config(), None, random.Random(1))
            machine.state = state
            with pytest.raises(IllegalEvent, match=state.value):
                machine.handle(event, 0.0)
            refused += 1
    assert refused == 6 * len(State) - 3 * 5 - 3


def test_random_histories_keep_the_invariants_and_never_identify_without_a_permit() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        shard = Shard(rng.choice([SESSION, None]), seed=seed)
        granted = 0
        for _ in range(120):
            event = _random_event(rng, shard)
            granted += isinstance(event, ev.IdentifyGranted) and shard.machine.state is State.QUEUED
            if (shard.machine.state, type(event)) in TRANSITIONS:
                shard.feed(event)
            shard.advance(rng.choice([0, 0, 0.1, 3, 30]))
        assert len(shard.sent(2)) == granted
        assert {close.code for close in shard.all(fx.CloseSocket)} <= {4000, 1000}


def _random_event(rng: random.Random, shard: Shard) -> ev.Event:
    sequence = rng.randrange(1, 1000)
    events: list[ev.Event] = [
        ev.Started(),
        ev.Connected(),
        ev.Connected(),
        ev.ConnectFailed("refused"),
        ev.Received(10, b'{"heartbeat_interval":5000}'),
        ev.Received(10, b'{"heartbeat_interval":5000}'),
        ev.Received(0, READY, sequence, "READY"),
        ev.Received(0, b"{}", sequence, "RESUMED"),
        ev.Received(0, b"{}", sequence, "MESSAGE_CREATE"),
        ev.Received(0, b"{}"),
        ev.Received(rng.choice([1, 7, 11, 11, 11, 99])),
        ev.Received(9, rng.choice([b"true", b"false"])),
        ev.Garbled("corrupt"),
        ev.Closed(rng.choice([*ENDS_SESSION, *KEEPS_SESSION])),
        ev.IdentifyGranted(),
        ev.IdentifyGranted(),
        ev.CommandQueued(rng.choice([2, 3, 4, 8]), {"guild_id": str(sequence)}),
        ev.ReadingSuspended(),
        ev.ReadingResumed(),
    ]
    return rng.choice(events)


def test_a_connection_that_waits_long_for_its_turn_is_opened_again_and_asks_again_without_being_a_failure() -> None:
    """Else Discord may close it at the moment of its turn; the simulator does so after 60 s."""
    waited = set()
    for number in range(16):
        shard = Shard(session=None, shard=number, count=16)
        shard.hello(400.0)
        assert len(shard.all(fx.RequestIdentify)) == 1
        shard.advance(60.0, until=lambda effect: isinstance(effect, fx.Connect))
        waited.add(shard.now - 1000.0)
        assert (len(shard.all(fx.IdentifyWithdrawn)), shard.last(fx.CloseSocket).code) == (1, opcodes.KEEP_SESSION)
        shard.hello(400.0)
        assert len(shard.all(fx.RequestIdentify)) == 2
        shard.feed(ev.IdentifyGranted())
        assert len(shard.sent(opcodes.IDENTIFY)) == 1
    assert len(waited) == 16, "they do not all connect again together"
    assert min(waited) >= 45.0
    assert max(waited) <= 55.0


def test_an_identify_is_reported_again_when_its_heartbeat_is_answered_and_not_by_the_answer_to_an_earlier_one() -> None:
    """From then on Discord surely has it: the five seconds of its bucket count from there."""
    shard = Shard(session=None)
    shard.hello()
    shard.advance(40.0, until=lambda effect: isinstance(effect, fx.Send))
    assert len(shard.sent(opcodes.HEARTBEAT)) == 1, "the first one, whose answer is late"
    shard.feed(ev.IdentifyGranted())
    assert (len(shard.sent(opcodes.HEARTBEAT)), len(shard.all(fx.IdentifySent))) == (2, 1)
    shard.feed(ev.Received(opcodes.HEARTBEAT_ACK, b"null"))
    assert len(shard.all(fx.IdentifySent)) == 1
    shard.feed(ev.Received(opcodes.HEARTBEAT_ACK, b"null"))
    assert len(shard.all(fx.IdentifySent)) == 2
    shard.feed(ev.Received(0, READY, 1, "READY"))
    shard.feed(ev.Received(opcodes.HEARTBEAT_ACK, b"null"))
    assert len(shard.all(fx.IdentifySent)) == 2, "once"


def test_a_ready_says_too_that_the_identify_has_arrived() -> None:
    shard = Shard(session=None)
    shard.hello()
    shard.feed(ev.IdentifyGranted())
    shard.feed(ev.Received(0, READY, 1, "READY"))
    assert len(shard.all(fx.IdentifySent)) == 2
