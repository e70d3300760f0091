"""Events that fail: their tries are counted, and after `max_tries` tries an event becomes a dead letter.

Tries are counted for each event, over all workers of the group. When an event was delivered again, or failed before,
its next try is saved in NATS before it starts. So an event that kills its worker is counted as well, and becomes a dead
letter without another run. A first try costs nothing. JetStream's own count of deliveries is not used: it counts whole
frames, and also grows when a worker that stops hands back frames that it never began.
"""

import logging
import time
from collections.abc import Callable, Mapping

from sandwich_sdk.delivery import DeadLetters, Delivery, OpenFrame
from sandwich_sdk.errors import LOST, Failure, Unfinished, reason
from sandwich_sdk.event import Event
from sandwich_sdk.progress import FrameProgress
from sandwich_sdk.wire.dead import EVENT, DeadLetter, error_text, event_frame, frame_of

_log = logging.getLogger(__name__)


class Failures:
    """Counts the tries of events, and stores dead letters. `max_tries` None: no limit, and no count."""

    def __init__(
        self, dead_letters: DeadLetters, *, group: str, max_tries: int | None, report: Callable[[Failure], None]
    ) -> None:
        self._dead_letters = dead_letters
        self._group = group
        self._max_tries = max_tries
        self._report = report
        self._warned = False

    async def load_tries(self, delivery: Delivery, done: FrameProgress) -> None:
        """Read how often the events of this frame were tried, if it was delivered before."""
        if self._max_tries is None or delivery.tries == 1:
            return
        try:
            done.load_tries(await self._dead_letters.load_tries(delivery))
        except LOST as error:
            self._warn_count_is_local(error)

    async def begin(self, frame: OpenFrame, event: Event) -> None:
        """Count a try before it starts. Raises Unfinished when none is left: do not start it, call `failed`."""
        tries = frame.done.tries
        before = tries.get(event.id, 0)
        if self._max_tries is not None and before >= self._max_tries:
            raise Unfinished(f"begun {before} times and never ended: its worker died or was stopped each time")
        tries[event.id] = before + 1
        if before or frame.delivery.tries > 1:
            await self._save_tries(frame)

    def handled(self, frame: OpenFrame, event: Event) -> None:
        """The try succeeded."""
        del frame.done.tries[event.id]

    async def failed(self, frame: OpenFrame, event: Event, error: Exception) -> bool:
        """A try failed. Returns True if the event is a dead letter now and counts as handled."""
        delivery, counted = frame.delivery, frame.done.tries
        tries = counted[event.id]
        last = self._max_tries is not None and tries >= self._max_tries
        given_up = last and await self._store_event(frame, event, tries, error)
        self._report(
            Failure(
                error=error,
                event=event,
                app=delivery.app,
                stream_seq=delivery.stream_seq,
                tries=tries,
                given_up=given_up,
            )
        )
        if given_up:
            del counted[event.id]
        elif last and not isinstance(error, Unfinished):
            # It could not be stored as a dead letter: its last try is repeated.
            counted[event.id] = tries - 1
        await self._save_tries(frame)
        return given_up

    async def _store_event(self, frame: OpenFrame, event: Event, tries: int, error: Exception) -> bool:
        headers, payload = event_frame(event.raw, event.seq, event.type, frame.headers)
        return await self._store(frame.delivery, (EVENT, event.id, event.type), headers, payload, tries, error)

    async def store_frame(self, delivery: Delivery, kind: str, payload: bytes, error: Exception) -> bool:
        """Store a whole frame, which gave no events, as a dead letter. False: it could not be stored."""
        return await self._store(delivery, (kind, "", ""), frame_of(delivery.headers), payload, delivery.tries, error)

    async def _store(
        self,
        delivery: Delivery,
        what: tuple[str, str, str],
        frame: Mapping[str, str],
        payload: bytes,
        tries: int,
        error: Exception,
    ) -> bool:
        kind, event_id, event_type = what
        dead_letter = DeadLetter(
            kind=kind,
            group=self._group,
            id=event_id,
            type=event_type,
            subject=delivery.subject,
            stream_seq=delivery.stream_seq,
            tries=tries,
            error=error_text(error),
            at=time.time(),
        )
        try:
            await self._dead_letters.store(delivery, dead_letter, frame, payload)
        except LOST as storing_error:
            _log.warning("a dead letter of %s could not be stored, retrying: %s", delivery.app, reason(storing_error))
            return False
        return True

    async def _save_tries(self, frame: OpenFrame) -> None:
        done = frame.done
        if self._max_tries is None or done.tries == done.saved_tries:
            return
        try:
            await self._dead_letters.save_tries(frame.delivery, done.tries)
        except LOST as error:
            self._warn_count_is_local(error)
        else:
            done.saved_tries = dict(done.tries)
            self._warned = False

    def _warn_count_is_local(self, error: BaseException) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "tries are counted in this process only, the saved ones cannot be read or written: %s", reason(error)
            )
