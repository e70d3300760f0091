"""Requests and answers over a NATS connection."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sandwich_node.rpc.transport import Message, NoAnswer, NoResponder, Serving, TransportError
from sandwich_sdk.errors import reason


class NatsRequests:
    """Implements `Requests`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def body_bytes_max(self) -> int:
        """See `Requests.body_bytes_max`: as the server said at connect."""
        return self._client.max_payload

    async def serve(self, subject: str, handler: Callable[[Message], Awaitable[None]], *, queue: str = "") -> Serving:
        """See `Requests.serve`."""

        async def on_message(message: Msg) -> None:
            await handler(_read(message))

        with _errors():
            return _Serving(self._client, await self._client.subscribe(subject, queue=queue, cb=on_message))

    async def publish(
        self, subject: str, body: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """See `Requests.publish`."""
        with _errors():
            await self._client.publish(subject, body, reply=reply, headers=dict(headers) if headers else None)

    async def request(self, subject: str, body: bytes, *, timeout_s: float, headers: Mapping[str, str]) -> Message:
        """See `Requests.request`."""
        with _errors():
            return _read(await self._client.request(subject, body, timeout=timeout_s, headers=dict(headers)))


class _Serving:
    def __init__(self, client: Client, subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription

    async def end(self) -> None:
        if not self._client.is_closed:
            with _errors():
                await self._subscription.unsubscribe()


def _read(message: Msg) -> Message:
    return Message(message.subject, message.data, message.headers or {}, message.reply)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except nats.errors.NoRespondersError as error:
        raise NoResponder(reason(error)) from None
    except TimeoutError:
        raise NoAnswer("no answer in time") from None
    except (nats.errors.Error, OSError) as error:
        raise TransportError(reason(error)) from None
