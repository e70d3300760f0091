"""A worker's connection to NATS. Events and requests share it; each has its own seam over it."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors

from sandwich_coordinator.client_tls import ClientTls, ClientTlsError
from sandwich_coordinator.problems import Code
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.appends import AckClient, Appends
from sandwich_sdk.cancellation import honour_cancel
from sandwich_sdk.errors import reason

_log = logging.getLogger(__name__)

APPEND_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0


_REFUSALS = ("authorization violation", "authentication timeout", "authentication expired")
"""nats-server, server/errors.go, sent as `-ERR`."""


class NatsUnreachable(Exception):
    """No server answers. The text says which servers were tried, and why they did not answer. `code`: the problem."""

    def __init__(self, message: str, code: Code = Code.NATS_UNREACHABLE) -> None:
        super().__init__(message)
        self.code = code


def is_refusal(error: BaseException) -> bool:
    """Whether the server refuses our credentials. nats-py has no type for a refusal in the handshake, only its text."""
    return isinstance(error, nats.errors.AuthorizationError) or any(words in str(error).lower() for words in _REFUSALS)


class NatsConnection:
    """One connection. Once it was there, it reconnects by itself for ever.

    `client` is for the modules that speak NATS: `publishing/jetstream.py` and `rpc/nats_requests.py`; `appends` is for
    what is appended to streams.
    """

    def __init__(self, options: NatsOptions, *, name: str = "sandwich") -> None:
        """`name`: what the server's list of connections shows."""
        self.client = AckClient()
        self.appends = Appends(self.client, APPEND_TIMEOUT_S)
        self.name = name
        self._options = options
        # Why the last attempt failed; "" while there is a connection.
        self._trouble = ""
        self._is_refused = False
        self._has_tried = False
        self._where = ", ".join(urlsplit(server).netloc.rpartition("@")[2] for server in options.servers)

    @property
    def is_connected(self) -> bool:
        """Whether a server answers now."""
        return self.client.is_connected

    async def connect(self) -> None:
        """Connect for the first time. Raises NatsUnreachable with the reason."""
        options = self._options
        self._has_tried, self._is_refused = True, False
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self.client.connect(
                    servers=list(options.servers),
                    name=self.name,
                    # What cannot be sent is refused at once: no append may leave after its writer gave it up.
                    pending_size=-1,
                    error_cb=self._on_error,
                    reconnected_cb=self._on_reconnect,
                    disconnected_cb=self._on_disconnect,
                    **self._secrets(options),
                )
        except ClientTlsError as error:
            raise NatsUnreachable(f"NATS cannot be reached from here: {error}") from None
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise self._unreachable(error) from None

    async def close(self) -> None:
        """Close the connection. What was not acknowledged stays unacknowledged."""
        # nats-py cannot close a client that never tried to connect.
        if self._has_tried and not self.client.is_closed:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self.client.close()

    def _secrets(self, options: NatsOptions) -> dict[str, Any]:
        """Credentials and TLS as nats-py takes them. Raises ClientTlsError."""
        secrets: dict[str, Any] = {}
        if options.user is not None:
            secrets |= {"user": options.user, "password": options.password or ""}
        if options.credentials is not None:
            secrets["user_credentials"] = options.credentials
        if options.tls_ca or options.tls_cert:
            files = [Path(name) if name else None for name in (options.tls_ca, options.tls_cert, options.tls_key)]
            self.client.tls = ClientTls("NATS", *files)
            secrets["tls"] = self.client.tls.current()
        return secrets

    def _unreachable(self, error: Exception) -> NatsUnreachable:
        if is_refusal(error) or (self._trouble and self._is_refused):
            return NatsUnreachable(f"NATS at {self._where}: authorization refused", Code.NATS_UNAUTHORIZED)
        return NatsUnreachable(f"NATS is not reachable at {self._where}: {self._trouble or reason(error)}")

    def absence(self) -> str:
        """What to say while there is no connection: to which servers, and why."""
        return f"NATS is not connected ({self._where}{': ' if self._trouble else ''}{self._trouble})"

    def reason(self, error: BaseException) -> str:
        """What went wrong, in words. Without a connection, why there is none."""
        is_answer = isinstance(error, nats.js.errors.APIError)
        return reason(error) if self.is_connected or is_answer else self.absence()

    async def _on_error(self, error: Exception) -> None:
        # Called by `connect`, too, which tries again for ever.
        honour_cancel()
        if self._is_refused and isinstance(error, (ConnectionResetError, BrokenPipeError)):
            # A server that refuses closes the connection as well; which of the two is seen is a matter of luck.
            return
        self._trouble, self._is_refused = reason(error), is_refusal(error)
        _log.warning("NATS at %s: %s", self._where, self._trouble)

    async def _on_disconnect(self) -> None:
        self.appends.lost()

    async def _on_reconnect(self) -> None:
        self._trouble, self._is_refused = "", False
        _log.warning("NATS: reconnected")
