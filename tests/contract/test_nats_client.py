"""A NATS server that goes silent without closing its connections: over TLS, whose end the peer has to answer."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import nats.errors
import pytest
from nats.aio.client import Client, Srv

from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk.nats_client import PING_INTERVAL_S, UNANSWERED_PINGS_MAX, ReconnectingClient
from tests.support.servers import Certificates

pytestmark = pytest.mark.contract
TLS_END_S = 30
"""asyncio: how long the end of a TLS session waits for the peer's answer."""
SOON_S = 10.0


async def start_server(directory: Path, certificates: Certificates) -> EmbeddedNats:
    cert, key = certificates.issue(directory.name, "127.0.0.1")
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}", timeout: 5 }}'
    # Plain connections are let in as well, for the question whether the server is ready.
    server = EmbeddedNats(directory, jetstream=False, extra=(tls, "allow_non_tls: true"))
    await server.start()
    return server


def connected_to(client: ReconnectingClient) -> int | None:
    return client.connected_url.port if client.connected_url else None


async def test_a_silent_server_is_left_for_the_next_one_and_delays_no_end(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    first, second = [await start_server(tmp_path / name, certificates) for name in ("first", "second")]
    client = ReconnectingClient()
    is_back = asyncio.Event()

    async def reconnected() -> None:
        is_back.set()

    try:
        await client.connect(
            servers=[first.url.replace("nats:", "tls:"), second.url.replace("nats:", "tls:")],
            tls=ssl.create_default_context(cafile=str(certificates.ca)),
            dont_randomize=True,
            ping_interval=0.2,
            reconnected_cb=reconnected,
        )
        assert connected_to(client) == first.port
        await first.pause()
        async with asyncio.timeout(SOON_S):
            await is_back.wait()
        assert connected_to(client) == second.port

        await second.pause()
        async with asyncio.timeout(SOON_S):
            await client.close()
        assert client.is_closed
    finally:
        for server in (first, second):
            server.unpause()
            await server.stop()


@pytest.mark.parametrize("how", ["url", "context"])
async def test_a_server_without_tls_gets_no_password(how: str, tmp_path: Path) -> None:
    received: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","headers":true,"max_payload":1048576}\r\n')
        with contextlib.suppress(ConnectionError):
            received.append(await reader.read(1000))
        writer.close()

    client, ca = ReconnectingClient(), Certificates(tmp_path).ca
    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    secure = {"tls": ssl.create_default_context(cafile=str(ca))} if how == "context" else {}
    try:
        with pytest.raises(nats.errors.Error, match="offers no TLS"):
            await client.connect(
                servers=f"{'tls' if how == 'url' else 'nats'}://127.0.0.1:{port}",
                user="music",
                password="hunter2-canary",
                allow_reconnect=False,
                **secure,
            )
    finally:
        await client.close()
        server.close()
    assert not any(received)


@pytest.mark.parametrize(
    ("url", "first", "info", "outcome"),
    [
        ("tls://nats:4222", False, {}, "refused"),
        ("tls://nats:4222", False, {"tls_available": True}, "upgraded"),
        ("tls://nats:4222", False, {"tls_required": True}, "upgraded"),
        # The server's first line comes encrypted: it need not say so.
        ("tls://nats:4222", True, {}, "as it is"),
        ("wss://nats:443", False, {}, "as it is"),
        # nats-py upgrades no WebSocket.
        ("ws://nats:80", False, {"tls_available": True}, "refused"),
        ("nats://nats:4222", False, {}, "as it is"),
    ],
)
async def test_what_the_first_line_of_a_server_may_lack(
    url: str, first: bool, info: dict[str, Any], outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    async def process(client: Client, info: dict[str, Any], initial_connection: bool = False) -> None:
        seen.append(info)

    monkeypatch.setattr(Client, "_process_info", process)
    client = ReconnectingClient()
    client._current_server = Srv(urlparse(url))
    client.options = {"tls_handshake_first": first}
    client._needs_tls = not url.startswith("nats:")
    if outcome == "refused":
        with pytest.raises(nats.errors.Error, match="offers no TLS"):
            await client._process_info(dict(info), initial_connection=True)
        return
    await client._process_info(dict(info), initial_connection=True)
    assert seen == [{**info, "tls_required": True} if outcome == "upgraded" else info]


def test_a_silent_server_is_left_before_a_session_of_discord_is_lost() -> None:
    assert PING_INTERVAL_S * (UNANSWERED_PINGS_MAX + 1) <= 15
    assert SOON_S < TLS_END_S
