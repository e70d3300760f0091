"""TLS with a server, as a client: contexts from PEM files, and errors that name the file that cannot be used.

Certificates are renewed while nodes run: `ClientTls` reads its files again when they have changed.
"""

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from sandwich_coordinator.small_files import Stamp, check_readable, stamp

_log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Well below the life of a lease: an etcd that restarts with new certificates must not cost one."""


RETRY_S = 10.0
"""Files that could not be used are tried again so often: a context takes some 30 ms of a core, and rights on a file may
change without a trace in its stamp."""


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


class ClientTls:
    """The context for new connections to one server, of files that may change.

    refused  why the changed files cannot be used, so that the context before stays; "" while they can
    """

    def __init__(
        self,
        server: str,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """As `client_context`. Raises ClientTlsError."""
        self.refused = ""
        self._server = server
        self._files = ca, cert, key
        self._clock = clock
        self._stamp = self._stamp_now()
        self._context = client_context(server, *self._files)
        self._looked_at = clock()
        self._tried, self._tried_at = self._stamp, self._looked_at

    def current(self) -> ssl.SSLContext:
        """The context. Looks at the files at most every `LOOK_S`; what cannot be used is logged and changes nothing."""
        now = self._clock()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._look(now)
        return self._context

    def _look(self, now: float) -> None:
        found = self._stamp_now()
        if found == self._stamp:
            # Also after others that could not be used.
            self.refused = ""
            return
        if self.refused and found == self._tried and now - self._tried_at < RETRY_S:
            return
        self._tried, self._tried_at = found, now
        try:
            # A new one: authorities cannot be taken out of a context again.
            self._context = client_context(self._server, *self._files)
        except ClientTlsError as error:
            if str(error) != self.refused:
                _log.error("the changed TLS files for %s are not used: %s", self._server, error)
            self.refused = str(error)
            return
        self._stamp, self.refused = found, ""
        _log.info("the TLS files for %s were read again", self._server)

    def _stamp_now(self) -> Stamp:
        return stamp([path for path in self._files if path is not None])


def _readable(path: Path, what: str) -> str:
    try:
        check_readable(path)
    except ValueError as error:
        raise ClientTlsError(f"{what}, {path}, cannot be read: {error}") from None
    return str(path)


def _no_password() -> str:
    # Otherwise OpenSSL asks the terminal. An empty one fits no key.
    return ""
