"""The store on etcd: etcd3-py builds the requests and has the error types; the transport is ours.

The package's asynchronous client loses watch events, has no deadlines and blocks the loop while it decodes, so every
call goes to etcd's JSON gateway (`/v3/...`) through one aiohttp session, with a deadline, over several endpoints.
"""

import asyncio
import json
import logging
import random
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import etcd3
import msgspec
from etcd3 import errors as etcd_errors

from sandwich_coordinator.addresses import check_url_host
from sandwich_coordinator.backoff import Backoff
from sandwich_coordinator.client_tls import ClientTls
from sandwich_coordinator.network_errors import network_words
from sandwich_coordinator.store.base import (
    Behind,
    Compacted,
    Compare,
    Delete,
    KeyValue,
    LeaseLost,
    Listing,
    Put,
    StoreAmbiguous,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    TxnResult,
    WatchBatch,
    WatchEvent,
)
from sandwich_coordinator.store.etcd_health import MemberStatus

log = logging.getLogger(__name__)

OLDEST_SAFE_VERSION = (3, 5, 13)
"""Older servers may revoke live leases and lose watch events (etcd issues 15247 and 17529)."""
CONNECTIONS_MAX = 64
WATCH_SILENCE_S = 3.0
WATCH_LINE_BYTES_MAX = 256 * 1024 * 1024
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0

# gRPC status codes (google.golang.org/grpc/codes) after which the outcome of a write is unknown.
_UNCERTAIN_CODES = frozenset({1, 2, 4, 10, 13, 14, 15})
_NOT_APPLIED: tuple[type[Exception], ...] = (
    etcd_errors.ErrNoLeader,
    etcd_errors.ErrNotLeader,
    etcd_errors.ErrNotCapable,
    etcd_errors.ErrTooManyRequests,
)
_NO_SPACE = "database space exceeded"
_TOKEN_PROBLEMS = ("etcdserver: invalid auth token", "etcdserver: auth: revision in header is old")
_BACKGROUND_HEADERS = {"Grpc-Metadata-hasleader": "true"}

_Reply = TypeVar("_Reply")
# etcd3-py has no annotations: its untyped calls are confined to these three names.
_client_error: Any = etcd_errors.get_client_error
_Txn: Any = etcd3.Txn
_AioClient: Any = etcd3.AioClient


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Certificates for a server: trusted ones, and the client's. PEM; without a CA the system's are used."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def client(self) -> ClientTls:
        """The context for connections to etcd, of these files. Raises ClientTlsError for unusable ones."""
        return ClientTls("etcd", self.ca_file, self.cert_file, self.key_file)


class _Requests(_AioClient):  # type: ignore[misc]
    """etcd3-py's methods as (path, body) pairs. Its constructor, which contacts a server, is skipped."""

    def __init__(self) -> None:
        pass

    def call_rpc(self, method: str, data: dict[str, Any] | None = None, **_: object) -> tuple[str, dict[str, Any]]:
        return method, data or {}


_requests: Any = _Requests()


class _Header(msgspec.Struct, frozen=True):
    revision: int = 0


class _Kv(msgspec.Struct):
    key: bytes = b""
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: int = 0

    def public(self) -> KeyValue:
        key = self.key.decode("utf-8", "surrogateescape")
        return KeyValue(key, self.value, self.create_revision, self.mod_revision, self.version, self.lease)


class _RangeReply(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)
    kvs: list[_Kv] = []


class _TxnReply(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)
    succeeded: bool = False


class _LeaseReply(msgspec.Struct):
    ID: int = 0
    TTL: int = 0


class _KeepAliveReply(msgspec.Struct):
    result: _LeaseReply | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


class _TokenReply(msgspec.Struct):
    token: str = ""


class _VersionReply(msgspec.Struct):
    etcdserver: str = ""


class _NothingReply(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)


class _Event(msgspec.Struct):
    kv: _Kv
    type: str = "PUT"


class _WatchReply(msgspec.Struct):
    header: _Header = _Header()
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[_Event] = []


class _WatchLine(msgspec.Struct):
    result: _WatchReply | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


_WATCH_LINE = msgspec.json.Decoder(_WatchLine, strict=False)


class _NoAnswer(Exception):
    """An attempt that got no usable answer. `applied` is False when the server certainly did nothing."""

    def __init__(self, reason: str, *, applied: bool | None) -> None:
        super().__init__(reason)
        self.applied = applied


class _TokenProblem(Exception):
    """The server did not accept our authentication token; it may simply have expired."""


class LineDecoder:
    """Split a byte stream into lines; the last one may have no newline (etcd's final error has none)."""

    def __init__(self, line_bytes_max: int = WATCH_LINE_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._line_bytes_max = line_bytes_max

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completed. Raises ValueError when a line exceeds its limit."""
        self._buffer += chunk
        lines = []
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            lines.append(bytes(self._buffer[:end]))
            del self._buffer[: end + 1]
            self._searched = 0
        self._searched = len(self._buffer)
        if self._searched > self._line_bytes_max:
            raise ValueError(f"a line of more than {self._line_bytes_max} bytes")
        return [line for line in lines if line.strip()]

    def rest(self) -> list[bytes]:
        """The rest after the last newline, at the end of the stream."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return [rest] if rest.strip() else []


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys under `prefix` (etcd API reference); b"\\0" means no end."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"


def version_warning(version: str) -> str | None:
    """Why a server of this version should be upgraded, or None."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found and tuple(int(part) for part in found.groups()) >= OLDEST_SAFE_VERSION:
        return None
    oldest = ".".join(str(part) for part in OLDEST_SAFE_VERSION)
    return f"etcd {version or 'of unknown version'} may drop leases and watch events; run {oldest} or newer"


def _key(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _error_text(body: bytes) -> tuple[str, int]:
    """Message and gRPC code of an error body, in the shapes of gateway 1 (etcd 3.5) and 2 (etcd 3.6)."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return "an answer that is not etcd's", 2
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    if not isinstance(found, dict):
        return "an answer that is not etcd's", 2
    code = found.get("grpc_code", found.get("code", 2))
    return str(found.get("message") or found.get("error") or "no reason given"), code if isinstance(code, int) else 2


def _server_error(body: bytes, status: int) -> Exception:
    """The exception for an error in etcd's answer."""
    message, code = _error_text(body)
    if message in _TOKEN_PROBLEMS:
        return _TokenProblem(message)
    if _NO_SPACE in message:
        # Space can be freed: such requests are worth a retry.
        return StoreUnavailable("etcd is out of space and refuses writes")
    error = _client_error(message, code, status)
    if isinstance(error, etcd_errors.ErrLeaseNotFound):
        return LeaseLost("the lease has expired or was revoked")
    if isinstance(error, _NOT_APPLIED):
        return _NoAnswer(message, applied=False)
    if code in _UNCERTAIN_CODES and status != 404:
        return _NoAnswer(message, applied=None)
    return StoreRefused(message)


def _endpoint(text: str, tls: TlsOptions | None) -> str:
    url = text if "://" in text else f"{'https' if tls else 'http'}://{text}"
    check_url_host(url)
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or "@" in parts.netloc
        or parts.path not in ("", "/")
    ):
        raise ValueError("an etcd endpoint is http[s]://host:port, with no user name and no path")
    try:
        usable = parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ValueError("an etcd endpoint is http[s]://host:port, with a port from 1 to 65535 and nothing after it")
    if tls is not None and parts.scheme == "http":
        raise ValueError(f"TLS is configured but {url} is not https")
    return url.rstrip("/")


class EtcdStore:
    """`Store` on one etcd cluster.

    `endpoints` are tried in turn, starting with the last that answered; each call ends within `timeout_s` seconds
    (twice that when it must authenticate first). `progress_s`: how often an idle watch shows that it is alive.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        username: str | None = None,
        password: str | None = None,
        tls: TlsOptions | None = None,
        timeout_s: float = 2.0,
        watch_silence_s: float = WATCH_SILENCE_S,
        rng: random.Random | None = None,
    ) -> None:
        """Connects to nothing yet. Raises ValueError for what is no endpoint, ClientTlsError for unusable files."""
        if not endpoints:
            raise ValueError("at least one etcd endpoint is needed")
        self._endpoints = [_endpoint(endpoint, tls) for endpoint in endpoints]
        https = any(endpoint.startswith("https://") for endpoint in self._endpoints)
        self._tls = (tls or TlsOptions()).client() if https else None
        self.progress_s = watch_silence_s
        self._credentials = (username, password or "") if username else None
        self._timeout_s = timeout_s
        self._attempt_s = timeout_s if len(self._endpoints) == 1 else timeout_s / 2
        self._rng = rng or random.Random()
        self._current = 0
        self._token = ""
        self._token_lock = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self.has_written = False
        """Whether a transaction of this client changed something."""

    def __repr__(self) -> str:
        return f"EtcdStore({', '.join(self._endpoints)})"

    @property
    def tls_refused(self) -> str:
        """Why changed files for TLS are not used; "" when they are."""
        return self._tls.refused if self._tls is not None else ""

    async def get(self, key: str) -> KeyValue | None:
        """See `Store.get`."""
        reply = await self._call(_requests.range(_key(key)), _RangeReply)
        return reply.kvs[0].public() if reply.kvs else None

    async def list(self, prefix: str) -> Listing:
        """See `Store.list`."""
        start = _key(prefix) or b"\0"
        reply = await self._call(_requests.range(start, range_end=prefix_end(_key(prefix))), _RangeReply)
        return Listing(tuple(kv.public() for kv in reply.kvs), reply.header.revision)

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> TxnResult:
        """See `Store.txn`."""
        txn = _Txn(_requests)
        for compare in compares:
            target = _Txn.key(_key(compare.key))
            fields = {"create_revision": "create", "mod_revision": "mod", "value": "value"}
            txn.compare(getattr(target, fields[compare.field]) == compare.expected)
        for write in writes:
            if isinstance(write, Put):
                txn.success(_Txn.put(_key(write.key), write.value, lease=write.lease))
            else:
                end = prefix_end(_key(write.key)) if write.prefix else None
                txn.success(_Txn.delete(_key(write.key), range_end=end))
        reply = await self._call(txn.commit(), _TxnReply, write=True)
        self.has_written = self.has_written or (reply.succeeded and bool(writes))
        return TxnResult(reply.succeeded, reply.header.revision)

    async def grant(self, ttl_s: int) -> int:
        """See `Store.grant`. A lease whose answer was lost expires by itself."""
        return (await self._call(_requests.lease_grant(ttl_s), _LeaseReply)).ID

    async def keep_alive(self, lease: int) -> float:
        """See `Store.keep_alive`. For a lost lease etcd answers 200 without a TTL."""
        reply = await self._call(("/lease/keepalive", {"ID": lease}), _KeepAliveReply)
        if reply.result is None or reply.result.TTL <= 0:
            raise LeaseLost(f"lease {lease:x} has expired or was revoked")
        return float(reply.result.TTL)

    async def revoke(self, lease: int) -> None:
        """See `Store.revoke`."""
        try:
            await self._call(("/lease/revoke", {"ID": lease}), _NothingReply)
        except LeaseLost:
            return

    async def compact(self, revision: int) -> None:
        """Drop history before `revision` (for operators and tests). Raises StoreUnavailable, StoreRefused."""
        await self._call(_requests.compact(revision), _NothingReply)

    async def server_version(self) -> str:
        """The answering server's version; `version_warning` says when it is too old. Raises StoreUnavailable."""
        return (await self._call(("", {}), _VersionReply)).etcdserver

    async def member_statuses(self) -> dict[str, MemberStatus | str]:
        """The status of each endpoint, or why it does not answer; without endpoints that do not permit the request."""

        async def ask(endpoint: str) -> MemberStatus | str | None:
            try:
                return await self._attempt(endpoint, ("/maintenance/status", {}), MemberStatus, self._attempt_s)
            except (_TokenProblem, StoreRefused):
                return None
            except (_NoAnswer, StoreError) as error:
                return str(error)

        answers = await asyncio.gather(*(ask(endpoint) for endpoint in self._endpoints))
        asked = zip(self._endpoints, answers, strict=True)
        return {endpoint: answer for endpoint, answer in asked if answer is not None}

    async def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """See `Store.watch`. An idle watch yields an empty batch every `progress_s` while its server is alive."""
        return self._watch(prefix, max(1, from_revision))

    async def _watch(self, prefix: str, next_revision: int) -> AsyncGenerator[WatchBatch, None]:
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, self._rng)
        while True:
            endpoint = self._endpoints[self._current]
            try:
                async with aclosing(self._watch_once(endpoint, prefix, next_revision)) as batches:
                    async for batch in batches:
                        backoff.succeeded()
                        next_revision = batch.revision + 1
                        yield batch
            except (_NoAnswer, StoreUnavailable, StoreRefused, StoreAmbiguous) as error:
                log.info("watch of %s at %s was interrupted: %s", prefix, endpoint, error)
                self._rotate_from(endpoint)
            except _TokenProblem as error:
                log.warning("watch of %s was refused, authenticating again: %s", prefix, error)
                self._token = ""
            await asyncio.sleep(backoff.next_s())

    async def _watch_once(self, endpoint: str, prefix: str, next_revision: int) -> AsyncGenerator[WatchBatch, None]:
        """One watch stream, until it breaks: raises _NoAnswer, _TokenProblem or a StoreError."""
        create = {"key": _key(prefix) or b"\0", "range_end": prefix_end(_key(prefix)), "start_revision": next_revision}
        response = await self._open_stream(endpoint, "/watch", {"create_request": create})
        try:
            lines = LineDecoder()
            while True:
                chunk = await self._next_chunk(endpoint, prefix, response)
                if chunk is None:
                    yield WatchBatch((), next_revision - 1)
                    continue
                try:
                    complete = lines.feed(chunk) if chunk else lines.rest()
                except ValueError:
                    raise Compacted(next_revision) from None
                for line in complete:
                    batch = _watch_batch(line, next_revision)
                    next_revision = batch.revision + 1
                    yield batch
                if not chunk:
                    raise _NoAnswer("the server ended the stream", applied=None)
        finally:
            response.close()

    async def _open_stream(self, endpoint: str, path: str, body: dict[str, Any]) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(self._timeout_s):
                headers = await self._headers()
                response = await self._http().post(
                    f"{endpoint}/v3{path}",
                    data=msgspec.json.encode(body),
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._attempt_s),
                    ssl=self._context(),
                )
                if response.status != 200:
                    raise _server_error(await response.read(), response.status)
        except (aiohttp.ClientError, OSError) as error:
            raise _NoAnswer(network_words(error), applied=None) from None
        _set_keepalive(response)
        return response

    async def _next_chunk(self, endpoint: str, prefix: str, response: aiohttp.ClientResponse) -> bytes | None:
        """Bytes, b"" at the end, or None after a silence in which the server answered a probe. Raises _NoAnswer."""
        try:
            async with asyncio.timeout(self.progress_s):
                return await response.content.readany()
        except TimeoutError:
            # A frozen server keeps its sockets open and sends nothing: only a request shows whether it is alive.
            rpc = _requests.range(_key(prefix) or b"\0", serializable=True, keys_only=True, limit=1)
            await self._attempt(endpoint, rpc, _RangeReply, self._attempt_s)
            return None
        except (aiohttp.ClientError, OSError) as error:
            raise _NoAnswer(network_words(error), applied=None) from None

    async def _call(
        self, rpc: tuple[str, dict[str, Any]], reply: type[_Reply], *, write: bool = False, authenticated: bool = True
    ) -> _Reply:
        """Send a request to the first endpoint that answers. A write that may have been applied is not repeated."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        reason, renewed = "no time left", False
        tries = len(self._endpoints) + 1
        while tries > 0 and (left_s := deadline - loop.time()) > 0:
            tries -= 1
            endpoint = self._endpoints[self._current]
            token = self._token
            try:
                attempt_s = left_s if write else min(left_s, self._attempt_s)
                return await self._attempt(endpoint, rpc, reply, attempt_s, authenticated=authenticated)
            except _TokenProblem as error:
                if renewed or self._credentials is None:
                    raise StoreRefused(str(error)) from None
                renewed = True
                tries += 1
                await self._authenticate(stale=token)
                deadline = loop.time() + self._timeout_s
            except _NoAnswer as error:
                reason = f"{endpoint}: {error}"
                self._rotate_from(endpoint)
                if write and error.applied is None:
                    raise StoreAmbiguous(f"the outcome of a write is unknown ({reason})") from None
                if len(self._endpoints) == 1:
                    break
        raise StoreUnavailable(f"etcd did not answer ({reason})")

    async def _attempt(
        self,
        endpoint: str,
        rpc: tuple[str, dict[str, Any]],
        reply: type[_Reply],
        timeout_s: float,
        *,
        authenticated: bool = True,
    ) -> _Reply:
        path, body = rpc
        headers = await self._headers() if authenticated else {}
        connect_s = min(timeout_s, self._attempt_s) * 0.8
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=connect_s)
        try:
            if path:
                url, data = f"{endpoint}/v3{path}", msgspec.json.encode(body)
                request = self._http().post(url, data=data, headers=headers, timeout=timeout, ssl=self._context())
            else:
                request = self._http().get(f"{endpoint}/version", timeout=timeout, ssl=self._context())
            async with request as response:
                content = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _NoAnswer(network_words(error), applied=False) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _NoAnswer(network_words(error), applied=None) from None
        if response.status != 200:
            raise _server_error(content, response.status)
        try:
            answer = msgspec.json.decode(content, type=reply, strict=False)
        except msgspec.DecodeError:
            raise _NoAnswer("an answer that is not etcd's", applied=None) from None
        if isinstance(answer, _KeepAliveReply) and answer.error:
            raise _server_error(content, response.status)
        return answer

    async def _headers(self) -> dict[str, str]:
        if self._credentials is not None and not self._token:
            await self._authenticate(stale="")
        return {**_BACKGROUND_HEADERS, "Authorization": self._token} if self._token else _BACKGROUND_HEADERS

    async def _authenticate(self, *, stale: str) -> None:
        """Get a new token unless another task just did. One at a time, because bcrypt makes it expensive."""
        async with self._token_lock:
            if self._credentials is None or self._token != stale:
                return
            name, password = self._credentials
            rpc = _requests.authenticate(name, password)
            self._token = (await self._call(rpc, _TokenReply, authenticated=False)).token

    def _rotate_from(self, endpoint: str) -> None:
        if self._endpoints[self._current] == endpoint:
            self._current = (self._current + 1) % len(self._endpoints)

    def _context(self) -> ssl.SSLContext | bool:
        """For each request, as connections with another context than this one are not used again."""
        return True if self._tls is None else self._tls.current()

    def _http(self) -> aiohttp.ClientSession:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


def _watch_batch(line: bytes, next_revision: int) -> WatchBatch:
    """A line of a watch stream as a batch. Raises Behind, Compacted, _NoAnswer or an error of `_server_error`.

    The header's revision is used only in the first line: in a later one it may be ahead of events that are not sent yet
    (etcd issue 15220).
    """
    try:
        found = _WATCH_LINE.decode(line)
    except msgspec.DecodeError:
        raise _NoAnswer("a line that is not etcd's", applied=None) from None
    if found.error or found.result is None:
        raise _server_error(line, 200)
    result = found.result
    if result.created and 0 < result.header.revision < next_revision - 1:
        # etcd would wait silently until its revisions have caught up; a restored one may never do so.
        raise Behind(f"the server is at revision {result.header.revision}, {next_revision - 1} was seen already")
    if result.compact_revision:
        raise Compacted(result.compact_revision)
    if result.canceled:
        # An expired token gives "permission denied" here: retry with a new one.
        raise _TokenProblem(result.cancel_reason)
    events = tuple(
        WatchEvent("delete" if event.type == "DELETE" else "put", event.kv.public())
        for event in result.events
        if event.kv.mod_revision >= next_revision
    )
    return WatchBatch(events, events[-1].kv.mod_revision if events else next_revision - 1)


def _set_keepalive(response: aiohttp.ClientResponse) -> None:
    """Make the kernel detect within about ten seconds that the peer's machine is gone."""
    transport = response.connection.transport if response.connection is not None else None
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is not None and hasattr(socket, "TCP_KEEPIDLE"):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


__all__ = ["EtcdStore", "LineDecoder", "StoreError", "TlsOptions", "prefix_end", "version_warning"]
