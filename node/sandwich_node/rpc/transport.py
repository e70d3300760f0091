"""How requests and answers travel: what `RpcServer` needs of a message broker. NATS: `nats_requests.py`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


class TransportError(Exception):
    """The broker did not take a message or a subscription. The text says why."""


class NoResponder(TransportError):
    """No process serves the subject."""


class NoAnswer(TransportError):
    """None came in time."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer. `reply` is where an answer goes; "" when none is awaited."""

    subject: str
    body: bytes
    headers: Mapping[str, str]
    reply: str = ""


class Serving(Protocol):
    """A subject that is served."""

    async def end(self) -> None:
        """Take no more requests of it. Raises TransportError."""


class Requests(Protocol):
    """Requests and answers over one connection."""

    @property
    def body_bytes_max(self) -> int:
        """The largest body that one message may carry."""

    async def serve(self, subject: str, handler: Callable[[Message], Awaitable[None]], *, queue: str = "") -> Serving:
        """Pass each message on `subject` to `handler`. Raises TransportError.

        Of all that serve it with the same `queue`, one gets the message.
        """

    async def publish(
        self, subject: str, body: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send one message. Raises TransportError."""

    async def request(self, subject: str, body: bytes, *, timeout_s: float, headers: Mapping[str, str]) -> Message:
        """Send one message and wait for the first answer. Raises NoResponder, NoAnswer, TransportError."""
