"""TLS of the node's port: the certificate is read again when its files change, without a restart.

Other nodes need no CA: the certificate's fingerprint is in the node's registration, and they accept that one alone.
"""

import asyncio
import hashlib
import logging
import ssl
from pathlib import Path

import msgspec

from sandwich_coordinator.problems import Code, Problem, problem
from sandwich_coordinator.small_files import Stamp, stamp
from sandwich_coordinator.store.base import Compare, LeaseLost, Put, Store, StoreError
from sandwich_coordinator.store.keys import Keys
from sandwich_node.agent.node_facts import NodeFacts

_log = logging.getLogger(__name__)

LOOK_S = 5.0
FILE_BYTES_MAX = 1024 * 1024


class TlsError(ValueError):
    """A certificate and its key cannot be used; the message says why and contains neither."""


class ServerTls:
    """The certificate of one node.

    context      for the server; new connections use the certificate that was read last
    fingerprint  SHA-256 of that certificate, in hex
    """

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises TlsError."""
        self._cert, self._key = cert, key
        self._refused = ""
        self._stamp = self._stamp_now()
        self.context = _context(cert, key)
        self.fingerprint = _fingerprint(cert)

    def problems(self, node: str) -> list[Problem]:
        """Why an older certificate than that of the files is in use; none when it is not."""
        if not self._refused:
            return []
        summary = f"the changed TLS certificate cannot be used, and the one before stays: {self._refused}"
        return [problem(Code.CERTIFICATE_REFUSED, f"node/{node}", summary)]

    def look(self) -> None:
        """Read the files if they have changed. A pair that cannot be used changes nothing."""
        found = self._stamp_now()
        if found == self._stamp:
            # Also after others that could not be used.
            self._refused = ""
            return
        try:
            # A separate context first: a broken pair would leave the one in use half changed.
            _context(self._cert, self._key)
            fingerprint = _fingerprint(self._cert)
            self.context.load_cert_chain(self._cert, self._key)
        except (TlsError, ssl.SSLError, OSError) as error:
            if str(error) != self._refused:
                _log.error("the changed TLS certificate is not used: %s", error)
            self._refused = str(error)
            return
        self._stamp, self._refused, self.fingerprint = found, "", fingerprint
        _log.info("the TLS certificate was read again")

    def _stamp_now(self) -> Stamp:
        return stamp([self._cert, self._key])


async def keep_certificate(
    tls: ServerTls, store: Store, keys: Keys, node: str, facts: NodeFacts, *, look_s: float = LOOK_S
) -> None:
    """Follow the files, and the node's registration them, until cancelled."""
    while True:
        await asyncio.sleep(look_s)
        await asyncio.to_thread(tls.look)
        try:
            await _register(tls.fingerprint, store, keys, node, facts)
        except (StoreError, LeaseLost) as error:
            _log.warning("the new TLS certificate is not registered yet: %s", error)


async def _register(fingerprint: str, store: Store, keys: Keys, node: str, facts: NodeFacts) -> None:
    """Write the fingerprint into the node's registration, if another one is there; `Membership` keeps it."""
    view = facts.view()
    entry = view.nodes.get(node) if view is not None else None
    if entry is None or entry.record.instance != facts.status().instance or entry.record.tls in ("", fingerprint):
        return
    present = await store.get(keys.node(node))
    if present is None or present.mod_revision != entry.mod_revision:
        return
    value = msgspec.json.encode({**msgspec.json.decode(present.value), "tls": fingerprint})
    guard = Compare(present.key, "mod_revision", present.mod_revision)
    await store.txn([guard], [Put(present.key, value, present.lease)])


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])

    def no_password() -> str:
        # Otherwise OpenSSL asks the terminal.
        raise TlsError(f"{key} is encrypted: a node can be given no password for it")

    try:
        context.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        raise TlsError(f"{cert} and {key} are not a certificate and its key: {error.reason or 'not PEM'}") from None
    except OSError as error:
        raise TlsError(f"{cert} and {key} cannot be read: {error.strerror}") from None
    return context


def _fingerprint(cert: Path) -> str:
    """Of the first certificate in the file, which is the server's own."""
    # Other bytes can be before it, such as names in any encoding.
    with cert.open(encoding="ascii", errors="replace") as file:
        text = file.read(FILE_BYTES_MAX)
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if begin < 0 or end < begin:
        raise TlsError(f"{cert} has no certificate")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])).hexdigest()
