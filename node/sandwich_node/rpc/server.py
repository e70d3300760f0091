"""Receives consumers' requests: answers those about the cache, and forwards those for a shard.

All workers of a cluster share one queue group for each of the cluster's applications, so that any of them answers. They
do not subscribe for other applications, which may belong to another cluster on the same NATS. Requests for a shard are
forwarded to the shard's subject, to which only its worker subscribes; the shard answers the consumer directly.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_node.ipc import AppInfo
from sandwich_node.rpc.admission import Admission
from sandwich_node.rpc.questions import VERBS as CACHE_VERBS
from sandwich_node.rpc.questions import CacheQuestions
from sandwich_node.rpc.requests import OPS, may_answer, snowflake
from sandwich_node.rpc.shard import ShardCommands, gone
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
"""The verb that a shard answers at once."""
FIND_TIMEOUT_S = 1.0
FIND_AGAIN_S = 0.2
NO_OWNER = "no node runs this shard at this moment"
FAN_OUT_AT_ONCE = 64
FAN_OUT_TIMEOUT_S = 3.0
PART_RESERVE_BYTES = 4096

_SHARD_VERBS = frozenset(OPS) | {"relay"}
SHARED_VERBS = frozenset({"request_members"})
"""Verbs whose equal requests share one answer."""

_Parts = list[tuple[bytes, dict[str, str] | None]]


class _Target(msgspec.Struct):
    guild_id: str | None = None
    shard: int | None = None


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

    def apps_changed(self) -> None:
        """Serve exactly the present applications."""
        self._changed.set()

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
        for app in self._listening.keys() - apps.keys():
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
            question = (key, message.body) if verb in SHARED_VERBS else None
            await self._spawn(message, key.app, question, lambda: commands.handle(verb, message.body))

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
            await self._reply(message.reply, encode_error(gone()))
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
        seen = self._apps().get(app)
        if seen is None:
            # The application was removed at this moment.
            raise RpcError(NOT_FOUND, f"there is no application {app[:40]!r} in this cluster")
        if verb in CACHE_VERBS:
            if self._questions is None:
                raise RpcError(UNAVAILABLE, "this cluster has no Redis")
            return await self._questions.answer(app, verb, message.body)
        if verb not in _SHARD_VERBS:
            raise RpcError(INVALID, f"unknown verb {verb[:40]!r}")
        shard = _shard_of(verb, message.body, seen)
        if shard is None:
            return await self._to_all(app, seen, verb, message.body)
        subject = subjects.shard_subject(app, seen.group, shard)
        if verb == "relay":
            # `relay` is not idempotent: first check that a node runs the shard.
            await self._find(subject)
        await self._requests.publish(subject, message.body, reply=message.reply, headers={subjects.SHARD_VERB: verb})
        if verb != "relay":
            await self._find(subject)
        return None

    async def _find(self, subject: str) -> None:
        """Check that a worker runs the shard: only a request, not a publish, shows that none does. Raises RpcError."""
        try:
            await self._requests.request(subject, b"", timeout_s=FIND_TIMEOUT_S, headers={subjects.SHARD_VERB: PING})
        except NoResponder:
            raise RpcError(UNAVAILABLE, NO_OWNER, FIND_AGAIN_S) from None
        except NoAnswer:
            # The shard exists and is busy; the consumer waits for its answer.
            pass

    async def _to_all(self, app: str, seen: AppInfo, verb: str, body: bytes) -> bytes:
        """Send the request to every shard; the number of successes, and the reasons of failures."""
        gate = asyncio.Semaphore(FAN_OUT_AT_ONCE)
        failed: dict[str, str] = {}

        async def one(shard: int) -> None:
            try:
                async with gate:
                    reply = await self._requests.request(
                        subjects.shard_subject(app, seen.group, shard),
                        body,
                        timeout_s=FAN_OUT_TIMEOUT_S,
                        headers={subjects.SHARD_VERB: verb},
                    )
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
                    raise

        try:
            async with asyncio.TaskGroup() as group:
                for shard in range(seen.count):
                    group.create_task(one(shard))
        except* RpcError as errors:
            raise errors.exceptions[0] from None
        return msgspec.json.encode({"shards": seen.count - len(failed), "failed": failed})


def _busy(app: str) -> RpcError:
    return RpcError(LIMITED, f"busy: too many requests of application {app} are under way", 1.0)


def _shard_of(verb: str, body: bytes, seen: AppInfo) -> int | None:
    """The shard that a request is for (Discord: Gateway, Sharding); None for all shards. Raises RpcError."""
    try:
        target = _target(body or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError(INVALID, f"the request is not valid: {error}") from None
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
