"""The programs of docs/examples, with a real nats-server without accounts. With accounts: test_permissions.py."""

import asyncio
from pathlib import Path

import nats
import pytest
import zstandard

from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk.wire.headers import FENCE, GAP
from tests.support.examples import example, settings
from tests.support.processes import started
from tests.support.publisher import Publisher, settled
from tests.support.servers import Certificates

pytestmark = pytest.mark.contract


async def send_damage(publisher: Publisher) -> None:
    """Frames as no node writes them; the one readable event among them is printed as SONG x:0."""
    headers, payload = publisher.frame(1)
    publisher.seq -= 1
    good = b'{"t":"SONG","s":null,"op":0,"d":1,"__sandwich":{"id":"x:0"}}'
    damaged = [
        b'{"t":"SONG","d":%b,"__sandwich":{"id":"x:0"}' % (b"[" * 20_000 + b"]" * 20_000),
        b'{"t":"\xff',
        b'{"t":"SONG","d":{"a":',
        b"1}",
        b"[]",
        b"1",
        b"null",
        b"",
    ]
    lines = b"\n".join((*damaged[:3], good, *damaged[3:], b""))
    await publisher.send(headers.encode(), zstandard.ZstdCompressor().compress(lines))
    for broken in (b"no zstd", payload[:-4], b"", zstandard.ZstdCompressor().compress(b"no end of line")):
        await publisher.send(headers.encode(), broken)
    for part in ("x/y", "1", "/", "2/2", "1/2"):
        await publisher.send({**headers.encode(), "Sandwich-Part": part}, payload)
    await publisher.send({}, b"")


@pytest.mark.parametrize("program", ["sdk.py", "raw.py", "consumer.mjs"])
async def test_an_example_creates_its_group_and_prints_every_event(
    server: EmbeddedNats, publisher: Publisher, tmp_path: Path, program: str
) -> None:
    """Plain frames, control frames and an event in parts; the programs without SDK pass over damaged frames, too."""
    command = await example(program, tmp_path)
    is_raw = program != "sdk.py"
    if is_raw:
        await send_damage(publisher)
    await publisher.control(FENCE)
    await publisher.events(2)
    headers, payload = publisher.frame(1)
    half = len(payload) // 2
    for index, piece in enumerate((payload[:half], payload[half:]), start=1):
        await publisher.send({**headers.encode(), "Sandwich-Part": f"{index}/2"}, piece)
    await publisher.control(GAP, b"{}")
    await publisher.events(1)
    expected = [*(["SONG x:0"] if is_raw else []), *(f"A abc:{n}" for n in range(1, 5))]
    piped = {"env": settings(server.url), "stdout": asyncio.subprocess.PIPE}
    async with asyncio.timeout(60), started(*command, "bot", "example", **piped) as process:
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode().strip() for _ in expected]
        await settled(publisher, "example")
    assert lines == expected


@pytest.mark.parametrize("program", ["sdk.py", "raw.py", "consumer.mjs"])
async def test_an_example_reads_over_tls(tmp_path: Path, program: str) -> None:
    command = await example(program, tmp_path)
    certificates = Certificates(tmp_path)
    cert, key = certificates.issue("server", "127.0.0.1")
    # Plain connections are let in as well, for the question whether the server is ready.
    lines = (f'tls {{ cert_file: "{cert}", key_file: "{key}", timeout: 5 }}', "allow_non_tls: true")
    async with EmbeddedNats(tmp_path / "nats", extra=lines) as server:
        url = server.url.replace("nats:", "tls:")
        client = await nats.connect(server.url)
        publisher = Publisher(client)
        await publisher.make_stream()
        await publisher.events(1)
        piped = {"env": settings(url, NATS_CA=str(certificates.ca)), "stdout": asyncio.subprocess.PIPE}
        async with asyncio.timeout(60), started(*command, "bot", "example", **piped) as process:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"A abc:1\n"
        await client.close()


@pytest.mark.parametrize("program", ["sdk.py", "raw.py", "consumer.mjs"])
async def test_an_example_sends_no_password_to_a_server_without_tls(tmp_path: Path, program: str) -> None:
    received: list[bytes] = []
    asked = asyncio.Event()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","headers":true,"max_payload":1048576}\r\n')
        received.append(await reader.read())
        writer.close()
        asked.set()

    command = await example(program, tmp_path)
    async with asyncio.timeout(60), await asyncio.start_server(pretend, "127.0.0.1", 0) as server:
        url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        login = settings(url, NATS_USER="bot", NATS_PASSWORD="hunter2")
        async with started(*command, "bot", "example", env=login, stderr=asyncio.subprocess.PIPE) as process:
            assert process.stderr is not None
            assert b"tls" in (await process.stderr.readline()).lower()
            await asked.wait()
    assert b"".join(received) == b""
