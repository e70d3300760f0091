"""nats-py's client, which leaves a server that does not answer soon: without a packet, TCP and TLS wait far longer."""

import asyncio
from collections.abc import Sequence
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

PING_INTERVAL_S = 5
UNANSWERED_PINGS_MAX = 2
CLOSE_TIMEOUT_S = 2.0


def _servers(servers: str | Sequence[str] = (), **_: Any) -> Sequence[str]:
    return [servers] if isinstance(servers, str) else servers


class ReconnectingClient(Client):
    """Reconnects without limit; a server that answers no ping is left after at most three intervals (15 s).

    nats-py closes the old connection before it tries the next server. Over TLS that waits for the peer's answer to the
    end of the session, which a server that is cut off never gives (asyncio: `ssl_shutdown_timeout`, 30 s); over TCP for
    what was written before. The next server is what matters, so the old connection is dropped at once.

    With `tls` or a `tls://` URL, a server without TLS is refused before anything is sent.
    """

    _needs_tls = False

    async def connect(self, *args: Any, **options: Any) -> None:
        """As `Client.connect`, with other defaults. Raises what that raises."""
        defaults = {
            "allow_reconnect": True,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.5,
            "connect_timeout": 2,
            "ping_interval": PING_INTERVAL_S,
            "max_outstanding_pings": UNANSWERED_PINGS_MAX,
        }
        self._needs_tls = bool(options.get("tls")) or any(
            str(server).startswith("tls://") for server in _servers(*args, **options)
        )
        await super().connect(*args, **{**defaults, **options})

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py goes on without TLS, and sends the password, when the server's first line does not require TLS. That
        # line is not encrypted: who is between could have changed it.
        if initial_connection and self._needs_tls and not self._is_encrypted:
            if self._scheme == "ws" or not (info.get("tls_required") or info.get("tls_available")):
                raise nats.errors.Error("nats: the server offers no TLS, which is set for it")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    @property
    def _scheme(self) -> str:
        return self._current_server.uri.scheme if self._current_server is not None else ""

    @property
    def _is_encrypted(self) -> bool:
        """Whether the connection is, before the server's first line."""
        return self._scheme == "wss" or bool(self.options.get("tls_handshake_first"))

    async def close(self) -> None:
        """As `Client.close`, within two seconds: what was not sent by then is not sent."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await super().close()
        except TimeoutError:
            self._drop_connection()

    async def _attempt_reconnect(self) -> None:
        self._drop_connection()
        await super()._attempt_reconnect()

    def _drop_connection(self) -> None:
        if isinstance(self._transport, TcpTransport) and self._transport._io_writer is not None:
            self._transport._io_writer.transport.abort()
