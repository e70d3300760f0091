"""A real HTTP server that receives webhooks, and answers as it is asked to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass
class HookServer:
    """`answers`: status, headers and body of the next ones; then 204. `hold`: answers wait until it is set."""

    url: str = ""
    port: int = 0
    answers: list[tuple[int, dict[str, str], str]] = field(default_factory=list)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, count: int) -> None:
        """Wait until so many requests have arrived."""
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= count)

    async def answer(self, request: web.Request) -> web.Response:
        self.received.append((dict(request.headers), await request.read()))
        async with self.arrived:
            self.arrived.notify_all()
        if self.hold is not None:
            await self.hold.wait()
        status, headers, body = self.answers.pop(0) if self.answers else (204, {}, "")
        return web.Response(status=status, headers=headers, text=body or None)


@asynccontextmanager
async def hook_server(**more: Any) -> AsyncIterator[HookServer]:
    """A server on the loopback interface."""
    server = HookServer(**more)
    app = web.Application()
    app.router.add_post("/{rest:.*}", server.answer)
    async with TestServer(app, host="127.0.0.1") as running:
        server.port = running.port or 0
        server.url = f"http://127.0.0.1:{server.port}/hush"
        yield server
        if server.hold is not None:
            server.hold.set()
