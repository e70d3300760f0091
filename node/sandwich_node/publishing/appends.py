"""Appends over a connection that nats-py keeps: written in one go, acknowledged on one inbox, without a task for each.

nats-py's own publish takes a task switch to its flusher, a timer, a new inbox name and a check of every header. Here an
append is one line of protocol and its headers as bytes. What is appended within one turn of the loop leaves with one
write. Acknowledgements are taken where nats-py reads them (`AckClient`), all that one read brought in one turn.

NATS, client protocol: `HPUB <subject> <reply> <header bytes> <total bytes>`. A subject that no stream has is answered
with status 503.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from nats.aio.transport import TcpTransport, Transport

from sandwich_coordinator.client_tls import ClientTls
from sandwich_sdk.nats_client import ReconnectingClient
from sandwich_sdk.wire.headers import EXPECTED_LAST_SEQ, EXPECTED_LAST_SUBJECT

_VERSION_LINE = "NATS/1.0\r\n"
_NO_RESPONDERS = b"NATS/1.0 503"
OnMessage = Callable[[bytes, bytes, bytes | None], None]


class AppendRefused(Exception):
    """JetStream refused the append. `code`: its error code."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code


class NoStream(Exception):
    """No stream takes the subject, or the stream has no leader now."""


class NoAck(Exception):
    """No answer in time, or the connection was lost before it: whether the append was stored is unknown."""


class _Refusal(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Refusal | None = None


_ack = msgspec.json.Decoder(_Ack).decode


class AckClient(ReconnectingClient):
    """nats-py's client, which gives the messages of one subscription to a function as they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.acks_sid = 0
        self.on_ack: OnMessage = lambda subject, data, headers: None
        self.tls: ClientTls | None = None
        """Asked at each connect, also at a reconnect; None: as nats-py does it."""

    @property
    def ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super().ssl_context if self.tls is None else self.tls.current()
        return context

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        if sid == self.acks_sid:
            self.stats["in_msgs"] += 1
            self.stats["in_bytes"] += len(data)
            self.on_ack(subject, data, headers)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)


class Appends:
    """The appends of one connection. `timeout_s`: how long an acknowledgement may take."""

    def __init__(self, client: AckClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._inbox = ""
        self._prefix_bytes = 0
        self._number = 0
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._due: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        self._opening = asyncio.Lock()
        self._drains: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Subscribe to the inbox; nats-py renews that when it reconnects. Raises what nats-py raises."""
        async with self._opening:
            if self._inbox:
                return
            inbox = self._client.new_inbox()
            subscription = await self._client.subscribe(f"{inbox}.*")
            self._client.on_ack = self._on_ack
            self._client.acks_sid = subscription._id
            self._inbox, self._prefix_bytes = inbox, len(inbox) + 1

    async def append(
        self, subject: str, payload: bytes, headers: Mapping[str, str], *, chain: str, expected: int
    ) -> int:
        """Append if `chain` ends at stream sequence `expected`; the new sequence. Call it while connected.

        `headers`: names and values without line breaks. Raises AppendRefused, NoStream, NoAck, and what `open` raises.
        """
        if not self._inbox:
            await self.open()
        loop = asyncio.get_running_loop()
        self._number = number = self._number + 1
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        block = (
            f"{_VERSION_LINE}{lines}{EXPECTED_LAST_SEQ}: {expected}\r\n{EXPECTED_LAST_SUBJECT}: {chain}\r\n\r\n"
        ).encode()
        line = f"HPUB {subject} {self._inbox}.{number} {len(block)} {len(block) + len(payload)}\r\n".encode()
        future = self._waiting[number] = loop.create_future()
        if not self._out:
            loop.call_soon(self._write)
        self._out += (line, block, payload, b"\r\n")
        self._due.append((loop.time() + self._timeout_s, number))
        if self._timer is None:
            self._timer = loop.call_at(self._due[0][0], self._expire)
        try:
            stored_as: int = await future
            return stored_as
        finally:
            del self._waiting[number]

    def lost(self) -> None:
        """The connection was lost: no append that waits will be acknowledged."""
        self._out.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NoAck)

    def _write(self) -> None:
        out, self._out = self._out, []
        client, transport = self._client, self._client._transport
        if not out:
            return
        if not client.is_connected or transport is None:
            self.lost()
            return
        client.stats["out_msgs"] += len(out) // 4
        transport.write(b"".join(out))
        if not isinstance(transport, TcpTransport):
            # A websocket keeps what is written until it is drained.
            task = asyncio.create_task(self._drain(transport))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)

    async def _drain(self, transport: Transport) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await transport.drain()  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError, RuntimeError):
            self.lost()

    def _on_ack(self, subject: bytes, data: bytes, headers: bytes | None) -> None:
        number = subject[self._prefix_bytes :]
        future = self._waiting.get(int(number)) if number.isdigit() else None
        if future is None or future.done():
            return
        if headers is not None and headers.startswith(_NO_RESPONDERS):
            future.set_exception(NoStream)
            return
        try:
            ack = _ack(data)
        except msgspec.MsgspecError:
            future.set_exception(NoAck)
            return
        if ack.error is not None:
            future.set_exception(AppendRefused(ack.error.err_code, ack.error.description))
        elif ack.seq:
            future.set_result(ack.seq)
        else:
            future.set_exception(NoAck)

    def _expire(self) -> None:
        """Give up what has waited too long. One timer for all: they wait equally long, so that the oldest is first."""
        loop = asyncio.get_running_loop()
        self._timer = None
        now, due = loop.time(), self._due
        while due:
            at, number = due[0]
            future = self._waiting.get(number)
            if future is None or future.done():
                due.popleft()
                continue
            if at > now:
                self._timer = loop.call_at(at, self._expire)
                return
            due.popleft()
            future.set_exception(NoAck)
