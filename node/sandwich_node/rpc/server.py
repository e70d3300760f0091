"""Takes consumers' requests from NATS: answers what the cache knows, passes on what a shard has to do.

Every worker takes part in one queue group, so that any of them answers. A shard's own requests go to a subject of that
shard, which only the worker that runs it listens on; the shard then answers the consumer directly.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sandwich_node.ipc import AppSeen, ShardKey
from sandwich_node.rpc.questions import VERBS as CACHE_VERBS
from sandwich_node.rpc.questions import CacheQuestions
from sandwich_node.rpc.requests import OPS, may_answer, snowflake
from sandwich_node.rpc.shard import ShardCommands, gone
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
AT_ONCE_MAX = 1000
FAN_OUT_AT_ONCE = 64
FAN_OUT_TIMEOUT_S = 3.0
PART_RESERVE_BYTES = 4096

_SHARD_VERBS = frozenset(OPS) | {"relay"}


class _Target(msgspec.Struct):
    guild_id: str | None = None
    shard: int | None = None


_target = msgspec.json.Decoder(_Target).decode


class RpcServer:
    """One worker's part. `apps` are the cluster's applications as seen now; `questions` None: there is no Redis."""

    def __init__(
        self,
        client: Client,
        apps: Callable[[], Mapping[str, AppSeen]],
        questions: CacheQuestions | None,
        group: asyncio.TaskGroup,
    ) -> None:
        self._client = client
        self._apps = apps
        self._questions = questions
        self._group = group
        self._running: set[asyncio.Task[None]] = set()
        self._shards: dict[ShardKey, Subscription] = {}

    async def start(self) -> None:
        """Listen from now on. Raises nats-py's errors."""
        await self._client.subscribe(subjects.RPC_SUBJECTS, queue=QUEUE, cb=self._on_request)

    async def add_shard(self, key: ShardKey, commands: ShardCommands) -> None:
        """The shard runs here and takes requests."""

        async def on_passed(message: Msg) -> None:
            verb = (message.headers or {}).get(subjects.SHARD_VERB, "")
            self._spawn(message, lambda: commands.handle(verb, message.data))

        subject = subjects.shard_subject(key.app, key.group, key.shard)
        self._shards[key] = await self._client.subscribe(subject, cb=on_passed)

    async def remove_shard(self, key: ShardKey) -> None:
        """The shard takes no more requests."""
        subscription = self._shards.pop(key, None)
        if subscription is not None and not self._client.is_closed:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as error:
                _log.debug("shard %s: %s", key, type(error).__name__)

    async def _on_request(self, message: Msg) -> None:
        self._spawn(message, lambda: self._answer(message))

    def _spawn(self, message: Msg, work: Callable[[], Awaitable[bytes | None]]) -> None:
        task = self._group.create_task(self._serve(message, work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, message: Msg, work: Callable[[], Awaitable[bytes | None]]) -> None:
        if not may_answer(message.reply):
            return
        try:
            if len(self._running) > AT_ONCE_MAX:
                raise RpcError(LIMITED, "too many requests at once", 1.0)
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
                await self._reply(message.reply, encode_result(result))

    async def _reply(self, inbox: str, answer: bytes) -> None:
        try:
            for payload, headers in parts(answer, self._client.max_payload - PART_RESERVE_BYTES):
                await self._client.publish(inbox, payload, headers=headers)
        except (nats.errors.Error, OSError) as error:
            _log.warning("an answer was not sent: %s", type(error).__name__)

    async def _answer(self, message: Msg) -> bytes | None:
        """The result; None when the shard answers itself."""
        _, app, _, verb = message.subject.split(".")
        seen = self._apps().get(app)
        if seen is None:
            raise RpcError(NOT_FOUND, f"there is no application {app[:40]!r} in this cluster")
        if verb in CACHE_VERBS:
            if self._questions is None:
                raise RpcError(UNAVAILABLE, "this cluster has no Redis")
            return await self._questions.answer(app, verb, message.data)
        if verb not in _SHARD_VERBS:
            raise RpcError(INVALID, f"unknown verb {verb[:40]!r}")
        shard = _shard_of(verb, message.data, seen)
        if shard is None:
            return await self._to_all(app, seen, verb, message.data)
        await self._client.publish(
            subjects.shard_subject(app, seen.group, shard),
            message.data,
            reply=message.reply,
            headers={subjects.SHARD_VERB: verb},
        )
        return None

    async def _to_all(self, app: str, seen: AppSeen, verb: str, body: bytes) -> bytes:
        """Ask every shard; which did it, and why the others did not."""
        gate = asyncio.Semaphore(FAN_OUT_AT_ONCE)
        failed: dict[str, str] = {}

        async def one(shard: int) -> None:
            try:
                async with gate:
                    told = await self._client.request(
                        subjects.shard_subject(app, seen.group, shard),
                        body,
                        timeout=FAN_OUT_TIMEOUT_S,
                        headers={subjects.SHARD_VERB: verb},
                    )
                answer = Answer()
                answer.add(told.data, told.headers)
                answer.result()
            except nats.errors.NoRespondersError:
                failed[str(shard)] = "nobody has this shard at this moment"
            except (nats.errors.Error, OSError, TimeoutError):
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


def _shard_of(verb: str, body: bytes, seen: AppSeen) -> int | None:
    """Which shard has to do it (Discord: Gateway, Sharding); None for all of them. Raises RpcError."""
    try:
        target = _target(body or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError(INVALID, f"the request is not right: {error}") from None
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
