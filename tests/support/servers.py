"""Unexpected servers, and certificates, for tests of connections."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, context: ssl.SSLContext | None = None, *, port: int = 0) -> AsyncIterator[int]:
    """A server that passes each connection to `handler`; on a port of its own choice unless one is given."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def says(banner: bytes, answer: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)
        while await reader.read(65_536):
            writer.write(answer)

    return handle


NOT_REDIS = {
    "http": (b"", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "nats": (b'INFO {"server_id":"N"}\r\n', b"-ERR 'Unknown Protocol Operation'\r\n"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", b""),
    "smtp": (b"220 mail ESMTP\r\n", b"500 bad command\r\n"),
    "pop3": (b"+OK ready\r\n", b"+OK\r\n" * 4),
    "memcached": (b"", b"ERROR\r\n"),
    "says ok": (b"", b"+OK\r\n" * 4),
    "says zero": (b"", b":0\r\n" * 4),
    "binary": (b"\x16\x03\x01\x00", b"\x15\x03\x03\x00\x02\x02\x46"),
    "a list": (b"", b"*1\r\n$2\r\nhi\r\n" * 4),
}


class Certificates:
    """A CA and its certificates, as PEM files. `name`: the CA's; of two with one name only the first is found."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca, _ = self._write("ca", self._key, name, None)

    def issue(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """Create a certificate for these addresses; returns the paths of certificate and key."""
        return self._write(name, ec.generate_private_key(ec.SECP256R1()), name, addresses)

    def _write(
        self, file: str, key: ec.EllipticCurvePrivateKey, name: str, addresses: tuple[str, ...] | None
    ) -> tuple[Path, Path]:
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)])
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=addresses is None, path_length=None), critical=True)
        if addresses:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address)) for address in addresses])
            made = made.add_extension(names, critical=False)
        certificate = made.sign(self._key, hashes.SHA256())
        paths = self._directory / f"{file}.pem", self._directory / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths


def relay(port: int) -> Handler:
    """A TLS proxy for the wheel's redis-server, which has no TLS."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    return handle
