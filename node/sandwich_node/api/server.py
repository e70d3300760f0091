"""The table of routes on aiohttp: reads a request, checks who asks and what, calls the handler, writes the answer.

Every route goes through `_answer`, so that no check can be forgotten in one of them.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from aiohttp import web
from pydantic import ValidationError

from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.operations.errors import NAME_SHOWN, NotFound, NotReached
from sandwich_coordinator.operations.progress import Progress
from sandwich_coordinator.operations.progress_json import progress_value
from sandwich_node.api.audit import is_recorded
from sandwich_node.api.cluster import ApiCluster
from sandwich_node.api.idempotency import Answer
from sandwich_node.api.models import Model
from sandwich_node.api.problem_details import EXPECTED, UNKNOWN, ApiError, code_of, problem_details
from sandwich_node.api.routing import Call, Reply, Route, Stream
from sandwich_node.api.snapshot_answers import Written
from sandwich_node.api.work import Slot, Work

_log = logging.getLogger(__name__)

PREFIX = "/api/v1"
BODY_BYTES_MAX = 1024 * 1024
BODY_TIMEOUT_S = 10.0
"""How long a body may take to arrive."""
WAIT_S_MAX = 600.0
FOLLOW_S_MAX = 3600.0
"""As long as a caller that reads the progress waits at most, and without `Prefer` WAIT_S_MAX."""
STREAM_WRITE_S = 5.0
"""A reader of a stream that takes nothing for so long is cut off."""
STREAM_CHECK_S = 1.0
"""So often it is looked up whether the reader of a stream may still have it."""
LINES_MAX = 1000
WHO = web.RequestKey("who", Identity)
CLIENT = web.RequestKey("client", str)
"""The client's address, as `identify` found it."""
NDJSON = "application/x-ndjson"
IDEMPOTENCY_KEY = "Idempotency-Key"
PROBLEM_TYPE = "application/problem+json"
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")

Identify = Callable[[web.Request, Route], Awaitable[Identity]]
"""Who sends a request. Raises ApiError: unauthenticated, forbidden (a cross-site request), too-many-requests."""
Record = Callable[[Call, Route, Exception | None], Awaitable[None]]
"""Writes a change, done or refused, to the audit log."""


def add_routes(
    app: web.Application, routes: Iterable[Route], cluster: ApiCluster, *, identify: Identify, record: Record
) -> None:
    """Serve every route below `/api/v1`. What is not in the table is answered as a problem, too."""
    work = Work()
    methods: dict[str, list[str]] = {}
    for route in routes:
        answer = partial(_answer, route, cluster, work, identify=identify, record=partial(_record, record))
        app.router.add_route(route.method, PREFIX + route.path, answer)
        allowed = methods.setdefault(route.path, ["OPTIONS"])
        allowed.append(route.method)
        if route.method == "GET" and route.media_type == "application/json":
            # aiohttp sends the headers of the answer without its body.
            app.router.add_route("HEAD", PREFIX + route.path, answer)
            allowed.append("HEAD")
    for path, allowed in methods.items():
        app.router.add_route("OPTIONS", PREFIX + path, partial(_options, ", ".join(sorted(allowed))))


async def _record(record: Record, call: Call, route: Route, error: Exception | None) -> None:
    if is_recorded(call, route):
        await record(call, route, error)


async def _options(allowed: str, _request: web.Request) -> web.Response:
    """The methods of a resource. Without headers of CORS: a page of another origin may send nothing."""
    return web.Response(status=204, headers={"Allow": allowed})


@web.middleware
async def problems_only(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """Below the API's prefix aiohttp's own errors become problem details."""
    if not request.path.startswith(PREFIX):
        return await handler(request)
    try:
        return await handler(request)
    except web.HTTPException as error:
        known = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
        if error.status not in known:
            raise
        response = problem_response(ApiError(known[error.status], f"{request.method} {request.path}"))
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response


def problem_response(error: Exception) -> web.Response:
    """The error as the whole answer."""
    details = problem_details(error)
    headers = {}
    if isinstance(error, ApiError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if details.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="sandwich"'
    return web.Response(
        status=details.status, body=details.model_dump_json().encode(), content_type=PROBLEM_TYPE, headers=headers
    )


async def _answer(
    route: Route, cluster: ApiCluster, work: Work, request: web.Request, *, identify: Identify, record: Record
) -> web.StreamResponse:
    try:
        slot = work.begin()
    except ApiError as error:
        return problem_response(error)
    try:
        found = await _result(route, cluster, slot, request, identify=identify, record=record)
    finally:
        slot.end()
    if isinstance(found, Stream):
        return await _stream(request, found, partial(_is_allowed, route, request, identify))
    return found


async def _is_allowed(route: Route, request: web.Request, identify: Identify) -> bool:
    """Whether who asked is still the same: a stream does not outlive a token that was taken away, or a wider scope."""
    try:
        return await identify(request, route) == request[WHO]
    except ApiError:
        return False


async def _result(
    route: Route, cluster: ApiCluster, slot: Slot, request: web.Request, *, identify: Identify, record: Record
) -> web.StreamResponse | Stream:
    """The answer, or the stream that it is to be."""
    call: Call | None = None
    try:
        identity = request[WHO] = await identify(request, route)
        call = Call(cluster=cluster, identity=identity, path=dict(request.match_info), client=request.get(CLIENT, ""))
        check_allowed(route, identity, request.match_info)
        call = replace(call, query=_query(route, request))
        call = await _read(route, call, request)
        follows = route.takes_time and NDJSON in request.headers.get("Accept", "")
        is_once = route.is_change and IDEMPOTENCY_KEY in request.headers
        if follows and is_once:
            raise ApiError("malformed", f"{IDEMPOTENCY_KEY} is for one answer, not for progress ({NDJSON})")
        if follows or call.wait_s:
            slot.wait()
    except EXPECTED as error:
        await _record_refusal(call, route, error, record)
        return problem_response(error)
    except Exception as error:
        _log.exception("%s %s failed", route.method, route.path)
        await _record_refusal(call, route, error, record)
        return problem_response(error)
    if follows:
        return await _follow(route, call, request, record, partial(_is_allowed, route, request, identify))
    if is_once:
        return await _answer_once(route, call, request, record)
    if route.is_of_snapshot:
        return await _answer_of_snapshot(route, call, request)
    found = await _carry_out(route, call, record)
    return found if isinstance(found, Stream) else _respond(route, request, found)


async def _answer_of_snapshot(route: Route, call: Call, request: web.Request) -> web.StreamResponse:
    """The answer that another client had to the same question, or a new one."""
    answers = call.cluster.written
    asked = (request.path_qs, call.identity.role, call.identity.apps)
    try:
        snapshot = await call.cluster.picture.snapshot(call.cluster.view())
    except EXPECTED as error:
        return problem_response(error)
    except Exception as error:
        _log.exception("%s %s failed", route.method, route.path)
        return problem_response(error)
    written = answers.get(snapshot, asked)
    if written is None:
        found = await _outcome(route, call)
        assert not isinstance(found, Stream), "a stream is of no snapshot"
        if isinstance(found, Exception):
            return problem_response(_seen(found, call))
        written = _written(route, found)
        answers.keep(snapshot, asked, written)
    return _send(request, written)


async def _carry_out(route: Route, call: Call, record: Record) -> Exception | Model | Reply | Stream | None:
    """The outcome as the identity may see it."""
    outcome = await _outcome(route, call)
    await record(call, route, outcome if isinstance(outcome, Exception) else None)
    return _seen(outcome, call) if isinstance(outcome, Exception) else outcome


def _respond(route: Route, request: web.Request, found: Exception | Model | Reply | None) -> web.Response:
    return problem_response(found) if isinstance(found, Exception) else _send(request, _written(route, found))


async def _answer_once(route: Route, call: Call, request: web.Request, record: Record) -> web.StreamResponse:
    """Carry the request out, or give the answer that it had. What failed for want of a server may be sent again."""
    same = "\0".join((route.method, request.path_qs, request.headers.get("If-Match", ""))).encode()
    same += b"\0" + (await request.read() if route.body is not None else b"")
    answers = call.cluster.answers
    try:
        begun = await answers.begin(call.identity, request.headers[IDEMPOTENCY_KEY], same)
    except EXPECTED as error:
        await _record_refusal(call, route, error, record)
        return problem_response(error)
    if isinstance(begun, Answer):
        headers = {**begun.headers, "Idempotency-Replayed": "true", "Cache-Control": "no-store"}
        return web.Response(status=begun.status, body=begun.body, headers=headers)
    try:
        async with answers.kept_alive(begun):
            found = await _carry_out(route, call, record)
        assert not isinstance(found, Stream), "a change has one answer"
        response = _respond(route, request, found)
    except Exception:
        # A cancelled request is not one: whether its change was made is not known, and the key is free after its lease.
        await answers.end(begun, None)
        raise
    if isinstance(found, Exception) and code_of(found) in UNKNOWN:
        # Likewise.
        return response
    # Shielded: when this node ends now, the change is made, and its answer is for the request that is sent again.
    await asyncio.shield(answers.end(begun, _kept(response)))
    return response


def _kept(response: web.StreamResponse) -> Answer | None:
    """What is kept of an answer; None when the same request may have another one."""
    if not isinstance(response, web.Response) or response.status >= 500 or response.status == 429:
        return None
    names = ("Content-Type", "ETag", "Location")
    headers = {name: response.headers[name] for name in names if name in response.headers}
    return Answer(response.status, headers, response.body if isinstance(response.body, bytes) else b"")


async def _record_refusal(call: Call | None, route: Route, error: Exception, record: Record) -> None:
    """A change that was refused, of a known identity: any client can send requests that nothing is known of."""
    if call is not None and call.identity.role is not None:
        await record(call, route, error)


def _seen(error: Exception, call: Call) -> Exception:
    """The error as the identity may see it: who is limited to some applications gets no list of names."""
    if call.identity.apps is None or not isinstance(error, NotFound) or not error.known:
        return error
    return ApiError("not-found", f"there is no {error.kind} {error.name[:NAME_SHOWN]}")


def check_allowed(route: Route, identity: Identity, path: Any) -> None:
    """The one place where a role and a scope are compared with a route. Raises ApiError."""
    if route.role is None:
        return
    if not identity.has_role(route.role):
        if identity.role is None:
            raise ApiError("unauthenticated", "sign in, or send an API token: Authorization: Bearer TOKEN")
        raise ApiError("forbidden", f"this needs the role {route.role.label}; you have {identity.role.label}")
    if route.is_of_app and not identity.sees(path["app"]):
        # The same answer as for an application that does not exist: its name is not confirmed.
        raise ApiError("not-found", f"there is no application {path['app'][:64]}")
    if identity.apps is not None and not route.is_of_app and (route.cluster_wide or route.is_change):
        raise ApiError("forbidden", "this concerns the whole cluster, and you are limited to some applications")


async def _read(route: Route, call: Call, request: web.Request) -> Call:
    return replace(
        call,
        body=await _body(route, request),
        revision=_revision(request.headers.get("If-Match")) if route.is_conditional else None,
        wait_s=min(_wait_s(request.headers.get("Prefer", "")) or 0.0, WAIT_S_MAX) if route.takes_time else 0.0,
        headers={name.lower(): value for name, value in request.headers.items()},
    )


def _query(route: Route, request: web.Request) -> Model:
    values: dict[str, Any] = {}
    for name, value in request.query.items():
        if name in values:
            raise ApiError("invalid", f"the query parameter {name[:64]} is given twice")
        values[name] = value
    return route.query.model_validate_strings(values)


async def _body(route: Route, request: web.Request) -> Model | None:
    if route.body is None:
        return None
    if request.content_type != "application/json":
        raise ApiError("media-type", "send Content-Type: application/json")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError("too-large", f"a body has at most {BODY_BYTES_MAX} bytes") from None
    except TimeoutError:
        raise ApiError("too-slow", f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
    try:
        return route.body.model_validate_json(raw or b"{}")
    except ValidationError as error:
        if any(found["type"] == "json_invalid" for found in error.errors(include_url=False, include_input=False)):
            raise ApiError("malformed", "the body is not JSON") from None
        raise


def _revision(header: str | None) -> int | None:
    """The revision in an ETag: what is before its hyphen."""
    if header is None or header.strip() == "*":
        return None
    tag = header.strip().removeprefix('"').removesuffix('"').partition("-")[0]
    if not (tag.isascii() and tag.isdecimal() and len(tag) <= 18):
        raise ApiError("malformed", 'If-Match takes one ETag that this API gave, such as "1234-5f0c9a7e"')
    return int(tag)


def _etag(revision: int | None, body: bytes) -> str:
    """Of an answer: it differs whenever the answer does. `revision` is in it for If-Match."""
    digest = hashlib.blake2b(body, digest_size=8).hexdigest()
    return f'"{digest}"' if revision is None else f'"{revision}-{digest}"'


def _is_known(header: str, etag: str) -> bool:
    """Whether If-None-Match names this ETag. It compares weakly (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or "*" in tags


def _wait_s(prefer: str) -> float | None:
    """How long the caller waits; None: it does not say."""
    found = _WAIT.search(prefer)
    return float(found.group(1)) if found else None


def _written(route: Route, found: Model | Reply | None) -> Written:
    reply = found if isinstance(found, Reply) else Reply(found)
    headers = dict(reply.headers)
    headers.setdefault("Cache-Control", "no-store" if route.is_change else "private, no-cache")
    if reply.result is None:
        return Written(reply.status or 204, headers)
    body = reply.result.model_dump_json().encode()
    if reply.revision is not None or not route.is_change:
        headers["ETag"] = _etag(reply.revision, body)
    return Written(reply.status or route.status, headers, body)


def _send(request: web.Request, written: Written) -> web.Response:
    etag = written.headers.get("ETag") if request.method in ("GET", "HEAD") else None
    if etag is not None and _is_known(request.headers.get("If-None-Match", ""), etag):
        return web.Response(status=304, headers=written.headers)
    if written.body is None:
        return web.Response(status=written.status, headers=written.headers)
    return web.Response(
        status=written.status, body=written.body, content_type="application/json", headers=written.headers
    )


async def _stream(
    request: web.Request, stream: Stream, is_allowed: Callable[[], Awaitable[bool]] | None = None
) -> web.StreamResponse:
    """Write a stream until it ends, its reader is too slow, or `is_allowed` (asked before a chunk) says no."""
    clock = asyncio.get_running_loop().time
    checked_at = clock()
    response = web.StreamResponse(
        headers={"Content-Type": stream.content_type, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )
    chunks = stream.chunks
    try:
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        async for chunk in chunks:
            if is_allowed is not None and clock() >= checked_at + STREAM_CHECK_S:
                if not await is_allowed():
                    break
                checked_at = clock()
            async with asyncio.timeout(STREAM_WRITE_S):
                await response.write(chunk)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass
    finally:
        aclose = getattr(chunks, "aclose", None)
        if aclose is not None:
            await aclose()
    return response


async def _follow(
    route: Route, call: Call, request: web.Request, record: Record, is_allowed: Callable[[], Awaitable[bool]]
) -> web.StreamResponse:
    """Progress line by line; the last line has `result` or `problem`. A refusal before any progress is a plain answer.

    A caller that disconnects, or may not follow any longer, ends the waiting, not the change.
    """
    lines: asyncio.Queue[bytes] = asyncio.Queue(maxsize=LINES_MAX)

    def report(progress: Progress) -> None:
        if not lines.full():
            # Later lines say what this one would.
            lines.put_nowait(_line({"progress": progress_value(progress)}))

    wanted_s = _wait_s(request.headers.get("Prefer", ""))
    wait_s = WAIT_S_MAX if wanted_s is None else min(wanted_s, FOLLOW_S_MAX)
    followed = replace(call, follows=True, report=report, wait_s=wait_s)
    task = asyncio.create_task(_outcome(route, followed))
    try:
        first = await _next_line(lines, task)
        if first is None:
            failure = task.result()
            if isinstance(failure, Exception):
                await record(call, route, failure)
                return problem_response(_seen(failure, call))

        async def chunks() -> AsyncGenerator[bytes, None]:
            line = first
            while line is not None:
                yield line
                line = await _next_line(lines, task)
            ended = task.result()
            yield _last_line(_seen(ended, call) if isinstance(ended, Exception) else ended)

        response = await _stream(request, Stream(chunks(), NDJSON), is_allowed)
        ended = task.result() if task.done() else NotReached("its progress was read no longer, and its end not awaited")
        await record(call, route, ended if isinstance(ended, Exception) else None)
        return response
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _outcome(route: Route, call: Call) -> Exception | Model | Reply | Stream | None:
    """The handler's result, or what it raised. After a change the next read shows it."""
    try:
        result = await route.handler(call)
        if route.is_change:
            await call.cluster.settle()
        return result
    except EXPECTED as error:
        return error
    except Exception as error:
        _log.exception("%s %s failed", route.method, route.path)
        return error


async def _next_line(lines: asyncio.Queue[bytes], task: asyncio.Task[Any]) -> bytes | None:
    """The next line of progress; None when the task has ended and nothing is left."""
    waiting = asyncio.create_task(lines.get())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _last_line(outcome: Exception | Model | Reply | Stream | None) -> bytes:
    if isinstance(outcome, Exception):
        return _line({"problem": problem_details(outcome).model_dump(mode="json")})
    result = outcome.result if isinstance(outcome, Reply) else outcome
    return _line({"result": result.model_dump(mode="json") if isinstance(result, Model) else None})
