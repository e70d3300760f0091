"""TLS with a server, as a client: contexts from PEM files, and errors that name the file that cannot be used."""

import ssl
from pathlib import Path

from sandwich_coordinator.small_files import check_readable


class ClientTlsError(ValueError):
    """A file cannot be used; the message has its path, whose it is, and the reason, and never its content."""


def client_context(
    server: str, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """A context that checks host names; without `ca` the system's are trusted, without `cert` the client has none.

    `server`: what it is for, such as "etcd". `key`: of `cert`; None where that file has both. Raises ClientTlsError.
    """
    authorities = None if ca is None else _readable(ca, f"{server}'s CA")
    try:
        context = ssl.create_default_context(cafile=authorities)
    except ssl.SSLError:
        raise ClientTlsError(f"{server}'s CA {ca} has no certificate in PEM") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        certificate = _readable(cert, f"the client certificate for {server}")
        own_key = None if key is None else _readable(key, f"the key of the client certificate for {server}")
        try:
            context.load_cert_chain(certificate, own_key, _no_password)
        except ssl.SSLError as error:
            words = error.reason or "no PEM, or a key with a password"
            files = certificate if own_key is None else f"{certificate} and {own_key}"
            raise ClientTlsError(f"no client certificate for {server} and its key are in {files}: {words}") from None
    return context


def _readable(path: Path, what: str) -> str:
    try:
        check_readable(path)
    except ValueError as error:
        raise ClientTlsError(f"{what}, {path}, cannot be read: {error}") from None
    return str(path)


def _no_password() -> str:
    # Otherwise OpenSSL asks the terminal. An empty one fits no key.
    return ""
