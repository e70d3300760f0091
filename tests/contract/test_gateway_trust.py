"""A shard connects nowhere that the API's address does not allow, and is not led elsewhere by a redirect."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from aiohttp import web

from sandwich_node.discord_http import no_redirects
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway.events import StopRequested
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.payloads import ShardConfig
from sandwich_node.gateway.session import Session
from sandwich_node.secret import Secret
from sandwich_node.shards.connection import ShardConnection

API = "http://127.0.0.1:8080/api/v10"
STRANGER = "127.0.0.2"


class Place:
    """A server that takes websockets, or redirects them."""

    def __init__(self, host: str, redirect: str = "") -> None:
        self.host = host
        self.redirect = redirect
        self.url = ""
        self.visits = 0
        self.visited = asyncio.Event()

    async def visit(self, request: web.Request) -> web.StreamResponse:
        self.visits += 1
        self.visited.set()
        if self.redirect:
            return web.Response(status=302, headers={"Location": self.redirect.replace("ws://", "http://")})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket


@asynccontextmanager
async def served(place: Place) -> AsyncIterator[Place]:
    app = web.Application()
    app.router.add_get("/{any:.*}", place.visit)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, place.host, 0)
        await site.start()
        place.url = f"ws://{place.host}:{runner.addresses[0][1]}"
        yield place
    finally:
        await runner.cleanup()


class Seen:
    """Sink and observer that wait for the first failed connection."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.failed = asyncio.Event()

    def dispatch(
        self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool = False
    ) -> bool:
        return True

    async def drained(self) -> None:
        return

    def observe(self, report: fx.Report) -> None:
        if isinstance(report, fx.StateChanged) and report.state is fx.State.WAITING:
            self.reasons.append(report.reason)
            self.failed.set()


@asynccontextmanager
async def shard(gateway_url: str, session: Session | None = None) -> AsyncIterator[Seen]:
    config = ShardConfig(
        token=Secret("t"), shard=0, count=1, intents=1, gateway_url=gateway_url, api_url=API, compression="none"
    )
    seen = Seen()
    async with aiohttp.ClientSession(trace_configs=[no_redirects()]) as http:
        machine = ShardMachine(config, session, random.Random(1))
        connection = ShardConnection(machine, http=http, sink=seen, observer=seen, clock=time.monotonic)
        running = asyncio.create_task(connection.run())
        try:
            yield seen
        finally:
            connection.post(StopRequested("released"))
            await running


async def test_a_gateway_on_another_host_is_not_connected_to() -> None:
    async with served(Place(STRANGER)) as stranger, shard(stranger.url) as seen, asyncio.timeout(10):
        await seen.failed.wait()
        assert f"names the host {STRANGER}" in seen.reasons[0]
        assert stranger.visits == 0


async def test_a_redirect_of_the_gateway_is_not_followed() -> None:
    async with (
        served(Place(STRANGER)) as stranger,
        served(Place("127.0.0.1", stranger.url)) as gateway,
        shard(gateway.url) as seen,
        asyncio.timeout(10),
    ):
        await seen.failed.wait()
        assert "redirects" in seen.reasons[0]
        assert (gateway.visits, stranger.visits) == (1, 0)


@pytest.mark.parametrize("address", ["ws://127.0.0.2:{port}", "ws://127.0.0.1:1@127.0.0.2:{port}"])
async def test_a_session_is_resumed_at_the_gateway_when_its_own_address_is_a_strangers(address: str) -> None:
    async with served(Place(STRANGER)) as stranger, served(Place("127.0.0.1")) as gateway:
        session = Session("s", 7, address.format(port=stranger.url.rpartition(":")[2]))
        async with shard(gateway.url, session), asyncio.timeout(10):
            await gateway.visited.wait()
        assert stranger.visits == 0
