"""`python -m benchmarks.websockets`: what it costs to read one message of many websockets, by library.

    python -m benchmarks.websockets --sockets 4 64 --at-once 1 10 --messages 3000 --rounds 5

A server here sends messages of the size of a compressed event to sockets in turn, so many at once, and the next ones
when the reader has read them. So the number of messages that a turn of the reader's event loop finds does not depend
on how busy the machine is. A reader in its own process (benchmarks/websocket_readers.py) counts them, on uvloop. CPU
is that of the reader, from outside.
"""

import argparse
import asyncio
import base64
import hashlib
import itertools
import mmap
import os
import ssl
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.peers import PeerMissing, peers_python
from benchmarks.processes import ClientFailed, not_run, program
from benchmarks.websocket_readers import READERS

MESSAGE_BYTES = 450
"""A zstd-stream message of an event of 1.2 KB."""
PAUSE_S = 0.001
STALLED_S = 10.0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Server:
    """Websockets that only send: no data from clients is read after the handshake."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self._frame = b"\x82\x7e" + MESSAGE_BYTES.to_bytes(2, "big") + os.urandom(MESSAGE_BYTES)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The handshake (RFC 6455, 4.2.2)."""
        head = await reader.readuntil(b"\r\n\r\n")
        fields = [line.split(b": ", 1) for line in head.split(b"\r\n") if b": " in line]
        key = next(value for name, value in fields if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        self.writers.append(writer)

    async def send(self, at_once: int, messages: int, read: memoryview) -> int:
        """Send about so many, `at_once` to sockets in turn when all before are read; returns how many."""
        sent, already = 0, read[0]
        while sent < messages:
            for _ in range(at_once):
                self.writers[sent % len(self.writers)].write(self._frame)
                sent += 1
            async with asyncio.timeout(STALLED_S):
                while read[0] - already < sent:  # noqa: ASYNC110 (another process counts)
                    await asyncio.sleep(PAUSE_S)
        return sent


def ran_us(pid: int) -> float:
    """µs that all threads of a process ran (proc(5), schedstat): finer than the hundredths of a second of stat."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e3


def self_signed(directory: Path) -> ssl.SSLContext:
    """A server's context with a certificate made now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(1))
    pem = serialization.Encoding.PEM
    (directory / "cert.pem").write_bytes(built.sign(key, hashes.SHA256()).public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "key.pem").write_bytes(secret)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context


@asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> AsyncIterator[tuple[Server, str]]:
    """A server and its URL."""
    server = Server()
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield server, f"{'wss' if context else 'ws'}://127.0.0.1:{port}/"
    finally:
        for writer in server.writers:
            writer.transport.abort()
        listening.close()


async def measure(reader: str, context: ssl.SSLContext | None, sockets: int, at_once: int, messages: int) -> float:
    """µs of CPU for each message. Raises ClientFailed, also when messages are not read."""
    async with serving(context) as (server, url):
        with NamedTemporaryFile() as file:
            file.write(bytes(8))
            file.flush()
            read = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
            words = (peers_python(), "-m", "benchmarks.websocket_readers", reader, url, str(sockets), file.name)
            async with program(words, {}) as client, client.must_run():
                await server.send(at_once, messages // 4, read)
                before = ran_us(client.pid)
                sent = await server.send(at_once, messages, read)
                return (ran_us(client.pid) - before) / sent


def cell(values: list[float] | ClientFailed) -> str:
    """A reader's figures in the table."""
    if isinstance(values, ClientFailed):
        return not_run(values)
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


async def main(sockets: Sequence[int], at_once: Sequence[int], messages: int, rounds: int) -> None:
    """Print the table; readers in turn in each round. A reader that fails is left out of the rest of its row."""
    try:
        await asyncio.to_thread(peers_python)
    except PeerMissing as missing:
        print(not_run(missing))
        return
    print(f"| µs a message, median of {rounds} (min to max) | {' | '.join(READERS)} |")
    print(f"|{'---|' * (len(READERS) + 1)}")
    with TemporaryDirectory() as directory:
        tls = self_signed(Path(directory))
        for context, count, size in itertools.product((None, tls), sockets, at_once):
            found: dict[str, list[float] | ClientFailed] = {reader: [] for reader in READERS}
            for _ in range(rounds):
                for reader, values in found.items():
                    if isinstance(values, list):
                        try:
                            values.append(await measure(reader, context, count, size, messages))
                        except ClientFailed as failed:
                            found[reader] = failed
            what = f"{count} sockets, {'TLS' if context else 'plain'}, {size} at once"
            print(f"| {what} | {' | '.join(map(cell, found.values()))} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.websockets", description=__doc__)
    parser.add_argument("--sockets", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 10], help="messages, of different sockets")
    parser.add_argument("--messages", type=int, default=3000, help="in each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    uvloop.run(main(arguments.sockets, arguments.at_once, arguments.messages, arguments.rounds))
