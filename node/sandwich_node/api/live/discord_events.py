"""Events of applications as they are published, for readers who watch.

One ordered consumer of an application serves all of its readers on this node: it is ephemeral, in memory, acknowledges
nothing, and no other consumer notices it. Reading takes CPU that the agent needs: so frames are inflated up to a rate,
and what is above it is passed over and counted. So is what a reader is sent above its own rate, or does not take.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandwich_coordinator.event_filter import EventFilter
from sandwich_coordinator.operations.errors import NotFound, Unavailable
from sandwich_coordinator.operations.frame_events import decoded_event, joined, one_line
from sandwich_node.api.live.event_stream import Places, Reader, sse, sse_text
from sandwich_node.api.messaging import Messaging
from sandwich_sdk.wire.frame import inflate, split_events
from sandwich_sdk.wire.headers import GAP, UNREADABLE, FrameHeaders, WireError
from sandwich_sdk.wire.subjects import stream_name, stream_subjects

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

_log = logging.getLogger(__name__)

READERS_MAX = 50
READ_PER_S = 2000.0
"""Events that are inflated and looked at, of all applications. A tenth of a core, about."""
SENT_PER_S = 100.0
BURST_S = 2.0
SUBSCRIBE_S = 10.0
"""Longer than connecting to NATS may take, whose error says more."""
NEXT_S = 1.0
CHECK_S = 10.0
"""After so long without an event it is asked whether the consumer is still there: a server that restarts forgets it."""
IDLE_S = 5.0
INFLATED_MAX = 64 * 1024 * 1024
PENDING_BYTES_MAX = 32 * 1024 * 1024
PARTS_BYTES_MAX = 64 * 1024 * 1024


@dataclass
class Allowance:
    """So many a second, and what two seconds of quiet have saved. `now`: seconds of one monotonic clock."""

    per_s: float
    _left: float = 0.0
    _at: float = float("-inf")

    def take(self, now: float, count: int = 1) -> bool:
        """Whether `count` more are allowed; a frame that is larger than the rest is, while there is a rest."""
        most = self.per_s * BURST_S
        self._left = min(most, self._left + (now - self._at) * self.per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= count
        return True


@dataclass(eq=False)
class _Watcher:
    """One reader. `skipped`: events that it was not sent since it was last notified of such."""

    wanted: EventFilter
    allowance: Allowance
    reader: Reader = field(default_factory=Reader)
    skipped: int = 0
    notified_at: float = 0.0

    def send(self, chunk: bytes, now: float) -> None:
        if self.reader.is_full or not self.allowance.take(now):
            self.skipped += 1
        else:
            self.reader.put(chunk)

    def notify(self, now: float) -> None:
        """Report what was left out, at most once a second."""
        if self.skipped and now >= self.notified_at + 1.0 and not self.reader.is_full:
            self.reader.put(sse("skipped", {"events": self.skipped}))
            self.skipped, self.notified_at = 0, now


class EventStreams:
    """The streams of all applications on this node."""

    def __init__(self, messaging: Messaging, *, read_per_s: float = READ_PER_S, sent_per_s: float = SENT_PER_S) -> None:
        self.places = Places(READERS_MAX)
        self._messaging = messaging
        self._reading = Allowance(read_per_s)
        self._sent_per_s = sent_per_s
        self._feeds: dict[str, _Feed] = {}

    async def watch(self, app: str, wanted: EventFilter) -> AsyncGenerator[bytes, None]:
        """Events from now on. Raises NotFound without a stream, Unavailable without NATS, and ApiError."""
        feed = self._feeds.get(app)
        if feed is None or feed.ended:
            feed = self._feeds[app] = _Feed(app, self._messaging, self._reading)
        try:
            async with asyncio.timeout(SUBSCRIBE_S):
                await asyncio.shield(feed.subscribed)
        except TimeoutError:
            raise Unavailable(f"JetStream does not answer within {SUBSCRIBE_S:g} s") from None
        # Others may have taken the last places meanwhile.
        self.places.check()
        return self._chunks(feed, _Watcher(wanted, Allowance(self._sent_per_s)))

    async def _chunks(self, feed: "_Feed", watcher: _Watcher) -> AsyncGenerator[bytes, None]:
        with self.places:
            feed.add(watcher)
            try:
                async for chunk in watcher.reader.chunks():
                    yield chunk
            finally:
                feed.remove(watcher)

    async def close(self) -> None:
        """End every stream."""
        tasks = [feed.task for feed in self._feeds.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class _Feed:
    """The consumer of one application, and its readers. It ends when it has had none for a while."""

    def __init__(self, app: str, messaging: Messaging, reading: Allowance) -> None:
        self._app = app
        self._messaging = messaging
        self._reading = reading
        self._watchers: set[_Watcher] = set()
        self._parts: dict[str, bytes] = {}
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._used_at = self._clock()
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Looked at by every reader that waits for it, and by none when they have gone.
        self.subscribed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.task = asyncio.create_task(self._run(), name=f"events of {app}")

    @property
    def ended(self) -> bool:
        """Whether it takes no reader any more."""
        return self.task.done()

    def add(self, watcher: _Watcher) -> None:
        """Send to this reader from now on."""
        if self.ended:
            watcher.reader.cut()
        self._watchers.add(watcher)

    def remove(self, watcher: _Watcher) -> None:
        """The reader is gone."""
        self._watchers.discard(watcher)
        self._used_at = self._clock()

    async def _run(self) -> None:
        try:
            async with self._messaging.client() as client:
                subscription = await self._subscribe(client)
                try:
                    self.subscribed.set_result(None)
                    await self._read(client, subscription)
                finally:
                    await _unsubscribe(subscription)
        except Exception as error:
            if not self.subscribed.done():
                self.subscribed.set_exception(error)
            else:
                _log.warning("watching the events of %s ended: %s", self._app, error)
        finally:
            if not self.subscribed.done():
                self.subscribed.cancel()
            # Each reader connects again, and learns why there is nothing.
            for watcher in self._watchers:
                watcher.reader.cut()

    async def _subscribe(self, client: "Client") -> "JetStreamContext.PushSubscription":
        import nats.errors
        import nats.js.errors
        from nats.js.api import DeliverPolicy

        stream = stream_name(self._app)
        try:
            return await client.jetstream().subscribe(
                stream_subjects(self._app)[0],
                stream=stream,
                ordered_consumer=True,
                deliver_policy=DeliverPolicy.NEW,
                pending_bytes_limit=PENDING_BYTES_MAX,
            )
        except nats.js.errors.NotFoundError:
            missing = f"application {self._app} has no stream yet: no shard of it has published"
            raise NotFound("stream", stream, (), missing) from None
        except (nats.js.errors.Error, nats.errors.Error, TimeoutError) as error:
            raise Unavailable(f"JetStream does not answer: {type(error).__name__}") from None

    async def _read(self, client: "Client", subscription: "JetStreamContext.PushSubscription") -> None:
        import nats.errors

        received_at = self._clock()
        while self._watchers or self._clock() < self._used_at + IDLE_S:
            now = self._clock()
            for watcher in self._watchers:
                watcher.notify(now)
            try:
                message = await subscription.next_msg(timeout=NEXT_S)
            except nats.errors.TimeoutError:
                if client.is_closed:
                    raise Unavailable("the connection to NATS was closed") from None
                if now >= received_at + CHECK_S:
                    await subscription.consumer_info()
                    received_at = now
                continue
            received_at = now
            self._take(message)
            # Between two frames the node's own work has its turn.
            await asyncio.sleep(0)

    def _take(self, message: "Msg") -> None:
        now = self._clock()
        try:
            headers = FrameHeaders.decode(message.headers)
        except WireError:
            return
        if headers.count == 0:
            if headers.kind == GAP:
                self._send_all(sse("gap", {"app": self._app, "after": headers.last_seq, "subject": message.subject}))
            return
        watchers = [watcher for watcher in self._watchers if watcher.wanted.may_want(headers.types)]
        if not watchers:
            return
        if not self._reading.take(now, headers.count) or sum(map(len, self._parts.values())) > PARTS_BYTES_MAX:
            self._parts.clear()
            for watcher in watchers:
                watcher.skipped += headers.count
            return
        try:
            payload = joined(self._parts, message.subject, headers, message.data)
            events = split_events(inflate(payload, limit=INFLATED_MAX)) if payload is not None else []
        except WireError:
            events = []
        for event in events:
            self._send(event, watchers, now)

    def _send(self, event: bytes, watchers: list[_Watcher], now: float) -> None:
        try:
            decoded = decoded_event(event)
            kind, data = decoded["t"], decoded.get("d")
            those = [watcher for watcher in watchers if watcher.wanted.wants(kind, data)]
        except (LookupError, TypeError, *UNREADABLE):
            # What cannot be read is in the stream for `sandwich tail`, which shows that it is there.
            return
        if those:
            chunk = sse_text("event", one_line(event))
            for watcher in those:
                watcher.send(chunk, now)

    def _send_all(self, chunk: bytes) -> None:
        for watcher in self._watchers:
            if not watcher.reader.is_full:
                watcher.reader.put(chunk)


async def _unsubscribe(subscription: "JetStreamContext.PushSubscription") -> None:
    import nats.errors

    try:
        await subscription.unsubscribe()
    except (nats.errors.Error, OSError):
        # The connection is gone, and the server forgets the consumer by itself.
        pass
