"""The readers of one producer on this node. It works only while there are any."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from sandwich_node.api.live.event_stream import Places, Reader

_log = logging.getLogger(__name__)


class Subscriber(Protocol):
    """What is known of one reader."""

    @property
    def reader(self) -> Reader:
        """The chunks for it."""


S = TypeVar("S", bound=Subscriber)


class Audience(Generic[S]):
    """At most `most` readers. `what` names their stream in the log."""

    def __init__(self, what: str, most: int) -> None:
        self.places = Places(most)
        self.subscribers: set[S] = set()
        self._what = what
        self._wake = asyncio.Event()

    async def chunks(self, subscriber: S) -> AsyncGenerator[bytes, None]:
        """The stream of one reader, who is in `subscribers` meanwhile."""
        with self.places:
            self.subscribers.add(subscriber)
            self._wake.set()
            try:
                async for chunk in subscriber.reader.chunks():
                    yield chunk
            finally:
                self.subscribers.discard(subscriber)

    async def serve(self, turn: Callable[[], Awaitable[None]], forget: Callable[[], None], *, every_s: float) -> None:
        """Do `turn` every `every_s` seconds while there are readers, until cancelled.

        `forget` drops what readers were sent: when there are none, and when a turn fails, which cuts them all off.
        """
        while True:
            if not self.subscribers:
                forget()
                self._wake.clear()
                await self._wake.wait()
            try:
                await turn()
            except Exception:
                # The stream is for people who watch: the node goes on without it, and its log says why.
                _log.exception("the stream of %s failed; its readers begin again", self._what)
                forget()
                self.cut()
            await asyncio.sleep(every_s)

    def cut(self) -> None:
        """End every stream."""
        for subscriber in self.subscribers:
            subscriber.reader.cut()
