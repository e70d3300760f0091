"""The node's HTTP server: `/healthz`, `/readyz`, `/metrics`, `/status`."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.status import NodeStatus
from sandwich_node.http.metrics import render_metrics


class HttpError(RuntimeError):
    """The server cannot listen; the message names the address and the reason."""


def make_app(status: Callable[[], NodeStatus], not_ready: Callable[[], list[str]]) -> web.Application:
    """Routes over the node's status. `not_ready` names what the node still waits for."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        waits = not_ready()
        return web.Response(text="\n".join(waits or ["ok"]) + "\n", status=503 if waits else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=render_metrics(status), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def node_status(_: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(status()), content_type="application/json")

    app = web.Application(client_max_size=64 * 1024)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/status", node_status)
    return app


@asynccontextmanager
async def serve(app: web.Application, address: Address) -> AsyncIterator[int]:
    """Listen while the context lasts; yields the port (chosen by the system for port 0). Raises HttpError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            raise HttpError(f"cannot listen on {address}: {error.strerror}") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
