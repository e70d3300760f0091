"""Appends over a connection that nats-py keeps: written in one go, acknowledged on one inbox, without a task for each.

nats-py's own publish takes a task switch to its flusher, a timer, a new inbox name and a check of every header. Here an
append is one line of protocol and its headers as bytes. What is appended within one turn of the loop leaves with one
write. Acknowledgements are taken where nats-py reads them (`AckClient`), all that one read brought in one turn.

NATS, client protocol: `HPUB <subject> <reply> <header bytes> <total bytes>`. A subject that no stream has is answered
with status 503.
"""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from nats.aio.transport import TcpTransport, Transport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from sandwich_coordinator.client_tls import ClientTls
from sandwich_node.publishing.log import Append
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

OnResult = Callable[[int | Exception], None]
"""Takes the new sequence, or AppendRefused, NoStream or NoAck."""


class _AckParser(Parser):
    """nats-py's parser, which passes over acknowledgements quickly: one match for each, in place of seven steps.

    Whatever is not a plain acknowledgement that is there as a whole is left to nats-py, with all that is behind it.
    """

    def __init__(self, client: "AckClient") -> None:
        super().__init__(client)
        self._client = client
        self._ack: re.Pattern[bytes] | None = None

    def expect(self, inbox: str, sid: int) -> None:
        """Take the acknowledgements of this subscription to `inbox`.* from now on."""
        message = rb"MSG %b\.(\d{1,18}) %d (\d{1,9})\r\n" % (re.escape(inbox.encode()), sid)
        self._ack = re.compile(message + rb'(\{"stream":"[^"\\\r\n]*", ?"seq":([1-9]\d{0,18})\})\r\n')

    async def parse(self, data: bytes = b"") -> None:
        """See `Parser.parse`."""
        if self._ack is not None and self.state == AWAITING_CONTROL_LINE and not self.buf:
            match, at, client = self._ack.match, 0, self._client
            while (found := match(data, at)) is not None:
                number, size, body, seq = found.groups()
                if len(body) != int(size):
                    break
                at = found.end()
                client.stats["in_msgs"] += 1
                client.stats["in_bytes"] += len(body)
                client.on_stored(int(number), int(seq))
            if at == len(data):
                return
            data = data[at:]
        await super().parse(data)


class AckClient(ReconnectingClient):
    """nats-py's client, which gives the messages of one subscription to functions as they are read.

    `on_stored` takes the number and the stream sequence of a plain acknowledgement, `on_ack` any other message.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ps: _AckParser = _AckParser(self)
        self._acks_sid = 0
        self.on_ack: OnMessage = lambda subject, data, headers: None
        self.on_stored: Callable[[int, int], None] = lambda number, seq: None
        self.tls: ClientTls | None = None
        """Asked at each connect, also at a reconnect; None: as nats-py does it."""

    @property
    def ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super().ssl_context if self.tls is None else self.tls.current()
        return context

    async def subscribe_acks(self, inbox: str) -> None:
        """Subscribe to `inbox`.*; nats-py renews that when it reconnects. Raises what nats-py raises."""
        subscription = await self.subscribe(f"{inbox}.*")
        self._acks_sid = subscription._id
        self._ps.expect(inbox, self._acks_sid)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        if sid == self._acks_sid:
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
        self._waiting: dict[int, OnResult] = {}
        """By number, oldest first."""
        self._due: deque[tuple[float, int]] = deque()
        """Until when the appends up to this number, which were written together, may be acknowledged."""
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
            self._client.on_ack, self._client.on_stored = self._on_ack, self._on_stored
            await self._client.subscribe_acks(inbox)
            self._inbox, self._prefix_bytes = inbox, len(inbox) + 1

    @property
    def is_open(self) -> bool:
        """Whether `begin` may be called."""
        return bool(self._inbox)

    async def append(self, append: Append) -> int:
        """As `begin`; returns the new sequence. Raises AppendRefused, NoStream, NoAck, and what `open` raises."""
        if not self._inbox:
            await self.open()
        answer: asyncio.Future[int | Exception] = asyncio.get_running_loop().create_future()

        def on_result(result: int | Exception) -> None:
            if not answer.done():
                answer.set_result(result)

        self.begin(append, on_result)
        result = await answer
        if isinstance(result, Exception):
            raise result
        return result

    def begin(self, append: Append, on_result: OnResult) -> None:
        """Append. Call it while connected, once the inbox is open.

        No name or value of a header may have a line break. `on_result` is called once, later; it must not raise.
        """
        self._number = number = self._number + 1
        lines = "".join([f"{name}: {value}\r\n" for name, value in append.headers.items()])
        guard = f"{EXPECTED_LAST_SEQ}: {append.expected}\r\n{EXPECTED_LAST_SUBJECT}: {append.chain}\r\n"
        block, payload = f"{_VERSION_LINE}{lines}{guard}\r\n".encode(), append.payload
        line = f"HPUB {append.subject} {self._inbox}.{number} {len(block)} {len(block) + len(payload)}\r\n".encode()
        self._waiting[number] = on_result
        if not self._out:
            asyncio.get_running_loop().call_soon(self._write)
        self._out += (line, block, payload, b"\r\n")

    def lost(self) -> None:
        """The connection was lost: no append that waits will be acknowledged."""
        self._out.clear()
        self._give_up(self._number)

    def _give_up(self, until: int) -> None:
        """No answer comes to the appends up to number `until`."""
        waiting = self._waiting
        for number in [number for number in waiting if number <= until]:
            waiting.pop(number)(NoAck())

    def _write(self) -> None:
        out, self._out = self._out, []
        client, transport = self._client, self._client._transport
        if not out:
            return
        if not client.is_connected or transport is None:
            self.lost()
            return
        # Before the write: it may raise, and then no answer comes.
        loop = asyncio.get_running_loop()
        self._due.append((loop.time() + self._timeout_s, self._number))
        if self._timer is None:
            self._timer = loop.call_at(self._due[0][0], self._expire)
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

    def _on_stored(self, number: int, seq: int) -> None:
        on_result = self._waiting.pop(number, None)
        if on_result is not None:
            on_result(seq)

    def _on_ack(self, subject: bytes, data: bytes, headers: bytes | None) -> None:
        number = subject[self._prefix_bytes :]
        on_result = self._waiting.pop(int(number), None) if number.isdigit() else None
        if on_result is None:
            return
        if headers is not None and headers.startswith(_NO_RESPONDERS):
            on_result(NoStream())
            return
        try:
            ack = _ack(data)
        except msgspec.MsgspecError:
            on_result(NoAck())
            return
        if ack.error is not None:
            on_result(AppendRefused(ack.error.err_code, ack.error.description))
        else:
            on_result(ack.seq or NoAck())

    def _expire(self) -> None:
        """Give up what has waited too long. One timer for all: they wait equally long, so that the oldest is first."""
        loop = asyncio.get_running_loop()
        now, due, until = loop.time(), self._due, 0
        oldest = next(iter(self._waiting), self._number + 1)
        while due and (due[0][0] <= now or due[0][1] < oldest):
            until = due.popleft()[1]
        self._timer = loop.call_at(due[0][0], self._expire) if due else None
        self._give_up(until)
