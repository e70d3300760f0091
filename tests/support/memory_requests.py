"""Requests and answers within one process: what `RpcServer` needs of a broker. In order, without a delay of its own."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sandwich_node.rpc.transport import Message, NoAnswer, NoResponder

Handler = Callable[[Message], Awaitable[None]]


@dataclass(eq=False)
class MemoryServing:
    """A subject that is served, until `end`."""

    requests: "MemoryRequests"
    subject: str
    handler: Handler

    async def end(self) -> None:
        self.requests.servings.remove(self)


@dataclass
class MemoryRequests:
    """Implements `Requests`. Of several that serve a subject, the first one gets the messages."""

    tasks: asyncio.TaskGroup
    servings: list[MemoryServing] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def body_bytes_max(self) -> int:
        return 1024 * 1024

    async def serve(self, subject: str, handler: Handler, *, queue: str = "") -> MemoryServing:
        made = MemoryServing(self, subject, handler)
        self.servings.append(made)
        return made

    async def publish(
        self, subject: str, body: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self._deliver(Message(subject, body, headers or {}, reply))

    def _deliver(self, message: Message) -> bool:
        prefix = message.subject.rpartition(".")[0]
        for serving in self.servings:
            if serving.subject in (message.subject, f"{prefix}.*"):
                self.tasks.create_task(serving.handler(message))  # type: ignore[arg-type]
                return True
        return False

    async def request(self, subject: str, body: bytes, *, timeout_s: float, headers: Mapping[str, str]) -> Message:
        inbox = f"_INBOX.{next(self._numbers)}"
        answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        async def take(message: Message) -> None:
            if not answered.done():
                answered.set_result(message)

        serving = await self.serve(inbox, take)
        try:
            if not self._deliver(Message(subject, body, headers, inbox)):
                raise NoResponder(subject)
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError:
            raise NoAnswer("no answer in time") from None
        finally:
            await serving.end()
