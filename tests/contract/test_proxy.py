"""`discord.proxy`: REST and gateway go through it, and the environment's proxies are not used. Real sockets and TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_node.discord_http import discord_session
from sandwich_simulator import BotConfig, Simulator, SimulatorConfig
from tests.contract.test_open_files import TOKEN, Slot, until
from tests.support.certificates import certificate

pytestmark = pytest.mark.contract

DEADLINE_S = 60.0


class Proxy:
    """Forwards CONNECT, for any name, to `port` of this machine. `asked` has the first line of every request."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self.url = ""
        self._port = port

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b"\r\n")[0].decode())
        if not head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, far_writer))
            group.create_task(_copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def proxying(port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.take, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield proxy
    server.close()


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _socket(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    await websocket.send_str("HELLO")
    return websocket


async def test_rest_and_gateway_reach_discord_through_the_proxy_with_tls_from_end_to_end(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "discord.test")
    served, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(cert))
    served.load_cert_chain(str(cert), str(key))
    app = web.Application()
    app.add_routes([web.get("/", _hello), web.get("/gateway", _socket)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=served).start()
    async with (
        asyncio.timeout(DEADLINE_S),
        proxying(runner.addresses[0][1]) as proxy,
        discord_session(proxy.url) as http,
    ):
        # Only the proxy resolves the name: it is unknown on this machine.
        async with http.get("https://discord.test/", ssl=trusted) as response:
            assert await response.text() == "hello"
        async with http.ws_connect("wss://discord.test/gateway", ssl=trusted) as websocket:
            assert await websocket.receive_str() == "HELLO"
    assert {line.split(" HTTP")[0] for line in proxy.asked} == {"CONNECT discord.test:443"}
    await runner.cleanup()


async def test_the_proxy_variables_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with (
        Simulator(SimulatorConfig(bots=[BotConfig(token=TOKEN)])) as sim,
        discord_session() as http,
        http.get(f"{sim.api_url}/gateway") as response,
    ):
        assert response.status == 200


async def test_a_workers_shards_connect_through_the_proxy_of_the_configuration(tmp_path: Path) -> None:
    async with (
        EmbeddedNats(tmp_path) as server,
        Simulator(SimulatorConfig(bots=[BotConfig(token=TOKEN)])) as sim,
        proxying(sim.port) as proxy,
    ):
        slot = Slot(server, sim, proxy.url)
        running = asyncio.create_task(slot.worker.run())
        await until(lambda: slot.ready)
        slot.start(0)
        # Without TLS a proxy is sent the whole URL; this one refuses that, and the shard reports it.
        await until(lambda: "HTTP status 403" in slot.states.get(0, ("", ""))[1])
        assert proxy.asked[0].startswith(f"GET ws://127.0.0.1:{sim.port}/?v=10")
        slot.worker.stop()
        async with asyncio.timeout(DEADLINE_S):
            await running
