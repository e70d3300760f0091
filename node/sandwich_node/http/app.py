"""The node's HTTP server: `/healthz`, `/readyz`, `/metrics`, `/status`, and what `composition` adds to it."""

import errno
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

import msgspec
from aiohttp import web

from sandwich_coordinator.addresses import Address
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.api.server import BODY_BYTES_MAX, problems_only
from sandwich_node.http.metrics import render_metrics
from sandwich_node.http.node_requests import Handler
from sandwich_sdk.wire.plain_text import plain_json, plain_text

Guard = Callable[[Handler], Handler]


class HttpError(RuntimeError):
    """The server cannot listen; the message names the address and the reason."""


def make_app(facts: NodeFacts, guards: Mapping[str, Guard] = MappingProxyType({})) -> web.Application:
    """Routes over the node's status. `guards`: what is asked before a page, by its name; without one it is open."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        waits = facts.not_ready()
        return web.Response(text="\n".join(map(plain_text, waits or ["ok"])) + "\n", status=503 if waits else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=render_metrics(facts.status), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def node_status(_: web.Request) -> web.Response:
        # Read with curl, too: reasons may hold what steers a terminal.
        body = plain_json(msgspec.json.encode(facts.status()).decode()).encode()
        return web.Response(body=body, content_type="application/json")

    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[problems_only])

    def guarded(name: str, handler: Handler) -> Handler:
        guard = guards.get(name)
        return handler if guard is None else guard(handler)

    app.router.add_get("/healthz", guarded("healthz", healthz))
    app.router.add_get("/readyz", guarded("readyz", readyz))
    app.router.add_get("/metrics", guarded("metrics", metrics))
    app.router.add_get("/status", guarded("status", node_status))
    return app


def _why(error: OSError) -> str:
    """The reason with what to do. asyncio's own text repeats the address."""
    if error.errno == errno.EADDRINUSE:
        return (
            "the address is in use: another node on this machine? "
            "Give each its own --node-id and --listen, such as --listen 127.0.0.1:5470 (port 0: any free one)"
        )
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return f"{reason}; --listen takes an address of this machine and a port that this user may open"


@asynccontextmanager
async def serve(app: web.Application, address: Address, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen while the context lasts; yields the port (chosen by the system for port 0). Raises HttpError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise HttpError(f"cannot listen on {address}: {_why(error)}") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
