"""Names of servers: resolved apart from connecting, kept, and the last good answer used while a new one is awaited.

A resolver may take five seconds for an answer (a lost packet in a container's network). A connect deadline of one
second fails for as long as it does. Every library that a node uses asks the event loop for addresses: so the loops of
this module keep them, for Redis, NATS, etcd and Discord alike. TLS goes on checking the name.
"""

import asyncio
import logging
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import uvloop

_log = logging.getLogger(__name__)

FRESH_S = 5.0
"""An answer this old is still used, and asked for again meanwhile."""
STALE_MAX_S = 3600.0
"""After so long without a new answer the old one is not used any more: its address may belong to another server."""
ASK_AGAIN_S = 1.0
"""Between a question that failed and the next for the same name."""
SLOW_S = 1.0
NAMES_MAX = 256
QUESTIONS_MAX = 16
"""Questions on their way at the same time: each is a thread, which nothing can end but the resolver."""

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""Family and socket address (with port 0) of a server."""
_PLAIN_FLAGS = socket.AI_ADDRCONFIG


def ask_system(host: str) -> list[Address]:
    """The system's answer; may take long. Raises OSError."""
    found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [(family, address) for family, _, _, _, address in found]


@dataclass(slots=True)
class _Entry:
    addresses: list[Address] = field(default_factory=list)
    answered_at: float = float("-inf")
    failed_at: float = float("-inf")
    asked_at: float = 0.0
    question: asyncio.Future[None] | None = None
    doubted: bool = False


class Names:
    """One loop's names. `ask` runs in a thread of its own; `clock` is monotonic seconds."""

    def __init__(
        self, ask: Callable[[str], list[Address]] = ask_system, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._asking = 0

    async def addresses(self, host: str) -> list[Address]:
        """Where `host` is. Waits only for a name that has no answer yet. Raises OSError (socket.gaierror)."""
        entry = self._entry(host)
        now = self._clock()
        if now - entry.answered_at > STALE_MAX_S:
            entry.addresses = []
        if entry.question is None and self._is_due(entry, now):
            self._begin(host, entry, now)
        if not entry.addresses and entry.question is not None:
            # The question goes on when the one who asks has no time left: its answer is there for the next try.
            await asyncio.shield(entry.question)
        if not entry.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, f"the name {host} is not resolved: too many unanswered questions")
        return list(entry.addresses)

    def demote(self, host: str, address: Address) -> None:
        """Connecting to this address failed: it is the last to be tried next time, and the name is asked for again."""
        entry = self._entries.get(host)
        if entry is not None and address in entry.addresses:
            entry.addresses.remove(address)
            entry.addresses.append(address)
            entry.doubted = True

    def _entry(self, host: str) -> _Entry:
        entry = self._entries.get(host)
        if entry is None:
            entry = self._entries[host] = _Entry()
            if len(self._entries) > NAMES_MAX:
                self._entries.popitem(last=False)
        self._entries.move_to_end(host)
        return entry

    @staticmethod
    def _is_due(entry: _Entry, now: float) -> bool:
        if not entry.addresses:
            return True
        old = entry.doubted or now - entry.answered_at >= FRESH_S
        return old and now - max(entry.answered_at, entry.failed_at) >= ASK_AGAIN_S

    def _begin(self, host: str, entry: _Entry, now: float) -> None:
        if self._asking >= QUESTIONS_MAX:
            return
        loop = asyncio.get_running_loop()
        question = entry.question = loop.create_future()
        entry.asked_at = now

        def ask() -> None:
            answer: list[Address] | OSError
            try:
                answer = self._ask(host) or _no_address(host)
            except OSError as error:
                answer = error
            except ValueError as error:
                # Not a name that can be written in ASCII.
                answer = socket.gaierror(socket.EAI_NONAME, f"{host}: {error}")
            try:
                loop.call_soon_threadsafe(self._answered, host, entry, answer)
            except RuntimeError:
                # The loop is closed: no task waits any more.
                return

        try:
            # A daemon: a resolver that hangs must not hold up the end of the process.
            threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
        except RuntimeError as error:
            entry.question, entry.failed_at = None, now
            question.cancel()
            raise socket.gaierror(socket.EAI_AGAIN, f"the name {host} is not resolved: {error}") from None
        self._asking += 1

    def _answered(self, host: str, entry: _Entry, answer: list[Address] | OSError) -> None:
        self._asking -= 1
        now = self._clock()
        question, entry.question = entry.question, None
        if now - entry.asked_at > SLOW_S:
            _log.warning("the name %s took %.1f s to resolve", host, now - entry.asked_at)
        if isinstance(answer, OSError):
            entry.failed_at = now
            if entry.addresses:
                _log.warning("the name %s is not resolved, the last address is used: %s", host, answer)
        else:
            entry.addresses, entry.answered_at, entry.doubted = answer, now, False
        if question is None or question.done():
            return
        if entry.addresses:
            question.set_result(None)
        else:
            question.set_exception(answer if isinstance(answer, OSError) else _no_address(host))
            # An error is no fault when no task waits for it.
            question.exception()


def _no_address(host: str) -> socket.gaierror:
    return socket.gaierror(socket.EAI_NONAME, f"{host} has no address")


def _is_name(host: object, port: object) -> bool:
    if not isinstance(host, str) or not host or isinstance(port, bool) or not isinstance(port, int):
        return False
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return True
    return False


def _infos(addresses: list[Address], port: int, family: int) -> list[tuple[Any, ...]]:
    return [
        (kind, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address[0], port, *address[2:]))
        for kind, address in addresses
        if family in (0, kind)
    ]


class NodeLoop(asyncio.SelectorEventLoop):
    """The agent's loop: asyncio's own, with kept names."""

    def __init__(self, names: Names | None = None) -> None:
        super().__init__()
        self.names = names or Names()

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[Any, ...]]:
        """As asyncio's, from what is kept; for streams alone."""
        if type != socket.SOCK_STREAM or flags & ~_PLAIN_FLAGS or not _is_name(host, port):
            return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        return _infos(await self.names.addresses(host), port, family)


class WorkerLoop(uvloop.Loop):
    """A worker's loop: uvloop, with kept names. Unlike asyncio's it resolves within `create_connection`."""

    def __init__(self, names: Names | None = None) -> None:
        super().__init__()
        self.names = names or Names()

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[Any, ...]]:
        """As uvloop's, from what is kept; for streams alone."""
        if type != socket.SOCK_STREAM or flags & ~_PLAIN_FLAGS or not _is_name(host, port):
            return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        return _infos(await self.names.addresses(host), port, family)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """As uvloop's; the addresses of a name are tried in turn, the one that failed last time at the end."""
        if not _is_name(host, port) or options.get("sock") is not None:
            return await super().create_connection(protocol_factory, host, port, **options)
        if options.get("ssl") and options.get("server_hostname") is None:
            options["server_hostname"] = host
        failed: OSError = socket.gaierror(socket.EAI_ADDRFAMILY, f"{host} has no address of this family")
        for kind, address in await self.names.addresses(host):
            if options.get("family") and options["family"] != kind:
                continue
            try:
                return await super().create_connection(protocol_factory, address[0], port, **options)
            except OSError as error:
                failed = error
                self.names.demote(host, (kind, address))
            except asyncio.CancelledError:
                # The caller's deadline: this address gave no answer.
                self.names.demote(host, (kind, address))
                raise
        raise failed
