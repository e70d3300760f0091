"""What can go wrong between a consumer and its stream."""

from dataclasses import dataclass

import nats.errors
import nats.js.errors

from sandwich_sdk.event import Event

LOST = (nats.errors.Error, OSError, TimeoutError)
"""What is raised when NATS does not answer, or refuses."""


class ConsumerError(Exception):
    """Base of the SDK's own errors."""


class Unreachable(ConsumerError):
    """NATS did not answer within `connect_timeout`."""


class GroupConflict(ConsumerError):
    """The consumer group exists with another lane, or ordered where this worker is not: choose another name."""


class NewerWireVersion(ConsumerError):
    """A frame was written by a newer cluster: update sandwich-sdk. The frame is kept and comes again."""


class IncompleteParts(ConsumerError):
    """The rest of an event that travels in parts has not arrived yet; it is tried again."""


class Unfinished(ConsumerError):
    """An event was begun `max_tries` times and its handler never ended: its worker died of it, or was stopped."""


class HandlerCancelled(ConsumerError):
    """A handler raised CancelledError and its worker was not cancelled: it awaited what other code cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One event, or one frame, that could not be handled, as told to `on_error`.

    error      what the handler raised, or why the frame could not be read
    event      the event whose handler failed; None when the frame itself is bad
    app        application
    stream_seq the frame's sequence in its stream
    tries      how often the event was tried so far by its group, or the frame delivered, this time included
    given_up   True: it is a dead letter now, and comes again only when somebody replays it
    """

    error: Exception
    event: Event | None
    app: str
    stream_seq: int
    tries: int
    given_up: bool


def reason(error: BaseException) -> str:
    """An error in words, without a URL that may hold a password."""
    if isinstance(error, nats.js.errors.APIError) and error.description:
        return str(error.description)
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    if type(error) is nats.errors.Error:
        return str(error)
    return type(error).__name__
