"""Receives consumers' requests: answers those about the cache, and forwards those for a shard.

All workers of a cluster share one queue group for each of the cluster's applications, so that any of them answers. They
do not subscribe for other applications, which may belong to another cluster on the same NATS. Requests for a shard are
forwarded to the shard's subject, to which only its worker subscribes; the shard answers the consumer directly.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_node.ipc import AppInfo
from sandwich_node.rpc.admission import Admission
from sandwich_node.rpc.questions import VERBS as CACHE_VERBS
from sandwich_node.rpc.questions import CacheQuestions
from sandwich_node.rpc.requests import OPS, may_answer, snowflake
from sandwich_node.rpc.shard import ShardCommands, ShardGone
from sandwich_node.rpc.transport import Message, NoAnswer, NoResponder, Requests, Serving, TransportError
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.rpc import (
    INVALID,
    LIMITED,
    NOT_FOUND,
    UNAVAILABLE,
    Answer,
    RpcError,
    encode_error,
    encode_result,
    parts,
)

_log = logging.getLogger(__name__)

QUEUE = "sandwich"
LOOK_AGAIN_S = 30.0
"""The interval of checks whether an application still belongs to another cluster."""
PACKED_BYTES_MAX = 4 * 1024 * 1024
PING = "ping"
PRESENCE = "presence"
"""The verbs that a shard answers at once: whether it is there, and the presence that the bot shows on it."""
PASSED = "Sandwich-Passed"
"""Header of a request on `shard_subject`: how many shards did not act on it because they ended."""
PASSED_MAX = 5
FIND_TIMEOUT_S = 1.0
FIND_AGAIN_S = 0.2
FIND_FOR_S = 4.5
"""How long a request without a `timeout` waits here for a shard that moves, or for the next group's.

Consumers wait for five seconds by default; after an error they may retry.
"""
FIND_MAX_S = 10.0
"""The same for a request with a `timeout`, at most."""
NO_OWNER = "no node runs this shard at this moment"
FAN_OUT_AT_ONCE = 64
FAN_OUT_TIMEOUT_S = 3.0
PART_RESERVE_BYTES = 4096

_SHARD_VERBS = frozenset(OPS) | {"relay"}
SHARED_VERBS = frozenset({"request_members"})
"""Verbs whose equal requests share one answer."""


class _NoOwner(RpcError):
    """No node runs the shard at this moment."""

    def __init__(self) -> None:
        super().__init__(UNAVAILABLE, NO_OWNER, FIND_AGAIN_S)


_Parts = list[tuple[bytes, dict[str, str] | None]]


class _Target(msgspec.Struct):
    guild_id: str | None = None
    shard: int | None = None
    timeout: float = FIND_FOR_S


_target = msgspec.json.Decoder(_Target).decode


class RpcServer:
    """The server of one worker. `apps`: the cluster's present applications; `questions` None: there is no Redis.

    `belongs_elsewhere` returns whether another cluster on the same NATS has an application, which is then not served.
    """

    def __init__(
        self,
        requests: Requests,
        apps: Callable[[], Mapping[str, AppInfo]],
        questions: CacheQuestions | None,
        group: asyncio.TaskGroup,
        *,
        cluster: str,
        belongs_elsewhere: Callable[[str], Awaitable[bool]],
        admission: Admission | None = None,
    ) -> None:
        self._requests = requests
        self._apps = apps
        self._questions = questions
        self._group = group
        self._queue = f"{QUEUE}-{cluster}"
        self._belongs_elsewhere = belongs_elsewhere
        self._admission = admission or Admission()
        self._listening: dict[str, Serving] = {}
        self._shards: dict[ShardId, Serving] = {}
        self._changed = asyncio.Event()
        self._packed: tuple[bytes | None, _Parts] = (None, [])
        self._ends = False

    def apps_changed(self) -> None:
        """Serve exactly the present applications."""
        self._changed.set()

    def end(self) -> None:
        """The worker ends: no request waits for a shard any longer."""
        self._ends = True

    async def run(self) -> None:
        """Follow `apps` until cancelled. Call it once there is a connection."""
        while True:
            self._changed.clear()
            try:
                silent = await self._follow()
            except TransportError as error:
                _log.warning("requests are not served yet: %s", error)
                silent = True
            try:
                async with asyncio.timeout(LOOK_AGAIN_S if silent else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _follow(self) -> bool:
        """Subscribe for this cluster's applications only. Returns whether one belongs to another cluster.

        For all others the broker answers that no process serves them.
        """
        apps, silent = self._apps(), False
        for app in sorted(self._listening.keys() - apps.keys()):
            await self._listening.pop(app).end()
        for app in sorted(apps.keys() - self._listening.keys()):
            if await self._belongs_elsewhere(app):
                silent = True
                continue
            # With two clusters each would receive a request; within one cluster, one worker does.
            subject = subjects.rpc_subject(app, "*")
            self._listening[app] = await self._requests.serve(subject, self._on_request, queue=self._queue)
        return silent

    async def add_shard(self, key: ShardId, commands: ShardCommands) -> None:
        """Serve requests for a shard that runs here."""

        async def on_passed(message: Message) -> None:
            verb = message.headers.get(subjects.SHARD_VERB, "")
            if verb == PING:
                await self._reply(message.reply, encode_result(b"null"))
                return
            if verb == PRESENCE:
                await self._reply(message.reply, encode_result(msgspec.json.encode(commands.presence())))
                return
            question = (key, message.body) if verb in SHARED_VERBS else None
            await self._spawn(message, key.app, question, lambda: self._act(key.app, commands, verb, message))

        subject = subjects.shard_subject(key.app, key.group, key.shard)
        self._shards[key] = await self._requests.serve(subject, on_passed)

    async def remove_shard(self, key: ShardId) -> None:
        """Stop serving requests for the shard."""
        serving = self._shards.pop(key, None)
        if serving is not None:
            try:
                await serving.end()
            except TransportError as error:
                _log.debug("shard %s: %s", key, error)

    async def _act(self, app: str, commands: ShardCommands, verb: str, message: Message) -> bytes | None:
        """A shard's result. A request that it did not act on is passed on to the shard that continues."""
        try:
            return await commands.handle(verb, message.body)
        except ShardGone:
            passed = _passed(message)
            if self._ends or passed >= PASSED_MAX:
                raise
        await asyncio.sleep(FIND_AGAIN_S)
        return await self._forward(app, verb, replace(message, headers={PASSED: str(passed + 1)}))

    async def presence_of(self, key: ShardId) -> dict[str, Any] | None:
        """The presence that the bot shows on a shard, which may run anywhere; None when it is not known."""
        subject = subjects.shard_subject(key.app, key.group, key.shard)
        try:
            found = await self._requests.request(
                subject, b"", timeout_s=FIND_TIMEOUT_S, headers={subjects.SHARD_VERB: PRESENCE}
            )
            answer = Answer()
            answer.add(found.body, found.headers)
            return msgspec.json.decode(answer.result(), type=dict[str, Any] | None)
        except (TransportError, RpcError, msgspec.MsgspecError) as error:
            _log.info("the presence of shard %s is not known: %s", key, error)
            return None

    async def _on_request(self, message: Message) -> None:
        _, app, _, verb = message.subject.split(".")
        question = (verb, message.body) if verb in SHARED_VERBS else None
        await self._spawn(message, app, question, lambda: self._answer(message))

    async def _spawn(
        self, message: Message, app: str, question: object, work: Callable[[], Awaitable[bytes | None]]
    ) -> None:
        """Start a request, or refuse it before any work."""
        if not may_answer(message.reply):
            return
        ticket = self._admission.take(app, question)
        if ticket is None:
            await self._reply(message.reply, encode_error(_busy(app)))
            return
        task = self._group.create_task(self._serve(message, work))
        task.add_done_callback(lambda _: self._admission.give_back(ticket))

    async def _serve(self, message: Message, work: Callable[[], Awaitable[bytes | None]]) -> None:
        try:
            result = await work()
        except RpcError as error:
            await self._reply(message.reply, encode_error(error))
        except asyncio.CancelledError:
            await self._reply(message.reply, encode_error(ShardGone()))
            raise
        except Exception:
            _log.exception("a request on %s failed", message.subject)
            await self._reply(
                message.reply, encode_error(RpcError(UNAVAILABLE, "an internal error; see the node's log"))
            )
        else:
            if result is not None:
                await self._send(message.reply, self._parts_of(result))

    def _parts_of(self, result: bytes) -> _Parts:
        """The messages of a result. A result that several requests share is packed once."""
        before, packed = self._packed
        if result is not before:
            packed = list(parts(encode_result(result), self._requests.body_bytes_max - PART_RESERVE_BYTES))
            self._packed = (result, packed) if len(result) <= PACKED_BYTES_MAX else (None, [])
        return packed

    async def _reply(self, inbox: str, answer: bytes) -> None:
        await self._send(inbox, parts(answer, self._requests.body_bytes_max - PART_RESERVE_BYTES))

    async def _send(self, inbox: str, messages: Iterable[tuple[bytes, dict[str, str] | None]]) -> None:
        try:
            for payload, headers in messages:
                await self._requests.publish(inbox, payload, headers=headers)
        except TransportError as error:
            _log.warning("an answer was not sent: %s", error)

    async def _answer(self, message: Message) -> bytes | None:
        """The result; None when the shard answers the consumer itself."""
        _, app, _, verb = message.subject.split(".")
        if app not in self._apps():
            # The application was removed at this moment.
            raise RpcError(NOT_FOUND, f"there is no application {app[:40]!r} in this cluster")
        if verb in CACHE_VERBS:
            if self._questions is None:
                raise RpcError(UNAVAILABLE, "this cluster has no Redis")
            return await self._questions.answer(app, verb, message.body)
        if verb not in _SHARD_VERBS:
            raise RpcError(INVALID, f"unknown verb {verb[:40]!r}")
        return await self._forward(app, verb, message)

    async def _forward(self, app: str, verb: str, message: Message) -> bytes | None:
        """Pass a request on to its shard; the result when it is for all of them. Raises RpcError.

        A shard that no node has at this moment is looked for again, in the group that serves then.
        """
        clock, target = asyncio.get_running_loop().time, _read_target(message.body)
        until = clock() + min(target.timeout, FIND_MAX_S)
        while True:
            seen = self._apps().get(app)
            if seen is None:
                # The application was removed at this moment.
                raise RpcError(NOT_FOUND, f"there is no application {app[:40]!r} in this cluster")
            shard = _shard_of(verb, target, seen)
            if shard is None:
                result = await self._to_all(app, seen, verb, message.body)
                if _group_of(self._apps().get(app)) == _group_of(seen):
                    return result
                # Another group serves now.
                continue
            try:
                await self._pass(subjects.shard_subject(app, seen.group, shard), verb, message)
            except _NoOwner:
                if self._ends or clock() >= until:
                    raise
            else:
                return None
            await asyncio.sleep(FIND_AGAIN_S)

    async def _pass(self, subject: str, verb: str, message: Message) -> None:
        headers = {subjects.SHARD_VERB: verb, PASSED: str(_passed(message))}
        if verb == "relay":
            # `relay` is not idempotent: first check that a node runs the shard.
            await self._find(subject)
        await self._requests.publish(subject, message.body, reply=message.reply, headers=headers)
        if verb != "relay":
            await self._find(subject)

    async def _find(self, subject: str) -> None:
        """Check that a worker runs the shard: only a request, not a publish, shows that none does. Raises _NoOwner."""
        try:
            await self._requests.request(subject, b"", timeout_s=FIND_TIMEOUT_S, headers={subjects.SHARD_VERB: PING})
        except NoResponder:
            raise _NoOwner from None
        except NoAnswer:
            # The shard exists and is busy; the consumer waits for its answer.
            pass

    async def _to_all(self, app: str, seen: AppInfo, verb: str, body: bytes) -> bytes:
        """Send the request to every shard; the number of successes, and the reasons of failures.

        The next group's shards get it as well, as far as they are there.
        """
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._fan_out(app, seen.group, seen.count, verb, body))
            if seen.upcoming is not None:
                group.create_task(self._fan_out(app, *seen.upcoming, verb, body))
        failed, refusal = serving.result()
        if refusal is not None:
            raise refusal
        return msgspec.json.encode({"shards": seen.count - len(failed), "failed": failed})

    async def _fan_out(
        self, app: str, of: int, count: int, verb: str, body: bytes
    ) -> tuple[dict[str, str], RpcError | None]:
        """The reasons of failures by shard, and an error that says that the request is not valid."""
        gate = asyncio.Semaphore(FAN_OUT_AT_ONCE)
        failed: dict[str, str] = {}
        invalid: list[RpcError] = []
        # What is for all shards is not passed on by one of them.
        headers = {subjects.SHARD_VERB: verb, PASSED: str(PASSED_MAX)}

        async def one(shard: int) -> None:
            if invalid:
                return
            subject = subjects.shard_subject(app, of, shard)
            try:
                reply = await self._requests.request(subject, body, timeout_s=FAN_OUT_TIMEOUT_S, headers=headers)
                answer = Answer()
                answer.add(reply.body, reply.headers)
                answer.result()
            except NoResponder:
                failed[str(shard)] = NO_OWNER
            except TransportError:
                failed[str(shard)] = "no answer"
            except RpcError as error:
                failed[str(shard)] = error.message
                if error.code == INVALID:
                    invalid.append(error)

        async def in_turn(shard: int) -> None:
            async with gate:
                await one(shard)

        async with asyncio.TaskGroup() as group:
            for shard in range(count):
                group.create_task(in_turn(shard))
        return failed, invalid[0] if invalid else None


def _group_of(seen: AppInfo | None) -> tuple[int, int] | None:
    return None if seen is None else (seen.group, seen.count)


def _passed(message: Message) -> int:
    """How many shards have passed the request on."""
    passed = message.headers.get(PASSED, "")
    return int(passed) if passed.isascii() and passed.isdigit() else 0


def _busy(app: str) -> RpcError:
    return RpcError(LIMITED, f"busy: too many requests of application {app} are under way", 1.0)


def _read_target(body: bytes) -> _Target:
    try:
        return _target(body or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError(INVALID, f"the request is not valid: {error}") from None


def _shard_of(verb: str, target: _Target, seen: AppInfo) -> int | None:
    """The shard that a request is for (Discord: Gateway, Sharding); None for all shards. Raises RpcError."""
    if seen.count < 1:
        raise RpcError(UNAVAILABLE, "the application has no shards at this moment", 5.0)
    if target.guild_id is not None:
        return (int(snowflake(target.guild_id, "guild_id")) >> 22) % seen.count
    if target.shard is not None:
        if not 0 <= target.shard < seen.count:
            raise RpcError(INVALID, f"shard must be 0 to {seen.count - 1}")
        return target.shard
    if verb == "update_presence":
        return None
    if verb == "relay":
        return 0
    raise RpcError(INVALID, "guild_id is required")
