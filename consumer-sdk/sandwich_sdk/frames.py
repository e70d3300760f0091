"""From a delivery to its events, and back to an answer to the stream."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from sandwich_sdk.delivery import Delivery, Intake, OpenFrame, Source
from sandwich_sdk.errors import LOST, Failure, IncompleteParts, NewerWireVersion
from sandwich_sdk.event import Gap, read_events, read_gap
from sandwich_sdk.event_filter import EventFilter
from sandwich_sdk.failures import Failures
from sandwich_sdk.parts import COMPLETE, INTERRUPTED, Assembly
from sandwich_sdk.progress import Progress, retry_delay_s
from sandwich_sdk.wire.dead import CORRUPT, GAP_LETTER
from sandwich_sdk.wire.frame import inflate
from sandwich_sdk.wire.headers import GAP, SWITCH, FrameHeaders, NewerVersion, WireError

_log = logging.getLogger(__name__)

PARTS_WAIT_S = 2.0
PARTS_POLL_S = 0.05


class FrameReader:
    """Opens deliveries and settles them. Frames without events for the caller are settled at once."""

    def __init__(
        self,
        source: Source,
        intake: Intake,
        failures: Failures,
        *,
        event_filter: EventFilter,
        confirm_acks: bool,
        corrupt_tries: int,
        gap_tries: int | None,
        nak_delay_s: float,
        on_gap: Callable[[Gap], Awaitable[None]],
        on_failure: Callable[[Failure], None],
    ) -> None:
        self._source = source
        self._intake = intake
        self._failures = failures
        self._filter = event_filter
        self._confirm_acks = confirm_acks
        self._corrupt_tries = corrupt_tries
        self._gap_tries = gap_tries
        self._nak_delay_s = nak_delay_s
        self._on_gap = on_gap
        self._on_failure = on_failure
        self._progress = Progress()

    async def open(self, delivery: Delivery) -> OpenFrame | None:
        """The delivery's events that the filter selects; None when there are none: the delivery is settled then."""
        try:
            return await self._open(delivery)
        except WireError as error:
            await self._handle_unreadable(delivery, delivery.payload, error)
        except (IncompleteParts, *LOST) as error:
            await self._fail(delivery, error)
        return None

    async def _open(self, delivery: Delivery) -> OpenFrame | None:
        with _decoding():
            headers = FrameHeaders.decode(delivery.headers)
        if headers.kind or not headers.count:
            await self._control(delivery, headers)
            return None
        if not self._filter.may_hold(headers.types):
            await self._ack(delivery)
            return None
        payload: bytes | None = delivery.payload
        if headers.part is not None:
            with _decoding():
                payload = await self._join(delivery, headers) if headers.part[0] == 1 else None
        if payload is None:
            await self._ack(delivery)
            return None
        try:
            with _decoding():
                events = read_events(
                    inflate(payload), headers, received_ns=delivery.received_ns, published_ns=delivery.published_ns
                )
                wanted = self._filter.of(events)
        except WireError as error:
            await self._handle_unreadable(delivery, payload, error)
            return None
        done = self._progress.of(delivery.key)
        await self._failures.load_tries(delivery, done)
        return OpenFrame(delivery, headers, wanted, done)

    async def _control(self, delivery: Delivery, headers: FrameHeaders) -> None:
        """A frame without events. Kinds that this version does not know are acknowledged."""
        if headers.kind == SWITCH and self._source.keep(delivery):
            return
        done = self._progress.of(delivery.key)
        if headers.kind == GAP and not done.position:
            with _decoding():
                gap = read_gap(delivery.subject, delivery.payload, headers, published_ns=delivery.published_ns)
            try:
                await self._on_gap(gap)
            except Exception as error:
                await self._fail_or_store(delivery, GAP_LETTER, delivery.payload, error, self._gap_tries)
                return
            done.mark(0)
        await self._ack(delivery)

    async def _join(self, delivery: Delivery, headers: FrameHeaders) -> bytes | None:
        """All parts joined, read from the first one on; None when their writer was fenced. Raises IncompleteParts."""
        assembly = Assembly(delivery.subject, headers)
        assembly.add(delivery.subject, headers, delivery.payload)
        seq = delivery.stream_seq
        try:
            async with asyncio.timeout(PARTS_WAIT_S):
                while assembly.state not in (COMPLETE, INTERRUPTED):
                    following = await self._source.following(delivery, seq)
                    if following is None:
                        await asyncio.sleep(PARTS_POLL_S)
                        continue
                    seq = following.stream_seq
                    try:
                        read = FrameHeaders.decode(following.headers)
                    except NewerVersion:
                        raise
                    except WireError:
                        # A foreign message: the parts continue after it.
                        continue
                    assembly.add(following.subject, read, following.payload)
        except TimeoutError:
            raise IncompleteParts(f"{len(assembly.chunks)} of {headers.part} parts have arrived") from None
        return assembly.payload if assembly.state == COMPLETE else None

    async def done(self, frame: OpenFrame) -> None:
        """Every event was handled: acknowledge."""
        await self._ack(frame.delivery)

    async def put_back(self, frame: OpenFrame, delay_s: float) -> None:
        """An event failed: the frame is delivered again after `delay_s`."""
        await self.answer(frame.delivery.reply.nak(delay_s))
        self._intake.settle(frame.delivery)

    async def _ack(self, delivery: Delivery) -> None:
        await self.answer(delivery.reply.ack(confirm=self._confirm_acks))
        self._intake.settle(delivery)

    async def _fail(self, delivery: Delivery, error: Exception) -> None:
        self._report(delivery, error, given_up=False)
        await self.answer(delivery.reply.nak(retry_delay_s(self._nak_delay_s, delivery.tries)))
        self._intake.settle(delivery)

    async def _handle_unreadable(self, delivery: Delivery, payload: bytes, error: WireError) -> None:
        """A frame that cannot be read: it is retried, then stored as a dead letter, so that later frames continue."""
        if isinstance(error, NewerVersion):
            await self._fail(delivery, NewerWireVersion(str(error)))
            return
        await self._fail_or_store(delivery, CORRUPT, payload, error, self._corrupt_tries)

    async def _fail_or_store(
        self, delivery: Delivery, kind: str, payload: bytes, error: Exception, tries_max: int | None
    ) -> None:
        last = tries_max is not None and delivery.tries >= tries_max
        if not last or not await self._failures.store_frame(delivery, kind, payload, error):
            await self._fail(delivery, error)
            return
        self._report(delivery, error, given_up=True)
        await self.answer(delivery.reply.term())
        self._intake.settle(delivery)

    def _report(self, delivery: Delivery, error: Exception, *, given_up: bool) -> None:
        self._on_failure(
            Failure(
                error=error,
                event=None,
                app=delivery.app,
                stream_seq=delivery.stream_seq,
                tries=delivery.tries,
                given_up=given_up,
            )
        )

    async def answer(self, answering: Awaitable[None]) -> None:
        """Send an answer. If that fails, the frame is delivered again; the events that were handled are remembered."""
        try:
            await answering
        except LOST as error:
            _log.warning("an answer to NATS was not sent: %s", type(error).__name__)


@contextmanager
def _decoding() -> Iterator[None]:
    """Turns all errors except those of NATS into WireError: one bad frame must not end the consumer."""
    try:
        yield
    except (WireError, IncompleteParts, *LOST):
        raise
    except Exception as error:
        raise WireError(f"the frame cannot be decoded: {type(error).__name__}: {error}") from error
