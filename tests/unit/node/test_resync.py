"""Reading a shard's guilds again beside its session: when it is done, when it is given up. Virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.ids import ShardId
from sandwich_node import ipc
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway.effects import State
from sandwich_node.shards import resync as refilling
from sandwich_node.shards.resync import QUIET_S, TOTAL_S, CacheResync
from verification.simulation.loop import run_virtual

KEY = ShardId("bot", 0, 3)


class FakeConnection:
    """Runs until it is asked to stop. `posted` is what was passed to the machine."""

    made: "FakeConnection"

    def __init__(self, machine: Any, **_: Any) -> None:
        self.posted: list[ev.Event] = []
        self._stopped = asyncio.Event()
        FakeConnection.made = self

    def post(self, event: ev.Event) -> None:
        self.posted.append(event)
        if isinstance(event, ev.StopRequested):
            self._stopped.set()

    async def run(self) -> None:
        await self._stopped.wait()


class FakeFeed:
    """Takes what is read."""

    def __init__(self) -> None:
        self.refilling = False
        self.has_room = True
        self.taken: list[str] = []
        self.complete: bool | None = None

    def begin_resync(self) -> None:
        self.refilling = True

    def refill(self, event_type: str, data: bytes) -> None:
        self.taken.append(event_type)

    def end_resync(self, *, complete: bool) -> None:
        self.complete = complete

    async def drained(self) -> None:
        pass


class Reading:
    def __init__(self) -> None:
        self.feed = FakeFeed()
        self.sent: list[ipc.ToAgent] = []
        self.refill = CacheResync(
            KEY,
            None,  # type: ignore[arg-type]
            self.feed,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            send=self.sent.append,
            clock=lambda: 0.0,
        )

    def granted(self) -> None:
        self.refill.observe(fx.RequestIdentify())
        assert self.refill.wants_identify
        self.refill.identify_granted()
        assert not self.refill.wants_identify

    def dispatch(self, event_type: str, data: Any) -> bool:
        raw = msgspec.Raw(msgspec.json.encode(data))
        return self.refill.dispatch(b"", raw, event_type, 1, "session")

    def ready(self, *guilds: str) -> None:
        self.dispatch("READY", {"guilds": [{"id": guild} for guild in guilds]})


@pytest.fixture(autouse=True)
def _fake_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refilling, "ShardConnection", FakeConnection)


def play(story: Callable[[Reading], Awaitable[None]]) -> tuple[bool, Reading, float]:
    """The reading's result, itself, and the seconds it took."""

    async def main() -> tuple[bool, Reading, float]:
        reading = Reading()
        running = asyncio.create_task(reading.refill.run())
        await asyncio.sleep(0)
        await story(reading)
        complete = await running
        assert isinstance(FakeConnection.made.posted[-1], ev.StopRequested)
        assert not FakeConnection.made.posted[-1].keep_session
        assert reading.feed.complete is complete
        return complete, reading, asyncio.get_running_loop().time()

    return run_virtual(main())


def test_it_is_done_when_every_listed_guild_has_come_and_takes_nothing_else() -> None:
    async def story(reading: Reading) -> None:
        reading.granted()
        assert ipc.IdentifyWanted(KEY, spare=True) in reading.sent
        assert reading.dispatch("GUILD_CREATE", {"id": "1"}), "before READY it is nothing"
        reading.ready("1", "2")
        for event_type, guild in (("GUILD_CREATE", "2"), ("MESSAGE_CREATE", "2"), ("GUILD_CREATE", "1")):
            await asyncio.sleep(QUIET_S - 1)
            reading.dispatch(event_type, {"id": guild})

    complete, reading, _ = play(story)
    assert complete
    assert reading.feed.taken == ["READY", "GUILD_CREATE", "GUILD_CREATE"]
    assert reading.refill.has_identified


def test_damaged_guilds_are_not_waited_for_and_do_not_end_the_reading() -> None:
    async def story(reading: Reading) -> None:
        reading.granted()
        reading.dispatch("READY", {"guilds": [{"id": "1"}, None, {"id": 7}, "x", {"id": "2"}]})
        for guild in (None, {"id": 7}, {"id": "1", "members": None}, {"id": "2"}):
            assert reading.dispatch("GUILD_CREATE", guild)

    complete, reading, seconds = play(story)
    assert complete
    assert seconds < QUIET_S
    assert reading.feed.taken.count("GUILD_CREATE") == 4


def test_a_ready_without_a_list_ends_the_reading() -> None:
    async def story(reading: Reading) -> None:
        reading.granted()
        reading.dispatch("READY", {"guilds": None})

    complete, reading, _ = play(story)
    assert not complete
    assert reading.feed.taken == []


def test_a_guild_in_an_outage_is_not_waited_for_long() -> None:
    async def story(reading: Reading) -> None:
        reading.granted()
        reading.ready("1", "2")
        reading.dispatch("GUILD_CREATE", {"id": "1"})

    complete, _, seconds = play(story)
    assert complete
    assert QUIET_S <= seconds < QUIET_S + 1


def test_the_queue_may_take_its_time_but_the_reading_may_not() -> None:
    async def story(reading: Reading) -> None:
        await asyncio.sleep(5 * TOTAL_S)
        reading.granted()

    complete, _, seconds = play(story)
    assert not complete
    assert 6 * TOTAL_S <= seconds < 6 * TOTAL_S + 10


@pytest.mark.parametrize(
    "report",
    [fx.StateChanged(State.WAITING, "the socket closed"), fx.Failed(4004, "the token is wrong")],
    ids=["closed", "failed"],
)
def test_a_session_that_ends_is_not_tried_twice(report: fx.Report) -> None:
    async def story(reading: Reading) -> None:
        reading.granted()
        reading.ready("1")
        reading.refill.observe(report)

    complete, reading, _ = play(story)
    assert not complete
    assert reading.refill.has_identified


def test_it_is_given_up_when_the_shard_begins_a_session_of_its_own_or_too_much_happens() -> None:
    async def own(reading: Reading) -> None:
        reading.refill.observe(fx.RequestIdentify())
        reading.refill.observe(fx.IdentifyWithdrawn())
        reading.refill.abandon("the shard begins a new session of its own")

    complete, reading, _ = play(own)
    assert not complete
    assert not reading.refill.has_identified
    assert ipc.IdentifyWithdrawn(KEY) in reading.sent

    async def much(reading: Reading) -> None:
        reading.granted()
        reading.ready("1", "2")
        reading.feed.refilling = False
        reading.dispatch("GUILD_CREATE", {"id": "1"})

    assert not play(much)[0]


def test_a_new_gateway_address_reaches_a_reading_under_way() -> None:
    async def main() -> None:
        reading = Reading()
        reading.refill.gateway_moved("wss://moved.example")
        assert FakeConnection.made.posted == [ev.GatewayMoved("wss://moved.example")]

    run_virtual(main())
