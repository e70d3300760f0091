"""A switch between two generations of a bot's sessions, with the simulated gateway and virtual time.

It makes what a reconciliation works on: what the old generation published, and what each new shard read before and
during its hold (docs/design/scaling.md). The journal then judges what was made of it.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from sandwich_node.dev.event_check import EventCheck, EventVerdict, JournalEntry
from sandwich_node.events.identity import Identity, identity
from sandwich_sdk.wire.frame import session_hash
from sandwich_simulator import BotConfig
from sandwich_simulator.delays import Delay
from sandwich_simulator.mix import Mix
from sandwich_simulator.protocol import Connection
from tests.simulator.fake_gateway import TOKEN, Fake, taken

STEP_S = 0.01
ACTIONS_PER_STEP = 4
STEPS_BEFORE, STEPS_HELD, STEPS_MAX = 100, 50, 5000
OLD_COUNT, NEW_COUNT = 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Lags:
    """The worst delay of each generation's events, and how late the old one stores what it has read. Seconds."""

    old_s: float = 0.0
    new_s: float = 0.0
    stored_s: float = 0.0
    acks_wait: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as one session got it; `id` is the wire's."""

    identity: Identity
    id: str


@dataclass(slots=True)
class NewShard:
    """A shard of the new generation. `stored`: how much the old one had published when the hold began."""

    stored: int = 0
    before: list[Seen] = field(default_factory=list)
    held: list[Seen] = field(default_factory=list)


class Switch:
    """Plays one switch. Afterwards `published` and `shards` are complete."""

    def __init__(self, seed: int, lags: Lags, *, guilds: int = 6, members: int = 6) -> None:
        self._fake = Fake(BotConfig(token=TOKEN, guilds=guilds, members_per_guild=members, max_concurrency=8))
        self._mix = Mix(self._fake.bot.world, random.Random(seed))
        self._lags = lags
        self._old = self._generation(OLD_COUNT, lags.old_s, seed)
        self._new = self._generation(NEW_COUNT, lags.new_s, seed + 1)
        self._unstored: dict[Connection, list[tuple[float, Seen]]] = {connection: [] for connection in self._old}
        self.published: list[Seen] = []
        self.shards = [NewShard() for _ in self._new]
        self._play()

    def _generation(self, count: int, lag_s: float, seed: int) -> list[Connection]:
        fake = self._fake
        fake.mono += 10.0
        connections = [fake.live(shard=(shard, count)) for shard in range(count)]
        for number, connection in enumerate(connections if lag_s else ()):
            assert connection.session is not None
            rng = random.Random(f"{seed}:{number}")
            fake.gateway.delay(fake.bot, connection.session, Delay(lag_s, fake.mono + 1e6, self._lags.acks_wait, rng))
        return connections

    def _act(self) -> None:
        self._fake.mono += STEP_S
        for _ in range(ACTIONS_PER_STEP):
            for event in self._mix.next_events(self._fake.now.wall_ms):
                self._fake.gateway.publish(self._fake.bot, event, self._fake.now)
        self._fake.gateway.deliver_due(self._fake.now)

    def _beat(self, connections: Iterable[Connection]) -> None:
        for connection in connections:
            connection.receive(b'{"op":1,"d":null}', self._fake.now)

    def _read(self, connection: Connection) -> list[Seen | None]:
        """What came since the last call; None is an acknowledgement."""
        assert connection.session is not None
        found: list[Seen | None] = []
        for item in taken(connection):
            if item["op"] != 0:
                found.append(None)
                continue
            known = identity(item["t"], msgspec.json.encode(item["d"]))
            assert known is not None
            found.append(Seen(known, f"{session_hash(connection.session.id)}:{item['s']}"))
        return found

    def _play(self) -> None:
        holding = self._hold()
        ended: set[Connection] = set()
        self._steps(holding, ended, STEPS_HELD)
        self._beat(self._old)
        for _ in range(STEPS_MAX):
            if len(ended) == len(self._old):
                break
            self._steps(holding, ended, 1, closing=True)
        for connection in self._old:
            connection.closed(1000, self._fake.now)
        self._steps(holding, ended, STEPS_HELD)
        for _ in range(100):  # whatever is on its way arrives
            self._fake.mono += STEP_S
            self._fake.gateway.deliver_due(self._fake.now)
            self._take_new(holding)

    def _hold(self) -> set[Connection]:
        """The new generation reads, then begins its hold with a heartbeat."""
        holding: set[Connection] = set()
        self._steps(holding, set(), STEPS_BEFORE)
        for shard in self.shards:
            shard.stored = len(self.published)
        self._beat(self._new)
        for _ in range(STEPS_MAX):
            if len(holding) == len(self._new):
                break
            self._steps(holding, set(), 1)
        return holding

    def _steps(self, holding: set[Connection], ended: set[Connection], steps: int, *, closing: bool = False) -> None:
        for _ in range(steps):
            self._act()
            self._take_new(holding)
            self._take_old(ended, closing=closing)

    def _take_new(self, holding: set[Connection]) -> None:
        for connection, shard in zip(self._new, self.shards, strict=True):
            for seen in self._read(connection):
                if seen is None:
                    holding.add(connection)
                else:
                    (shard.held if connection in holding else shard.before).append(seen)

    def _take_old(self, ended: set[Connection], *, closing: bool) -> None:
        for connection in self._old:
            if connection in ended:
                continue
            waiting = self._unstored[connection]
            for seen in self._read(connection):
                if seen is not None:
                    waiting.append((self._fake.mono + self._lags.stored_s, seen))
                elif closing:
                    ended.add(connection)
                    break
            while waiting and (connection in ended or waiting[0][0] <= self._fake.mono):
                self.published.append(waiting.pop(0)[1])

    def verdict(self, released: Iterable[Seen]) -> EventVerdict:
        """What the consumer would have got: all that the old generation published, then `released`."""
        check = EventCheck()
        for entry in self._fake.gateway.journal.entries():
            check.sent(msgspec.convert(entry, JournalEntry))
        for seen in (*self.published, *released):
            check.take(seen.id)
        return check.verdict()
