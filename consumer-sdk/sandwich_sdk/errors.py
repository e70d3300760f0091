"""What can go wrong between a consumer and its stream."""

import os
from dataclasses import dataclass

import nats.errors
import nats.js.errors

from sandwich_sdk.event import Event
from sandwich_sdk.wire.plain_text import plain_text

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


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (nats.errors.OutboundBufferLimitError, "there is no connection"),
    (nats.errors.NoServersError, "no server could be reached"),
    (nats.errors.AuthorizationError, "the user, password or credentials are refused"),
    (nats.errors.NoRespondersError, "nobody answers there: is JetStream enabled?"),
    (nats.errors.StaleConnectionError, "the server has fallen silent"),
    (nats.errors.ConnectionReconnectingError, "there is no connection, a new one is made"),
    (nats.errors.ConnectionClosedError, "the connection is closed"),
    (nats.errors.ConnectionDrainingError, "the connection is closed"),
    (nats.errors.SecureConnRequiredError, "the server wants TLS: use tls://"),
    (nats.errors.UnexpectedEOF, "the server closed the connection"),
    (TimeoutError, "no answer in time"),
)


def reason(error: BaseException) -> str:
    """An error in plain words on one line, without a URL that may hold a password."""
    if isinstance(error, nats.js.errors.APIError) and error.description:
        return plain_text(error.description)
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError) and (error.errno or error.strerror):
        # asyncio's own text repeats the address in Python's form.
        return plain_text(os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror)
    if type(error) is nats.errors.Error:
        return plain_text(error)
    return type(error).__name__
