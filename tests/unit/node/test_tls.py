"""The node's port over TLS: pinned, and read again when its files change."""

import asyncio
import datetime
import ipaddress
from pathlib import Path

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.operations.node_requests import NodeSilent, ask_node
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import NodeRecord
from sandwich_node.agent.membership import Membership
from sandwich_node.http.app import make_app, serve
from sandwich_node.http.node_requests import BetweenNodes
from sandwich_node.http.tls import ServerTls, TlsError, keep_certificate
from tests.support.api import KEYS, StoredFacts

KEY = "k" * 64


def make_pair(directory: Path, *, password: bytes | None = None) -> tuple[Path, Path]:
    """A new self-signed certificate and its key in these files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a node")])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return cert_file, key_file


def record_of(port: int, tls: str) -> NodeRecord:
    return NodeRecord(node="a", instance="i", address=f"127.0.0.1:{port}", version="1", status_key=KEY, tls=tls)


async def answer_of(record: NodeRecord) -> str:
    async with aiohttp.ClientSession() as http:
        try:
            return msgspec.json.decode(await ask_node(http, record, "/status", timeout_s=5), type=NodeStatus).node
        except NodeSilent as error:
            return str(error)


async def test_a_nodes_certificate_is_pinned_and_read_again(tmp_path: Path) -> None:
    tls = ServerTls(*make_pair(tmp_path))
    between, facts = BetweenNodes(KEY), StoredFacts(MemoryStore())
    app = make_app(facts, {"status": between.only})
    async with serve(app, Address("127.0.0.1", 0), tls.context) as port:
        first = tls.fingerprint
        assert await answer_of(record_of(port, first)) == "a"
        assert await answer_of(record_of(port, "0" * 64)) == "its TLS certificate is not the one that it registered"
        make_pair(tmp_path)
        tls.look()
        assert tls.fingerprint != first
        assert await answer_of(record_of(port, first)) == "its TLS certificate is not the one that it registered"
        assert await answer_of(record_of(port, tls.fingerprint)) == "a"


async def test_a_broken_pair_keeps_the_old_one_and_is_a_problem(tmp_path: Path) -> None:
    cert, key = make_pair(tmp_path)
    tls = ServerTls(cert, key)
    first = tls.fingerprint
    for broken in (b"not PEM", b"", make_pair(tmp_path)[1].read_bytes()[:-40]):
        key.write_bytes(broken)
        tls.look()
        assert tls.fingerprint == first
        (found,) = tls.problems("a")
        assert (found.code, found.subject) == ("certificate-refused", "node/a")
    key.unlink()
    tls.look()
    assert tls.problems("a")
    make_pair(tmp_path)
    tls.look()
    assert tls.problems("a") == []
    assert tls.fingerprint != first


def test_a_pair_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    cert, encrypted = make_pair(tmp_path, password=b"secret")
    with pytest.raises(TlsError, match="is encrypted"):
        ServerTls(cert, encrypted)
    with pytest.raises(TlsError, match="cannot be read"):
        ServerTls(cert, tmp_path / "none")
    cert, key = make_pair(tmp_path)
    cert.write_text("not PEM")
    with pytest.raises(TlsError, match="are not a certificate and its key"):
        ServerTls(cert, key)


def test_bytes_around_a_certificate_are_left_out(tmp_path: Path) -> None:
    """OpenSSL writes names in any encoding before the certificates of a bundle."""
    cert, key = make_pair(tmp_path)
    plain = ServerTls(cert, key)
    cert.write_bytes("friendlyName: Müller\n".encode("latin-1") + cert.read_bytes())
    plain.look()
    assert plain.problems("a") == []
    assert ServerTls(cert, key).fingerprint == plain.fingerprint


def test_a_certificate_that_is_no_text_is_refused_and_the_one_before_stays(tmp_path: Path) -> None:
    cert, key = make_pair(tmp_path)
    tls = ServerTls(cert, key)
    for raw in (
        x509.load_pem_x509_certificate(cert.read_bytes()).public_bytes(serialization.Encoding.DER),
        b"\xff\x00",
    ):
        cert.write_bytes(raw)
        with pytest.raises(TlsError, match="are not a certificate and its key: not PEM"):
            ServerTls(cert, key)
        tls.look()
        (found,) = tls.problems("a")
        assert "are not a certificate and its key" in found.summary


async def test_a_new_certificate_is_registered_and_stays_so(tmp_path: Path) -> None:
    tls, store = ServerTls(*make_pair(tmp_path)), MemoryStore()
    lease = await store.grant(60)
    record = record_of(1, tls.fingerprint)
    await store.txn((), [Put(KEYS.node("a"), record.encode(), lease)])
    facts = StoredFacts(store)
    await facts.refresh()
    make_pair(tmp_path)
    changes = store.watch(KEYS.node("a"), (await store.list("/")).revision + 1)
    keeping = asyncio.create_task(keep_certificate(tls, store, KEYS, "a", facts, look_s=0.01))
    async with asyncio.timeout(10):
        await anext(aiter(changes))
    keeping.cancel()
    seen = await stored(store)
    assert seen == msgspec.structs.replace(record, tls=tls.fingerprint)
    membership = Membership(store, KEYS, record, ttl_s=5, on_change=lambda: None)
    membership.follow(seen)
    assert membership.record.tls == tls.fingerprint


async def stored(store: MemoryStore) -> NodeRecord:
    item = await store.get(KEYS.node("a"))
    assert item is not None
    return msgspec.json.decode(item.value, type=NodeRecord)
