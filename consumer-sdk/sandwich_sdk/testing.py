"""Test your handlers without servers: events in memory, read by the real Consumer.

cluster = FakeCluster(app="music")
cluster.dispatch("MESSAGE_CREATE", {"id": "1", "content": "!ping"})
await cluster.run(consumer)          # your consumer with its handlers, or Consumer(..., source=cluster)
assert cluster.handled == ["..."]
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard

from sandwich_sdk.consumer import Consumer
from sandwich_sdk.delivery import DeadLetters, Delivery, Intake
from sandwich_sdk.event import Event
from sandwich_sdk.guild_events import (
    GUILD_AVAILABLE,
    GUILD_CREATE,
    GUILD_DELETE,
    GUILD_JOIN,
    GUILD_LEAVE,
    GUILD_UNAVAILABLE,
)
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.dead import EVENT, DeadLetter
from sandwich_sdk.wire.frame import inflate, session_hash
from sandwich_sdk.wire.headers import GAP, FrameHeaders


@dataclass(slots=True)
class _Stored:
    seq: int
    subject: str
    headers: Mapping[str, str]
    payload: bytes
    ids: tuple[str, ...] = ()
    tries: int = 0


class _FakeReply:
    """Records the answers in the cluster."""

    __slots__ = ("_cluster", "_stored")

    def __init__(self, cluster: "FakeCluster", stored: _Stored) -> None:
        self._cluster = cluster
        self._stored = stored

    async def ack(self, *, confirm: bool) -> None:
        dead = {letter.id for letter in self._cluster.dead}
        self._cluster.handled.extend(event_id for event_id in self._stored.ids if event_id not in dead)

    async def nak(self, delay_s: float) -> None:
        self._cluster.give_back(self._stored, delay_s)

    async def term(self) -> None:
        self._cluster.failed.extend(self._stored.ids)

    async def progress(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter: its id, how often it was tried, its last error, and the event (None for an unreadable frame)."""

    id: str
    tries: int
    error: str
    event: Event | None


_AS_SENT: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    GUILD_JOIN: (GUILD_CREATE, {}, {"lazy": False, "unavailable": False}),
    GUILD_LEAVE: (GUILD_DELETE, {}, {"lazy": False, "unavailable": False}),
    GUILD_AVAILABLE: (GUILD_CREATE, {"unavailable": False}, {"lazy": False, "unavailable": True}),
    GUILD_UNAVAILABLE: (GUILD_DELETE, {"unavailable": True}, {"lazy": False, "unavailable": True}),
}
"""For each derived name: the event's type, and fields of Discord's `d` and the cluster's `__extra`."""


def _as_sent(name: str, data: Any, extra: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
    """Type, `d` and `__extra` of an event as the cluster publishes it."""
    if name not in _AS_SENT:
        return name, data, dict(extra)
    event_type, in_data, in_extra = _AS_SENT[name]
    return event_type, {**data, **in_data}, {**in_extra, **extra}


class FakeCluster:
    """An application's stream in memory: implements `Source`. Delays are recorded, not waited for.

    handled  ids of events whose frame was acknowledged, in order, without dead letters
    failed   ids of events whose frame was still failing after `tries_max` deliveries, or was terminated
    dead     dead letters, in order; an event becomes one if the consumer's `max_tries` is reached before `tries_max`
    delays   the delays, in seconds, with which frames were put back
    """

    def __init__(
        self, app: str = "app", *, bot: str = "1", route: str = "", shards: int = 1, tries_max: int = 3
    ) -> None:
        self.app = subjects.check_name(app, what="application")
        self.bot = bot
        self.route = route
        self.shards = shards
        self.handled: list[str] = []
        self.failed: list[str] = []
        self.dead: list[Dead] = []
        self.delays: list[float] = []
        self._tries_max = tries_max
        self._session = session_hash("fake")
        self._sequences: dict[int, int] = {}
        self._pending: deque[_Stored] = deque()
        self._tries: dict[int, dict[str, int]] = {}
        self._stored = 0

    def dispatch(self, event_type: str, data: Any, *, shard: int = 0, extra: Mapping[str, Any] | None = None) -> str:
        """Put one event into the stream, in a frame of its own; returns its `Event.id`.

        For a derived name (GUILD_JOIN, ...) it is the event that it is derived from, with the fields the cluster adds.
        """
        return self.dispatch_many([(event_type, data)], shard=shard, extra=extra)[0]

    def dispatch_many(
        self, events: list[tuple[str, Any]], *, shard: int = 0, extra: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Put events into the stream as one frame; returns their ids. Raises ValueError without events or shard."""
        if not events or not 0 <= shard < self.shards:
            raise ValueError("give at least one event, and a shard that the cluster has")
        first = self._sequences.get(shard, 0) + 1
        ids = [f"{self._session}:{first + offset}" for offset in range(len(events))]
        sent = [_as_sent(name, data, extra or {}) for name, data in events]
        lines = [self._line(event, first + offset, shard) for offset, event in enumerate(sent)]
        self._sequences[shard] = first + len(events) - 1
        headers = FrameHeaders(
            session=self._session,
            first_seq=first,
            last_seq=first + len(events) - 1,
            count=len(events),
            epoch=1,
            types=frozenset(event_type for event_type, _, _ in sent),
        )
        self._store(shard, headers, zstandard.ZstdCompressor().compress(b"".join(lines)), tuple(ids))
        return ids

    def gap(self, *, shard: int = 0) -> None:
        """Report that the shard's session ended and events were lost."""
        last = self._sequences.get(shard, 0)
        headers = FrameHeaders(session=self._session, first_seq=last, last_seq=last, count=0, epoch=1, kind=GAP)
        self._store(shard, headers, b"", ())

    def _line(self, event: tuple[str, Any, dict[str, Any]], seq: int, shard: int) -> bytes:
        event_type, data, extra = event
        line: dict[str, Any] = {"t": event_type, "s": seq, "op": 0, "d": data}
        line["__sandwich"] = {
            "v": 1,
            "app": self.app,
            "bot": self.bot,
            "route": self.route,
            "shard": [0, shard, self.shards],
            "id": f"{self._session}:{seq}",
        }
        if extra:
            line["__extra"] = extra
        return msgspec.json.encode(line) + b"\n"

    def _store(self, shard: int, headers: FrameHeaders, payload: bytes, ids: tuple[str, ...]) -> None:
        self._stored += 1
        subject = subjects.events_subject(self.app, subjects.DEFAULT_LANE, 0, shard)
        self._pending.append(_Stored(self._stored, subject, headers.encode(), payload, ids))

    def give_back(self, stored: _Stored, delay_s: float) -> None:
        """A frame was not handled: it is delivered again, after those that wait, up to `tries_max` times."""
        self.delays.append(delay_s)
        if stored.tries < self._tries_max:
            self._pending.append(stored)
        else:
            self.failed.extend(stored.ids)

    async def run(self, consumer: Consumer) -> None:
        """Run the consumer's handlers over all frames in the stream, and over failed ones again, until none is left."""
        consumer.use_source(self)
        await consumer.run(handle_signals=False)

    @property
    def dead_letters(self) -> DeadLetters:
        """See `Source.dead_letters`: the cluster itself stores them."""
        return self

    async def load_tries(self, delivery: Delivery) -> dict[str, int]:
        """See `DeadLetters.load_tries`."""
        return dict(self._tries.get(delivery.stream_seq, {}))

    async def save_tries(self, delivery: Delivery, tries: Mapping[str, int]) -> None:
        """See `DeadLetters.save_tries`."""
        self._tries[delivery.stream_seq] = dict(tries)

    async def store(
        self, delivery: Delivery, dead_letter: DeadLetter, frame: Mapping[str, str], payload: bytes
    ) -> None:
        """See `DeadLetters.store`."""
        event = Event(inflate(payload).rstrip(b"\n")) if dead_letter.kind == EVENT else None
        self.dead.append(Dead(dead_letter.id, dead_letter.tries, dead_letter.error, event))

    async def open(self) -> None:
        """See `Source.open`: there is nothing to connect."""

    async def feed(self, intake: Intake) -> None:
        """See `Source.feed`: until no frame is pending and all are answered."""
        intake.patient = False
        while self._pending and not intake.stopping:
            for _ in range(min(await intake.room(subjects.stream_name(self.app)), len(self._pending))):
                stored = self._pending.popleft()
                stored.tries += 1
                intake.push(self._delivery(stored))
            await intake.settled()

    def _delivery(self, stored: _Stored) -> Delivery:
        return Delivery(
            app=self.app,
            stream=subjects.stream_name(self.app),
            subject=stored.subject,
            headers=stored.headers,
            payload=stored.payload,
            stream_seq=stored.seq,
            tries=stored.tries,
            reply=_FakeReply(self, stored),
        )

    async def following(self, delivery: Delivery, after: int) -> Delivery | None:
        """See `Source.following`: a fake cluster never splits a frame."""
        return None

    def keep(self, delivery: Delivery) -> bool:
        """See `Source.keep`: a fake cluster has one shard group."""
        return False

    async def close(self) -> None:
        """See `Source.close`."""
