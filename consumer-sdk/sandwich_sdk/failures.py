"""What becomes of an event that fails: its tries are counted, and after `max_tries` of them it is a dead letter.

Tries are counted by event, over all workers of the group. A try of an event that came again, or failed before, is noted
in NATS before it is made: an event that kills its worker is counted, too, and ends as a dead letter without another
run. A first try costs nothing. JetStream's own count of deliveries is of the whole frame, and grows when a worker that
stops hands back what it never began: it is no measure of an event.
"""

import logging
import time
from collections.abc import Callable, Mapping

from sandwich_sdk.delivery import DeadLetters, Delivery, OpenFrame
from sandwich_sdk.errors import LOST, Failure, Unfinished, reason
from sandwich_sdk.event import Event
from sandwich_sdk.progress import Done
from sandwich_sdk.wire.dead import EVENT, DeadLetter, error_text, event_frame, frame_of

_log = logging.getLogger(__name__)


class Failures:
    """Counts the tries of events, and buries what has used them up. `max_tries` None: tried for ever, not counted."""

    def __init__(
        self, letters: DeadLetters, *, group: str, max_tries: int | None, tell: Callable[[Failure], None]
    ) -> None:
        self._letters = letters
        self._group = group
        self._max_tries = max_tries
        self._tell = tell
        self._told = False

    async def recall(self, delivery: Delivery, done: Done) -> None:
        """A frame is here that may have failed elsewhere: learn how often its events were tried."""
        if self._max_tries is None or delivery.tries == 1:
            return
        try:
            done.recall(await self._letters.recall(delivery))
        except LOST as error:
            self._without_notes(error)

    async def begin(self, frame: OpenFrame, event: Event) -> None:
        """Count a try before it is made. Raises Unfinished when none is left: do not make it, tell `failed`."""
        tries = frame.done.tries
        before = tries.get(event.id, 0)
        if self._max_tries is not None and before >= self._max_tries:
            raise Unfinished(f"begun {before} times and never ended: the worker died of it, or was stopped")
        tries[event.id] = before + 1
        if before or frame.delivery.tries > 1:
            await self._note(frame)

    def handled(self, frame: OpenFrame, event: Event) -> None:
        """The try went well."""
        del frame.done.tries[event.id]

    async def failed(self, frame: OpenFrame, event: Event, error: Exception) -> bool:
        """A try failed. True: the event is a dead letter now, and counts as handled."""
        delivery, counted = frame.delivery, frame.done.tries
        tries = counted[event.id]
        last = self._max_tries is not None and tries >= self._max_tries
        given_up = last and await self._bury_event(frame, event, tries, error)
        self._tell(
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
            # It could not be buried: it is tried again, as its last try.
            counted[event.id] = tries - 1
        await self._note(frame)
        return given_up

    async def _bury_event(self, frame: OpenFrame, event: Event, tries: int, error: Exception) -> bool:
        headers, payload = event_frame(event.raw, event.seq, event.type, frame.headers)
        return await self._bury(frame.delivery, (EVENT, event.id, event.type), headers, payload, tries, error)

    async def bury_frame(self, delivery: Delivery, kind: str, payload: bytes, error: Exception) -> bool:
        """Make a dead letter of a frame that is no events to us. False: it could not be stored."""
        return await self._bury(delivery, (kind, "", ""), frame_of(delivery.headers), payload, delivery.tries, error)

    async def _bury(
        self,
        delivery: Delivery,
        what: tuple[str, str, str],
        frame: Mapping[str, str],
        payload: bytes,
        tries: int,
        error: Exception,
    ) -> bool:
        kind, event_id, event_type = what
        letter = DeadLetter(
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
            await self._letters.bury(delivery, letter, frame, payload)
        except LOST as refusal:
            _log.warning(
                "a dead letter of %s could not be stored, it is tried again: %s", delivery.app, reason(refusal)
            )
            return False
        return True

    async def _note(self, frame: OpenFrame) -> None:
        done = frame.done
        if self._max_tries is None or done.tries == done.noted:
            return
        try:
            await self._letters.note(frame.delivery, done.tries)
        except LOST as error:
            self._without_notes(error)
        else:
            done.noted = dict(done.tries)
            self._told = False

    def _without_notes(self, error: BaseException) -> None:
        if not self._told:
            self._told = True
            _log.warning("tries are counted in this process only, the notes of others do not answer: %s", reason(error))
