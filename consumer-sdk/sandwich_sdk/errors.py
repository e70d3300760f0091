"""What can go wrong between a consumer and its stream."""

from dataclasses import dataclass

from sandwich_sdk.event import Event


class ConsumerError(Exception):
    """Base of the SDK's own errors."""


class Unreachable(ConsumerError):
    """NATS did not answer within `connect_timeout`."""


class GroupConflict(ConsumerError):
    """The consumer group exists in the stream with another lane: choose another group name."""


class NewerWireVersion(ConsumerError):
    """A frame was written by a newer cluster: update sandwich-sdk. The frame is kept and comes again."""


class IncompleteParts(ConsumerError):
    """The rest of an event that travels in parts has not arrived yet; it is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One frame that could not be handled, as told to `on_error`.

    error      what the handler raised, or why the frame could not be read
    event      the event whose handler failed; None when the frame itself is bad
    app        application
    stream_seq the frame's sequence in the application's stream
    tries      how often the frame was delivered so far, this delivery included
    given_up   True: the frame was terminated and never comes again
    """

    error: Exception
    event: Event | None
    app: str
    stream_seq: int
    tries: int
    given_up: bool
