"""The HTTP API of a node as the command line uses it: `--api URL` in place of etcd.

Errors come back as the operations raise them, and progress as they report it, so that a command shows the same text.
"""

import math
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from sandwich_coordinator.cli.errors import EXIT_REFUSED, CommandError
from sandwich_coordinator.network_errors import network_words
from sandwich_coordinator.operations import errors
from sandwich_coordinator.operations.progress import Report
from sandwich_coordinator.operations.progress_json import read_progress
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.operations.snapshot_json import decode_snapshot
from sandwich_coordinator.private_files import PrivateFileError, read_private

TOKEN_VARIABLE = "SANDWICH_API_TOKEN"
PREFIX = "/api/v1"
CONNECT_S = 5.0
ANSWER_S = 30.0
CHANGE_S = 120.0
"""A change may test a token against Discord, or replay a thousand dead letters."""
JSON = "application/json"
FOLLOW_SILENT_S = 60.0
"""So much longer than its deadline an operation may take that reports nothing."""
FOLLOW_S_MAX = 3600.0
"""The API waits no longer for a change."""
EVENTS_SILENT_S = 60.0
"""A stream of events that carries not even a heartbeat for so long is broken."""
PAGE_ITEMS = 1000
LINE_BYTES_MAX = 4 * 1024 * 1024
_ERRORS: Mapping[str, type[errors.OperationError]] = {
    "refused": errors.Refused,
    "conflict": errors.Conflict,
    "stale": errors.Conflict,
    "invalid": errors.Invalid,
    "unavailable": errors.Unavailable,
    "outcome-unknown": errors.OutcomeUnknown,
    "not-reached": errors.NotReached,
    "too-many-requests": errors.Unavailable,
    "busy": errors.Unavailable,
    "no-answer": errors.Unavailable,
    "internal": errors.Unavailable,
}


@dataclass(frozen=True, kw_only=True)
class ApiAddress:
    """Where the API is, and the token to use. `ca`: the CA of its certificate; None: the system's."""

    url: str
    token: str | None = field(default=None, repr=False)
    ca: Path | None = None


def api_address(url: str, token_file: Path | None, ca: Path | None) -> ApiAddress:
    """From the options and the environment. Raises CommandError. A token is never an argument: others could see it."""
    trimmed = url.rstrip("/")
    if not trimmed.startswith(("http://", "https://")):
        raise CommandError(f"--api {url!r}: must be a URL that starts with http:// or https://")
    try:
        token = read_private(token_file, "API token").strip() if token_file else os.environ.get(TOKEN_VARIABLE)
    except PrivateFileError as error:
        raise CommandError(f"--api-token-file: {error}") from None
    return ApiAddress(url=trimmed, token=token or None, ca=ca)


class Api:
    """Requests to one node's API."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def get(self, path: str, **query: Any) -> Any:
        """The decoded answer of a GET. Query parameters that are None are left out."""
        return await self.send("GET", path, query=query)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        revision: int | None = None,
    ) -> Any:
        """The decoded answer; None for an empty one. Raises OperationError, CommandError.

        `revision`: only while the resource is still at it; None: as it is now.
        """
        silent_s = ANSWER_S if method == "GET" else CHANGE_S
        async with self._request(method, path, body, query or {}, _if_match(revision), silent_s) as response:
            raw = await response.read()
            if raw and response.content_type != JSON:
                raise _error(None, response.status, self._url)
            return _decoded(raw) if raw else None

    async def items(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """Every item of a list. Raises OperationError, CommandError."""
        items: list[dict[str, Any]] = []
        after = None
        while True:
            page = await self.get(path, limit=PAGE_ITEMS, after=after, **query)
            items += page["items"]
            if (after := page["next"]) is None:
                return items

    async def snapshot(self) -> Snapshot:
        """The whole cluster."""
        async with self._request("GET", "/snapshot", None, {}, {}, ANSWER_S) as response:
            try:
                return decode_snapshot(await response.read())
            except ValueError as error:
                raise errors.Unavailable(f"{self._url}: {error}") from None

    async def follow(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout_s: float,
        report: Report,
        revision: int | None = None,
        **query: Any,
    ) -> Any:
        """Make a change, report its progress, and return its decoded result. Raises OperationError, CommandError.

        `revision`: only while the resource is still at it; None: as it is now.
        """
        wait_s = math.ceil(min(timeout_s, FOLLOW_S_MAX))
        headers = {"Accept": "application/x-ndjson", "Prefer": f"wait={wait_s}", **_if_match(revision)}
        async with self._request(method, path, body, query, headers, wait_s + FOLLOW_SILENT_S) as response:
            async for raw in response.content:
                line = _decoded(raw)
                if not isinstance(line, dict):
                    break
                if "problem" in line:
                    raise _error(line["problem"], response.status)
                if "result" in line:
                    return line["result"]
                progress = read_progress(line.get("progress", {}))
                if progress is not None:
                    report(progress)
        raise errors.Unavailable(f"{self._url} ended the answer early; the request is stored")

    async def events(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[tuple[str, bytes]]:
        """Name and data of server-sent events, until the stream ends. Raises OperationError, CommandError."""
        name = ""
        async with self._request("GET", path, None, query, {}, EVENTS_SILENT_S) as response:
            try:
                async for raw in response.content:
                    key, _, value = raw.rstrip(b"\r\n").partition(b": ")
                    if key == b"event":
                        name = value.decode(errors="replace")
                    elif key == b"data" and name:
                        yield name, value
            except ValueError:
                raise errors.Unavailable(f"{self._url} sends an event that is too large to be shown") from None

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, Any],
        headers: Mapping[str, str],
        silent_s: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._http.request(
                method,
                f"{self._url}{PREFIX}{path}",
                json=body,
                params={name: _text(value) for name, value in query.items() if value is not None},
                headers=dict(headers),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=silent_s),
                allow_redirects=False,
            ) as response:
                if response.status >= 300:
                    raise _error(_decoded(await response.read()), response.status, self._url)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = "no answer" if isinstance(error, TimeoutError) else network_words(error)
            raise errors.Unavailable(f"the API at {self._url} cannot be asked: {reason}") from None


@asynccontextmanager
async def open_api(address: ApiAddress) -> AsyncIterator[Api]:
    """The API while the context lasts. Raises CommandError for a CA that cannot be read."""
    context: ssl.SSLContext | bool = True
    if address.ca is not None:
        try:
            context = ssl.create_default_context(cafile=str(address.ca))
        except (OSError, ssl.SSLError) as error:
            raise CommandError(f"--api-ca {address.ca}: {error}") from None
    headers = {"Authorization": f"Bearer {address.token}"} if address.token else {}
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, max_line_size=LINE_BYTES_MAX, read_bufsize=LINE_BYTES_MAX
    ) as http:
        yield Api(http, address.url)


def part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _if_match(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.MsgspecError:
        return None


def _error(problem: Any, status: int, url: str = "") -> Exception:
    """The error that the API's problem details represent."""
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        return errors.Unavailable(f"{url} answered with HTTP {status}, and that is not Sandwich's API")
    code, detail = problem["code"], str(problem.get("detail", ""))
    given = [one for one in problem.get("errors", ()) if isinstance(one, dict)]
    # An operation's own message is the whole detail, and says where it applies.
    fields = [f"{one['path']}: {one['message']}" for one in given if one["message"] != detail]
    if code == "not-found":
        return errors.NotFound("", "", (), message=detail)
    if code == "unauthenticated":
        return CommandError(f"the API does not know you: set {TOKEN_VARIABLE}, or give --api-token-file", EXIT_REFUSED)
    if code == "forbidden":
        return CommandError(detail, EXIT_REFUSED)
    return _ERRORS.get(code, errors.Refused)(fields or detail.split("\n"))
