"""Reading an application's events: as an async iterator, or with handlers.

Delivery is at least once per group. A frame is acknowledged when every event in it was handled. Until then it belongs
to this worker; when the worker dies, it is delivered again, here or to another worker of the group. An event that was
handled does not run again in the same process when its frame is delivered again. An event that fails too often becomes
a dead letter.
"""

import asyncio
import inspect
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from sandwich_sdk.cancellation import Owner, honour_cancel, without_group
from sandwich_sdk.delivery import Intake, OpenFrame, Source
from sandwich_sdk.errors import Failure, Unfinished
from sandwich_sdk.event import Event, Gap
from sandwich_sdk.event_filter import EventFilter
from sandwich_sdk.event_names import name_warning
from sandwich_sdk.failures import Failures
from sandwich_sdk.frames import FrameReader
from sandwich_sdk.groups import SourceOptions
from sandwich_sdk.jetstream import JetStreamSource
from sandwich_sdk.progress import retry_delay_s
from sandwich_sdk.wire.plain_text import plain_text
from sandwich_sdk.wire.subjects import DEFAULT_LANE, check_lane, check_name

_log = logging.getLogger(__name__)

Handler = Callable[[Event], Awaitable[None]]
GapHandler = Callable[[Gap], Awaitable[None]]
ErrorHandler = Callable[[Failure], None]
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_H = TypeVar("_H", bound=Callable[..., Any])

PUMP_TIMEOUT_S = 15.0
PROGRESS_SHARE = 3.0
"""An in-progress answer is sent this many times per `ack_wait`."""


class Consumer:
    """One worker of a consumer group. Use `async with`, and then `async for`, or `run()` with handlers.

    servers          NATS URLs
    app, apps        application(s) to read; exactly one of the two
    group            consumer group: workers with the same name share the events; NATS remembers the group's position
    types            event types and derived names to receive, None for all; frames without any are not opened
    lane             the lane to read, "*" for all lanes in one order
    start            where a group that does not exist yet begins: "new", "all", or an aware datetime
    ordered          keep each shard's order over all workers of the group; a shard waits for its failed event
    concurrency      frames that `run()` handles at once; the frames of one shard always run one after another
    max_in_flight    frames held by this worker, per application; ordered: one for each of its shards
    max_tries        tries of one event, over all workers, before it becomes a dead letter; None: no limit
    nak_delay        seconds until a failed frame is delivered again; doubles up to 60
    ack_wait         seconds after which a dead worker's frames go to another one
    handler_timeout  seconds a handler may take, None: no limit
    confirm_acks     wait for the server's confirmation of each ack (slower, but fewer events run twice)
    corrupt_tries    deliveries after which an unreadable frame becomes a dead letter
    connect_timeout  seconds to wait for NATS at the start, None: no limit
    drain_timeout    seconds that running handlers get when closing
    connection       more arguments for nats-py's connect: user, password, user_credentials, tls, ...
    domain           JetStream domain; "sandwich" with a configuration from `sandwich nats-config`
    source           another source of frames than NATS (`sandwich_sdk.testing`)
    """

    def __init__(
        self,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        *,
        app: str | None = None,
        apps: Sequence[str] | None = None,
        group: str = "default",
        types: Iterable[str] | None = None,
        lane: str = DEFAULT_LANE,
        start: str | datetime = "new",
        ordered: bool = False,
        concurrency: int = 1,
        max_in_flight: int = 64,
        max_tries: int | None = 10,
        nak_delay: float = 1.0,
        ack_wait: float = 30.0,
        handler_timeout: float | None = None,
        confirm_acks: bool = False,
        corrupt_tries: int = 3,
        connect_timeout: float | None = None,
        drain_timeout: float = 30.0,
        connection: Mapping[str, Any] | None = None,
        domain: str | None = None,
        source: Source | None = None,
    ) -> None:
        """Check the arguments; nothing is connected yet. Raises ValueError."""
        if (app is None) == (apps is None):
            raise ValueError("give either app=... or apps=[...]")
        names = [app] if app is not None else list(apps or ())
        if not names or len(set(names)) != len(names):
            raise ValueError("apps must name at least one application, each once")
        _check_start(start)
        _check_positive(concurrency=concurrency, max_in_flight=max_in_flight, corrupt_tries=corrupt_tries)
        _check_positive(ack_wait=ack_wait, drain_timeout=drain_timeout, max_tries=1 if max_tries is None else max_tries)
        if nak_delay < 0:
            raise ValueError("nak_delay must not be negative")
        if isinstance(types, str):
            raise ValueError("types is a list of event types, not one string")
        self._types = frozenset(types) if types is not None else None
        _warn_of_names(self._types or ())
        self._group, self._max_tries = check_name(group, what="group"), max_tries
        self._ordered, self._concurrency, self._max_in_flight = ordered, concurrency, max_in_flight
        self._nak_delay, self._ack_wait, self._handler_timeout = nak_delay, ack_wait, handler_timeout
        self._confirm_acks, self._corrupt_tries, self._drain_timeout = confirm_acks, corrupt_tries, drain_timeout
        self._source: Source = source or JetStreamSource(
            SourceOptions(
                servers=[servers] if isinstance(servers, str) else list(servers),
                apps=[check_name(name, what="application") for name in names],
                group=group,
                lane=check_lane(lane),
                start=start,
                ack_wait_s=ack_wait,
                connect_timeout_s=connect_timeout,
                connection=dict(connection or {}),
                ordered=ordered,
                domain=None if domain is None else check_name(domain, what="domain"),
            )
        )
        self._handlers: dict[str, list[Handler]] = {}
        self._any: list[Handler] = []
        self._on_gap: GapHandler = _log_gap
        self._on_error: ErrorHandler = _log_failure
        self._reset()

    def _reset(self) -> None:
        self._start_intake(EventFilter(self._types))
        self._pump: asyncio.Task[None] | None = None
        self._deadline: asyncio.Timeout | None = None
        self._running = False
        self._owner: Owner
        self._workers: set[asyncio.Task[None]] = set()
        self._frame: OpenFrame | None = None
        self._iterating: asyncio.Task[Any] | None = None
        self._between = asyncio.Event()
        self._between.set()
        self._closed = asyncio.Event()

    def use_source(self, source: Source) -> None:
        """Start again with another source. Raises RuntimeError while the consumer is running."""
        if self._running or self._pump is not None:
            raise RuntimeError("the consumer is running")
        self._source = source
        self._reset()

    # Handlers

    def on(self, *types: str) -> Callable[[_H], _H]:
        """Decorator: run this coroutine function for events of these types or derived names, once for each event.

        Raises ValueError without types, TypeError for a function that is not `async def`. Warns of misspelled names.
        """
        if not types:
            raise ValueError("name at least one event type, or use on_any")
        _warn_of_names(types)

        def register(handler: _H) -> _H:
            for event_type in types:
                self._handlers.setdefault(event_type, []).append(_coroutine(handler))
            return handler

        return register

    def on_any(self, handler: _H) -> _H:
        """Decorator: run this coroutine function for every event."""
        self._any.append(_coroutine(handler))
        return handler

    def on_gap(self, handler: _H) -> _H:
        """Decorator: run this coroutine function when events of a shard are permanently lost."""
        self._on_gap = _coroutine(handler)
        return handler

    def on_error(self, handler: _H) -> _H:
        """Decorator: call this plain function with each Failure, instead of logging it."""
        self._on_error = handler
        return handler

    async def run(self, *, handle_signals: bool = True) -> None:
        """Run the handlers until `close()`, SIGINT or SIGTERM (which drain), or the source ends.

        Raises ConsumerError when the group does not fit or NATS is not reachable, ValueError without handlers.
        """
        if not self._handlers and not self._any:
            raise ValueError("no handler is registered: use @consumer.on(...) or @consumer.on_any")
        if self._running or self._pump is not None or self._closed.is_set():
            raise RuntimeError("the consumer is in use, or closed")
        self._start_intake(EventFilter(self._types, None if self._any else frozenset(self._handlers)))
        self._running, self._owner = True, Owner()
        signals = _SIGNALS if handle_signals and threading.current_thread() is threading.main_thread() else ()
        for number in signals:
            asyncio.get_running_loop().add_signal_handler(number, self._stop)
        try:
            await self._work_all()
        finally:
            for number in signals:
                asyncio.get_running_loop().remove_signal_handler(number)
            await self._shut_down()

    async def _work_all(self) -> None:
        try:
            async with asyncio.timeout(None) as self._deadline:
                await self._start()
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(self._concurrency):
                        self._workers.add(tasks.create_task(self._work()))
        except TimeoutError:
            if self._pump is not None:
                _log.warning("handlers did not end in %.1f s: their frames are delivered again", self._drain_timeout)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _work(self) -> None:
        while (delivery := await self._intake.next()) is not None:
            frame = await self._reader.open(delivery)
            if frame is not None:
                await self._handle(frame)

    async def _handle(self, frame: OpenFrame) -> None:
        """Run the handlers over the rest of a frame. Then settle it; ordered: after a failure, retry it later."""
        most_tries = await self._handle_remaining(frame)
        if not most_tries:
            await self._reader.done(frame)
            return
        delay = retry_delay_s(self._nak_delay, most_tries)
        if self._ordered and not self._intake.stopping:
            self._intake.retry_later(frame.delivery, delay)
        else:
            await self._reader.put_back(frame, delay)

    async def _handle_remaining(self, frame: OpenFrame) -> int:
        """Handle events in order; if ordered, stop at a failure. Returns the most tries of an event to retry, or 0."""
        most_tries = 0
        for offset in frame.done.remaining(len(frame.events)):
            event = frame.events[offset]
            try:
                await self._failures.begin(frame, event)
                with self._owner.calling_handler():
                    await self._call(event)
            except Exception as error:
                if await self._failures.failed(frame, event, error):
                    frame.done.mark(offset)
                    continue
                most_tries = max(most_tries, 1, frame.done.tries[event.id])
                if self._ordered:
                    break
                frame.done.mark_failed(offset)
            else:
                self._failures.handled(frame, event)
                frame.done.mark(offset)
        return most_tries

    async def _call(self, event: Event) -> None:
        if self._handler_timeout is None:
            await self._run_handlers(event)
            return
        async with asyncio.timeout(self._handler_timeout):
            await self._run_handlers(event)

    async def _call_on_gap(self, gap: Gap) -> None:
        with self._owner.calling_handler(), without_group():
            await self._on_gap(gap)

    async def _run_handlers(self, event: Event) -> None:
        named = [*self._handlers.get(event.type, ())]
        if event.derived is not None:
            named += [handler for handler in self._handlers.get(event.derived, ()) if handler not in named]
        for handler in (*named, *self._any):
            with without_group():
                await handler(event)

    # Iteration

    def __aiter__(self) -> Self:
        """Start a loop. If an earlier loop ended at an event, that event was not handled: it comes first."""
        if self._frame is not None:
            self._frame.cursor = -1
        return self

    async def __anext__(self) -> Event:
        """The next event. The call marks the one before as handled."""
        while True:
            frame = self._frame
            if frame is not None and frame.cursor >= 0:
                self._failures.handled(frame, frame.events[frame.cursor])
                frame.done.mark(frame.cursor)
                frame.cursor = -1
            if frame is None or frame.done.position >= len(frame.events):
                frame = await self._next_frame()
            offset = frame.done.position
            try:
                await self._failures.begin(frame, frame.events[offset])
            except Unfinished as error:
                if await self._failures.failed(frame, frame.events[offset], error):
                    frame.done.mark(offset)
                else:
                    await self._put_frame_back()
                continue
            frame.cursor = offset
            return frame.events[offset]

    async def _put_frame_back(self) -> None:
        frame, self._frame = self._frame, None
        if frame is not None:
            await self._reader.put_back(frame, retry_delay_s(self._nak_delay, frame.delivery.tries))
            self._between.set()

    async def _next_frame(self) -> OpenFrame:
        self._iterating, self._owner = asyncio.current_task(), Owner()
        if self._frame is not None:
            finished, self._frame = self._frame, None
            await self._reader.done(finished)
            self._between.set()
        if not self._intake.stopping:
            await self._start()
        while (delivery := await self._intake.next()) is not None:
            frame = await self._reader.open(delivery)
            if frame is None:
                continue
            if frame.done.position >= len(frame.events):
                await self._reader.done(frame)
                continue
            self._frame = frame
            self._between.clear()
            return frame
        raise StopAsyncIteration

    # Life

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop taking frames, let running handlers finish (up to `drain_timeout`), hand the rest back, disconnect.

        A loop in another task receives the rest of its frame first. In the loop's own task, the current event counts as
        not handled. A call from a handler only requests the end and does not wait. Closing twice is not an error.
        """
        self._stop()
        if asyncio.current_task() in self._workers:
            return
        if self._running:
            await self._closed.wait()
            return
        if asyncio.current_task() is not self._iterating:
            try:
                async with asyncio.timeout(self._drain_timeout):
                    await self._between.wait()
            except TimeoutError:
                _log.warning(
                    "the loop did not finish its frame in %.1f s: the frame is delivered again", self._drain_timeout
                )
        await self._shut_down()

    def _stop(self) -> None:
        self._intake.stop()
        deadline = self._deadline
        if deadline is not None and deadline.when() is None:
            grace_s = self._drain_timeout if self._pump is not None else 0.0
            deadline.reschedule(asyncio.get_running_loop().time() + grace_s)

    async def _start(self) -> None:
        if self._pump is not None:
            return
        if self._closed.is_set():
            raise RuntimeError("the consumer is closed")
        await self._source.open()
        self._pump = asyncio.create_task(self._feed(), name="sandwich-consumer")

    async def _feed(self) -> None:
        """The background task of a running consumer: feeds the intake, and reports frames in progress."""
        try:
            async with asyncio.TaskGroup() as tasks:
                progress = tasks.create_task(self._send_progress())
                await self._source.feed(self._intake)
                self._intake.end()
                await self._intake.settled()
                progress.cancel()
        except* Exception as group:
            cause: BaseException = group
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            self._intake.end(cause)

    async def _send_progress(self) -> None:
        while True:
            await asyncio.sleep(self._ack_wait / PROGRESS_SHARE)
            for delivery in self._intake.held:
                await self._reader.answer(delivery.reply.progress())
            honour_cancel()

    async def _shut_down(self) -> None:
        self._intake.stop()
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            _, running = await asyncio.wait([pump], timeout=PUMP_TIMEOUT_S)
            if running:
                _log.warning("reading did not end in %.0f s: closing the connection", PUMP_TIMEOUT_S)
        for delivery in self._intake.held:
            await self._reader.answer(delivery.reply.nak(0))
            self._intake.settle(delivery)
        self._frame = None
        await self._source.close()
        self._running = False
        self._closed.set()

    def _start_intake(self, event_filter: EventFilter) -> None:
        """Start with an empty intake."""
        self._intake = Intake(limit=self._max_in_flight)
        self._failures = Failures(
            self._source.dead_letters, group=self._group, max_tries=self._max_tries, report=self._report
        )
        self._reader = FrameReader(
            self._source,
            self._intake,
            self._failures,
            event_filter=event_filter,
            confirm_acks=self._confirm_acks,
            corrupt_tries=self._corrupt_tries,
            gap_tries=self._max_tries,
            nak_delay_s=self._nak_delay,
            on_gap=self._call_on_gap,
            on_failure=self._report,
        )

    def _report(self, failure: Failure) -> None:
        try:
            self._on_error(failure)
        except (Exception, asyncio.CancelledError):
            # A plain function cannot be cancelled: it read the result of a cancelled task.
            _log.exception("on_error itself failed")


def _coroutine(handler: Any) -> Any:
    called = type(handler).__call__ if callable(handler) else handler
    if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(called):
        raise TypeError("a handler must be an `async def` function")
    return handler


def _warn_of_names(types: Iterable[str]) -> None:
    for name in types:
        if (warning := name_warning(name)) is not None:
            _log.warning("%s", warning)


def _check_start(start: str | datetime) -> None:
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ValueError("start must be a datetime with a time zone")
    elif start not in ("new", "all"):
        raise ValueError('start must be "new", "all" or a datetime')


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} must be positive")


async def _log_gap(gap: Gap) -> None:
    _log.warning("events of %s shard %d were lost after sequence %d", gap.app, gap.shard, gap.last_seq)


def _log_failure(failure: Failure) -> None:
    what = plain_text(f"event {failure.event.id}") if failure.event else "frame"
    _log.error(
        "%s of %s (stream sequence %d) failed, try %d%s",
        what,
        failure.app,
        failure.stream_seq,
        failure.tries,
        ": it is a dead letter now" if failure.given_up else "",
        exc_info=failure.error,
    )
