"""The shell around a shard machine: one websocket after another, bytes in and out. It makes no decisions."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol

import aiohttp
import msgspec
from aiohttp import ClientWSTimeout, WSMsgType

from sandwich_coordinator.network_errors import network_words
from sandwich_node.gateway import opcodes
from sandwich_node.gateway.effects import (
    CloseSocket,
    Connect,
    Effect,
    Failed,
    IdentifySent,
    Malformed,
    Report,
    Send,
    State,
    Stopped,
)
from sandwich_node.gateway.envelope import Envelope, EventNames, ProtocolError, one_line, read_envelope
from sandwich_node.gateway.events import (
    Closed,
    Connected,
    ConnectFailed,
    Event,
    Garbled,
    ReadingResumed,
    ReadingSuspended,
    Received,
    Started,
)
from sandwich_node.gateway.inflate import INFLATED_BYTES_MAX, InflateError, open_inflate
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.gateway.salvage import SeenAgain, salvage
from sandwich_node.open_files import SocketRoom, shortage

SEND_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
"""How long to wait for the answer to our close frame. After it, Discord will not receive the frame any more."""
CLOSE_REASON_CHARS = 200
MESSAGES_A_TURN = 128
"""After so many buffered messages, the other shards of this process get their turn."""

_CONTROLLED = frozenset({"READY", "RESUMED"})
"""Dispatches that the machine must understand."""


class Socket(Protocol):
    """The part of aiohttp's websocket that is used here. Text comes as bytes."""

    async def receive(self) -> tuple[WSMsgType, Any, Any]:
        """The next message: its kind, its data, more of it."""
        ...

    async def send_frame(self, payload: bytes, kind: WSMsgType, /) -> None:
        """Send one frame. Raises aiohttp.ClientError, OSError."""
        ...

    async def close(self, *, code: int) -> object:
        """Close with this code. Raises aiohttp.ClientError, OSError."""
        ...


class WebSocketClient(Protocol):
    """The part of `aiohttp.ClientSession` that is used here."""

    def ws_connect(
        self,
        url: str,
        /,
        *,
        autoclose: bool,
        compress: int,
        decode_text: Literal[False],
        max_msg_size: int,
        timeout: ClientWSTimeout,
    ) -> Awaitable[Socket]:
        """Open a websocket. Raises aiohttp.ClientError, OSError, ValueError."""
        ...


class DispatchReceiver(Protocol):
    """Where a shard's events go."""

    def dispatch(
        self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool = False
    ) -> bool:
        """Take one event, on one line as received; `data` is its `d`. False: there is no room for the next.

        `damaged`: not every reader of JSON can read the line. Must not raise because of what the event says.
        """
        ...

    async def drained(self) -> None:
        """Wait until there is room again."""
        ...


class Observer(Protocol):
    """Receives what happens to a shard. Must not wait and must not raise."""

    def observe(self, report: Report) -> None:
        """Take one report, in order."""
        ...


class ShardConnection:
    """Runs one shard until it is Stopped or Failed.

    `clock` must be monotonic. `http` and `room` belong to the caller; they may serve many shards.
    """

    def __init__(
        self,
        machine: ShardMachine,
        *,
        http: WebSocketClient,
        sink: DispatchReceiver,
        observer: Observer,
        clock: Callable[[], float],
        inflated_bytes_max: int = INFLATED_BYTES_MAX,
        room: SocketRoom | None = None,
    ) -> None:
        self._machine = machine
        self._http = http
        self._sink = sink
        self._observer = observer
        self._clock = clock
        self._limit = inflated_bytes_max
        self._room = room
        self._names = EventNames()
        self._seen_again = SeenAgain()
        self._end: Stopped | Failed | None = None
        self._due: float | None = None
        self._due_moved = asyncio.Event()
        self._target: str | None = None
        self._turn = asyncio.Event()
        self._connecting: asyncio.Timeout | None = None
        self._hang_up: CloseSocket | None = None
        self._link_ended = asyncio.Event()
        # Bounded by the machine's send limiter and the deadline of each send.
        self._outgoing: deque[Send | IdentifySent] = deque()
        self._sendable = asyncio.Event()

    @property
    def presence(self) -> dict[str, Any] | None:
        """The presence that the session shows, or that the next one is started with."""
        return self._machine.presence

    async def run(self) -> Stopped | Failed:
        """Hold the shard. Returns when its last socket is closed; cancelling closes it with the session kept."""
        async with asyncio.TaskGroup() as group:
            timer = group.create_task(self._keep_time())
            if self._machine.state is State.NEW:
                self.post(Started())
            while self._end is None:
                await self._turn.wait()
                self._turn.clear()
                if self._target is not None:
                    await self._hold(self._target)
            timer.cancel()
        return self._end

    def post(self, event: Event) -> None:
        """Pass the machine an event and do what it asks. Never waits."""
        self._perform(self._machine.handle(event, self._clock()))

    async def _keep_time(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._due_moved.clear()
            due, now = self._due, self._clock()
            if due is not None and due <= now:
                self._perform(self._machine.tick(now))
                continue
            try:
                async with asyncio.timeout_at(None if due is None else loop.time() + due - now):
                    await self._due_moved.wait()
            except TimeoutError:
                continue

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send() | IdentifySent():
                    self._outgoing.append(effect)
                    self._sendable.set()
                case Connect():
                    self._target = effect.url
                    self._turn.set()
                case CloseSocket():
                    self._close_socket(effect)
                case _:
                    if isinstance(effect, Stopped | Failed):
                        self._end = effect
                        self._turn.set()
                    self._observer.observe(effect)
        due = self._machine.deadline()
        if due != self._due:
            self._due = due
            self._due_moved.set()

    def _close_socket(self, effect: CloseSocket) -> None:
        if self._target is not None:
            # Opening did not begin, since the previous socket is still closing.
            self._target = None
            return
        self._hang_up = effect
        self._link_ended.set()
        if self._connecting is not None:
            self._connecting.reschedule(asyncio.get_running_loop().time())

    async def _hold(self, url: str) -> None:
        """One connection, from opening to closing."""
        self._target = None
        self._hang_up = None
        self._link_ended.clear()
        self._outgoing.clear()
        if self._room is not None and (reason := self._room.take()):
            self.post(ConnectFailed(reason, ours=True))
            return
        try:
            ws = await self._open(url)
            if ws is not None:
                await self._use(ws)
        finally:
            if self._room is not None:
                self._room.give_back()

    async def _use(self, ws: Socket) -> None:
        """An open connection, until it is closed."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = group.create_task(self._read(ws)), group.create_task(self._write(ws))
                await self._link_ended.wait()
                for task in tasks:
                    task.cancel()
        finally:
            if any(isinstance(item, IdentifySent) for item in self._outgoing):
                # It may have been sent: the bucket counts as used.
                self._observer.observe(IdentifySent())
            await self._close(ws)

    async def _open(self, url: str) -> Socket | None:
        """Open the socket. The machine holds the deadline. The token is sent here, and so the host is checked here."""
        if refusal := self._machine.config.refusal(url):
            self.post(ConnectFailed(refusal))
            return None
        try:
            async with asyncio.timeout(None) as self._connecting:
                ws = await self._http.ws_connect(
                    url,
                    # We answer the server's close ourselves, with a code that keeps the session.
                    autoclose=False,
                    compress=0,
                    # Text that is not UTF-8 is handled where other unreadable messages are.
                    decode_text=False,
                    max_msg_size=self._limit,
                    timeout=ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            if self._hang_up is None:
                short = shortage(error)
                self.post(ConnectFailed(short or _in_words(error), ours=bool(short)))
            return None
        finally:
            self._connecting = None
        if self._hang_up is not None:
            await self._close(ws)
            return None
        self.post(Connected())
        return ws

    async def _close(self, ws: Socket) -> None:
        code = opcodes.KEEP_SESSION if self._hang_up is None else self._hang_up.code
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await ws.close(code=code)
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass

    def _lost(self, event: Closed) -> None:
        if not self._link_ended.is_set():
            self._link_ended.set()
            self.post(event)

    async def _write(self, ws: Socket) -> None:
        while True:
            while self._outgoing:
                item = self._outgoing.popleft()
                if isinstance(item, IdentifySent):
                    self._observer.observe(item)
                    continue
                try:
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        await ws.send_frame(item.payload, WSMsgType.TEXT)
                except (TimeoutError, aiohttp.ClientError, OSError) as error:
                    self._lost(Closed(None, f"could not send: {_in_words(error)}"))
                    return
            self._sendable.clear()
            await self._sendable.wait()

    async def _read(self, ws: Socket) -> None:
        """Messages until the connection ends. Does not wait for a message that is already buffered."""
        inflate = open_inflate(self._machine.config.compression, self._limit)
        receive, feed, take = ws.receive, inflate.feed, self._take
        turn = 0
        while not self._link_ended.is_set():
            kind, data, extra = await receive()
            try:
                if kind is WSMsgType.BINARY:
                    raw = feed(data)
                elif kind is WSMsgType.TEXT:
                    raw = data
                else:
                    self._lost(_closed(kind, data, extra))
                    return
                if raw is None:
                    self._machine.received_part()
                elif not take(raw):
                    self.post(ReadingSuspended())
                    await self._sink.drained()
                    self.post(ReadingResumed())
            except (InflateError, ProtocolError) as error:
                if not self._link_ended.is_set():
                    self.post(Garbled(str(error)))
                return
            turn += 1
            if turn == MESSAGES_A_TURN:
                turn = 0
                await asyncio.sleep(0)

    def _take(self, raw: bytes) -> bool:
        """One gateway message. False: the sink has no room for the next. Raises ProtocolError."""
        try:
            envelope = read_envelope(raw)
        except ProtocolError:
            return self._take_damaged(raw)
        machine = self._machine
        name, sequence = envelope.t, envelope.s
        session_id = machine.streaming
        if envelope.op or name is None or sequence is None or not session_id or name in _CONTROLLED:
            return self._take_controlled(raw, envelope)
        if name not in self._names.known and not self._names.allows(name):
            machine.dispatched(sequence)
            self._observer.observe(Malformed(sequence))
            return True
        room = self._sink.dispatch(one_line(raw), envelope.d, name, sequence, session_id)
        machine.dispatched(sequence)
        return room

    def _take_damaged(self, raw: bytes) -> bool:
        """A message that the strict reader refused: use what can be read. Raises ProtocolError."""
        machine = self._machine
        found = salvage(raw)
        if found is None:
            session = machine.session if machine.streaming else None
            if session is None or not self._seen_again(session.id, session.sequence):
                raise ProtocolError(f"malformed payload of {len(raw)} bytes")
            machine.received_part()
            self._observer.observe(Malformed(0, "it cannot be read, and came again like this after a RESUME"))
            return True
        line, envelope = found
        name, sequence, session_id = envelope.t, envelope.s, machine.streaming
        if envelope.op or name is None or sequence is None or not session_id or name in _CONTROLLED:
            return self._take_controlled(line, envelope, damaged=True)
        machine.dispatched(sequence)
        if not self._names.allows(name):
            self._observer.observe(Malformed(sequence))
            return True
        return self._sink.dispatch(line, envelope.d, name, sequence, session_id, damaged=True)

    def _take_controlled(self, raw: bytes, envelope: Envelope, *, damaged: bool = False) -> bool:
        """A message that the machine has to see."""
        if self._link_ended.is_set():
            return True
        name, sequence, before = envelope.t, envelope.s, self._machine.streaming
        self.post(Received(envelope.op, bytes(envelope.d), sequence, name))
        session_id = self._machine.streaming
        if envelope.op or not session_id or name is None or sequence is None or (before and name == "READY"):
            return True
        if damaged:
            return self._sink.dispatch(raw, envelope.d, name, sequence, session_id, damaged=True)
        return self._sink.dispatch(one_line(raw), envelope.d, name, sequence, session_id)


def _closed(kind: WSMsgType, data: object, extra: object) -> Closed:
    if kind is WSMsgType.CLOSE and isinstance(data, int) and data:
        return Closed(data, str(extra or "")[:CLOSE_REASON_CHARS])
    return Closed(None, _in_words(data) if isinstance(data, Exception) else "")


def _in_words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientError | OSError):
        return network_words(error)[:CLOSE_REASON_CHARS]
    return f"{type(error).__name__}: {error}"[:CLOSE_REASON_CHARS] if str(error) else type(error).__name__
