"""What can go wrong between a consumer and its stream."""

import os
import ssl
from dataclasses import dataclass

import nats.errors
import nats.js.errors

from sandwich_sdk.event import Event
from sandwich_sdk.wire.plain_text import plain_text

LOST = (nats.errors.Error, OSError, TimeoutError)
"""Errors of nats-py and the system when NATS does not answer, or refuses a request."""


class ConsumerError(Exception):
    """Base of the SDK's own errors."""


class Unreachable(ConsumerError):
    """NATS did not answer within `connect_timeout`."""


class GroupConflict(ConsumerError):
    """The consumer group exists with another lane, or ordered where this worker is not: choose another name."""


class NewerWireVersion(ConsumerError):
    """A frame was written by a newer cluster: update sandwich-sdk. The frame is kept and delivered again."""


class IncompleteParts(ConsumerError):
    """The other parts of an event have not arrived yet; it is retried."""


class Unfinished(ConsumerError):
    """An event was begun `max_tries` times and its handler never ended: its worker died or was stopped each time."""


class HandlerCancelled(ConsumerError):
    """A handler raised CancelledError while its worker was not cancelled: it awaited something that was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One event, or one frame, that could not be handled, as passed to `on_error`.

    error      what the handler raised, or why the frame could not be read
    event      the event whose handler failed; None when the frame itself is bad
    app        application
    stream_seq the frame's sequence in its stream
    tries      tries of the event by its group, or deliveries of the frame, including this one
    given_up   True: it is a dead letter now, and is delivered again only when an operator replays it
    """

    error: Exception
    event: Event | None
    app: str
    stream_seq: int
    tries: int
    given_up: bool


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (nats.errors.OutboundBufferLimitError, "not connected"),
    (nats.errors.NoServersError, "no server could be reached"),
    (nats.errors.AuthorizationError, "the user, password or credentials are refused"),
    (nats.errors.NoRespondersError, "nothing answers on that subject: is JetStream enabled?"),
    (nats.errors.StaleConnectionError, "the server does not answer"),
    (nats.errors.ConnectionReconnectingError, "not connected, reconnecting"),
    (nats.errors.ConnectionClosedError, "the connection is closed"),
    (nats.errors.ConnectionDrainingError, "the connection is closed"),
    (nats.errors.SecureConnRequiredError, "the server requires TLS: use tls://"),
    (nats.errors.UnexpectedEOF, "the server closed the connection"),
    (TimeoutError, "no answer in time"),
)


def reason(error: BaseException) -> str:
    """An error as one line of text, without URLs, which may contain a password."""
    if isinstance(error, nats.js.errors.APIError) and error.description:
        return plain_text(error.description)
    for kind, text in _REASONS:
        if isinstance(error, kind):
            return text
    if isinstance(error, ssl.SSLError):
        # Its number is OpenSSL's, not the system's.
        said = getattr(error, "verify_message", None) or getattr(error, "reason", None) or type(error).__name__
        return plain_text(f"TLS failed: {said}")
    if isinstance(error, OSError) and (error.errno or error.strerror):
        # asyncio's own text contains the address as a Python tuple.
        return plain_text(os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror)
    if type(error) is nats.errors.Error:
        return plain_text(error)
    return type(error).__name__
