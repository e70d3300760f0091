"""Applies batches to Redis, one at a time per shard. A shell around batch.py, cluster.py and the script."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError

from sandwich_coordinator.client_tls import ClientTls, ClientTlsError
from sandwich_node.cache import cluster
from sandwich_node.cache.batch import (
    CALL_BYTES_MAX,
    CALL_EVENTS_MAX,
    FOLLOW_UP,
    INLINE,
    Batch,
    Call,
    EventOps,
    afresh,
    calls,
    follow_up,
    names_of,
    pack,
)
from sandwich_node.cache.breaker import Breaker
from sandwich_node.cache.context import Op
from sandwich_node.cache.errors import CacheError, CacheUnavailable, NotRedis
from sandwich_node.cache.locations import Destination, is_guild, moves
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_errors import classify
from sandwich_node.cache.replies import Applied, Left, read_reply
from sandwich_node.cache.script import APPLY, FENCE_OUT, RELOCATE, Script
from sandwich_node.cache.script_calls import ScriptCalls, packing_in_c
from sandwich_node.cache.settings import CacheWriter
from sandwich_sdk.cancellation import honouring_cancel
from sandwich_sdk.wire.cache_keys import guild_prefix, mutual_key, user_key

BATCH_DEADLINE_S = 10.0
CONNECTIONS_MAX = 32
SIDE_BY_SIDE = 16
MOVES_MAX = 3
VERSION_MIN = (6, 2)
FOLLOW_UPS_MAX = 10_000
PIECE = 128
"""How many guilds one call locates at other shards, or how many records it fences: it takes some milliseconds."""

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


@dataclass(slots=True)
class CacheCounters:
    """Totals since the process started."""

    batches: int = 0
    events: int = 0
    calls: int = 0
    replayed: int = 0
    refused: int = 0
    damaged: int = 0
    failed: int = 0
    errors: int = 0


class RedisCache:
    """Writes to one Redis, or one Redis Cluster. `clock` is monotonic, in seconds.

    After a CacheError the caller decides. It may apply the same batch again, even from another process: events that
    were already applied are not applied twice. Or it drops the batch, and the cache is behind until a GUILD_CREATE.
    """

    def __init__(self, options: RedisOptions, *, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self._client: redis.Redis | None = None
        self._cluster: RedisCluster | None = None
        self._scripts: ScriptCalls | None = None
        self._connecting = asyncio.Lock()
        self._breaker = Breaker()
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._finishing: set[asyncio.Task[None]] = set()
        self.counters = CacheCounters()
        self.waiting = ""

    @property
    def is_cluster(self) -> bool:
        """Whether the connected server is a Redis Cluster."""
        return self._cluster is not None

    async def close(self) -> None:
        """Close all connections."""
        for task in self._finishing:
            task.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)
        if self._scripts is not None:
            await self._scripts.close()
            self._scripts = None
        for client in (self._client, self._cluster):
            if client is not None:
                await client.aclose()
        self._client = self._cluster = None

    async def check(self) -> None:
        """Connect and check that the server is usable. Raises CacheError."""
        await self._guarded(self._ping())

    async def _ping(self) -> None:
        await self._connected()
        client = self._cluster or self._client
        assert client is not None
        await client.ping()

    async def infos(self) -> dict[str, Mapping[str, Any]]:
        """INFO by server, "" for a single one; {} without permission. Raises CacheError."""
        return await self._guarded(self._infos())

    async def _infos(self) -> dict[str, Mapping[str, Any]]:
        await self._connected()
        try:
            if self._cluster is not None:
                found = await self._cluster.info(target_nodes=RedisCluster.PRIMARIES)
                # With a single primary redis-py returns its INFO without the name.
                return dict(found) if all(isinstance(info, dict) for info in found.values()) else {"": found}
            assert self._client is not None
            return {"": await self._client.info()}
        except NoPermissionError:
            return {}

    async def apply(self, batch: Batch) -> Applied:
        """Apply a batch and return the values that its events replaced. Raises CacheError."""
        applied = await self._guarded(self._apply(batch))
        self._count(batch, applied)
        return applied

    def _count(self, batch: Batch, applied: Applied) -> None:
        counters = self.counters
        counters.batches += 1
        counters.replayed += applied.replayed
        counters.damaged += applied.damaged
        counters.failed += applied.failed
        if applied.newer:
            counters.refused += len(batch.events)
        else:
            counters.events += len(batch.events)

    def begin(self, batch: Batch, size: int, then: Callable[[Applied | CacheError], None]) -> bool:
        """As `apply`, without a task that waits: `then` is called with the result. `size`: about how many bytes it has.

        False, and nothing is done, when the batch is not for one call on a single server that answers.
        """
        scripts = self._scripts if self._cluster is None else None
        if scripts is None or len(batch.events) > CALL_EVENTS_MAX or size > CALL_BYTES_MAX:
            return False
        if not self._breaker.allows(self._clock()):
            return False
        (call,) = calls(batch)
        self.counters.calls += 1
        scripts.submit(APPLY, call.keys, call.args, size, partial(self._answered, batch, then))
        return True

    def _answered(self, batch: Batch, then: Callable[[Applied | CacheError], None], reply: Any) -> None:
        if isinstance(reply, BaseException):
            then(self._failed(reply))
            return
        applied, left = Applied(), Left()
        try:
            stood = read_reply(reply, applied, left)
        except Exception as error:
            # Other shards' parts of the same call have their answers still to come.
            then(self._failed(error))
            return
        if not applied.newer:
            self._count_replays(batch, applied, stood)
            if left.is_unfinished:
                task = asyncio.create_task(self._finish(batch, applied, left, then))
                self._finishing.add(task)
                task.add_done_callback(self._finishing.discard)
                return
        self._succeeded()
        self._count(batch, applied)
        then(applied)

    async def _finish(
        self, batch: Batch, applied: Applied, left: Left, then: Callable[[Applied | CacheError], None]
    ) -> None:
        try:
            await self._guarded(self._drain(batch, applied, left))
        except CacheError as error:
            then(error)
        else:
            self._count(batch, applied)
            then(applied)

    async def read_sets(self, keys: Sequence[str]) -> list[frozenset[str]]:
        """The sets of text under these keys; a key of another type counts as empty. Raises CacheError."""
        return await self._guarded(self._read_sets(keys))

    async def _read_sets(self, keys: Sequence[str]) -> list[frozenset[str]]:
        await self._connected()
        client = self._cluster or self._client
        assert client is not None
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.smembers(key)
        replies = await pipeline.execute(raise_on_error=False)
        return [
            frozenset(item.decode(errors="replace") for item in reply) if isinstance(reply, set | list) else frozenset()
            for reply in replies
        ]

    async def apply_afresh(self, writer: CacheWriter, events: tuple[EventOps, ...]) -> Applied:
        """Apply events outside a session, without a check of their sequences. Raises CacheError."""
        return await self._guarded(self._apply_afresh(Batch(writer=writer, session="", confirmed=0, events=events)))

    async def _apply_afresh(self, batch: Batch) -> Applied:
        await self._connected()
        applied, left = Applied(), Left()
        if self._cluster is not None:
            await self._apply_segment(batch, applied, flags=FOLLOW_UP)
            return applied
        for call in afresh(batch):
            read_reply(await self._run(call), applied, left)
        await self._drain(batch, applied, left)
        return applied

    async def command(self, *words: str | bytes) -> Any:
        """One command on keys of one slot. Raises CacheError."""
        return await self._guarded(self._command(*words))

    async def _command(self, *words: str | bytes) -> Any:
        await self._connected()
        client = self._cluster or self._client
        assert client is not None
        return await client.execute_command(*words)

    async def take_turn(self, namespace: str, app: str, guild: str, every_s: float) -> float:
        """Request a turn to fetch all members of a guild: 0.0 when it is granted, otherwise the seconds to wait.

        Raises CacheError.
        """
        key = f"{guild_prefix(namespace, guild)}asked:{app}"
        if await self.command("SET", key, "1", "PX", str(int(every_s * 1000)), "NX"):
            return 0.0
        return max(int(await self.command("PTTL", key)), 1) / 1000

    async def keep(self, writer: CacheWriter, letters: str) -> str | None:
        """Record the letters that the shard keeps from now on; returns those before, or None. Raises CacheError."""
        before = await self.command("GETSET", names_of(writer).kept, letters)
        return before.decode(errors="replace") if isinstance(before, bytes) else before

    async def forget(self, writer: CacheWriter, letters: str) -> None:
        """Remove entities that the application does not keep any more from the shard's guilds. Raises CacheError."""
        guilds = await self.read_sets([names_of(writer).index])
        for guild in sorted(guilds[0]):
            await self.apply_afresh(writer, (EventOps(0, (("forget", guild, letters),), 0),))

    async def release(self, writer: CacheWriter) -> Applied:
        """Remove all guilds that are still located at this shard: its group is deleted. Raises CacheError."""
        batch = Batch(writer=writer, session="", confirmed=0, events=())
        return await self._guarded(self._release(batch))

    # --- the switch to another group ------------------------------------------------------------------------------

    async def begin_session(self, writer: CacheWriter, session: str, seq: int) -> None:
        """Record that the shard has applied this session up to `seq`, if it has not recorded more. Raises CacheError.

        On a Redis Cluster each guild's record begins with the guild's first event.
        """
        events = (EventOps(seq, (), 0),)
        await self._guarded(self._apply(Batch(writer=writer, session=session, confirmed=seq, events=events)))

    async def fence_out(self, writers: Sequence[CacheWriter], guilds: Iterable[tuple[CacheWriter, str]] = ()) -> bool:
        """Refuse the owners of these shards whose fence is below the writer's, from now on.

        On a Redis Cluster each guild has its own record: those of `guilds` are fenced, and of the guilds located at the
        shards. Returns whether the shards have records; on a Redis Cluster they may have expired, and the result is
        true. Raises CacheError.
        """
        are_known = True
        for some in _pieces(writers):
            records = [(names_of(writer).record()[0], writer.fence) for writer in some]
            are_known = all(await self._guarded(self._raise_fences(records))) and are_known
            if self.is_cluster:
                located = await self.read_sets([names_of(writer).index for writer in some])
                theirs = [
                    (writer, guild)
                    for writer, held in zip(some, located, strict=True)
                    for guild in held
                    if is_guild(guild)
                ]
                await self._fence_out_guilds(theirs)
                users = [(names_of(each).user_record(each.bot)[0], each.fence) for each in some if each.bot]
                if users:
                    await self._guarded(self._raise_fences(users))
        if self.is_cluster:
            await self._fence_out_guilds(list(guilds))
        return are_known or self.is_cluster

    async def _fence_out_guilds(self, guilds: Sequence[tuple[CacheWriter, str]]) -> None:
        for some in _pieces(guilds):
            records = [(names_of(writer).guild_record(guild)[0], writer.fence) for writer, guild in some]
            await self._guarded(self._side_by_side(self._raise_fences([record]) for record in records))

    async def move_guilds(
        self, writer: CacheWriter, group: int, moves: Sequence[tuple[str, int]], *, to: int, only_unbegun: bool = False
    ) -> int:
        """Locate guilds at shards of group `to` that are located at `group`; returns how many. Raises CacheError.

        `writer`: any of the application. `only_unbegun`: leave out shards that have applied a READY. One call of the
        script moves `PIECE` guilds at most.
        """
        names, moved = names_of(writer), 0
        prefix = names.record()[0].removesuffix(writer.location)
        for some in _pieces(moves):
            pairs = [word for guild, shard in some for word in (guild, str(shard))]
            args = (str(group), str(to), prefix, str(int(only_unbegun)), *pairs)
            moved += int(await self._guarded(self._run_script(RELOCATE, (names.locations,), args)))
        return moved

    async def relocate(self, writer: CacheWriter, group: int, to: Destination, *, only_unbegun: bool = False) -> int:
        """Locate all guilds at `to` that are located at `group`; returns how many. See `move_guilds`.

        One pass over the application's locations in bounded steps. It may be repeated, also at the same time. Raises
        CacheError.
        """
        moved, cursor, key = 0, 0, names_of(writer).locations
        while True:
            cursor, page = await self.command("HSCAN", key, str(cursor), "COUNT", str(PIECE))
            found = moves(page, group, to)
            moved += await self.move_guilds(writer, group, found, to=to.group, only_unbegun=only_unbegun)
            if not cursor:
                return moved

    async def _raise_fences(self, fences: Sequence[tuple[str, int]]) -> list[int]:
        keys = [record for record, _ in fences]
        return list(await self._run_script(FENCE_OUT, keys, [str(fence) for _, fence in fences]))

    # --- all keys on one server ---------------------------------------------------------------------------------

    async def _apply(self, batch: Batch) -> Applied:
        await self._connected()
        if self._cluster is not None:
            return await self._apply_to_cluster(batch)
        applied, left = Applied(), Left()
        stood = -1
        for number, call in enumerate(calls(batch)):
            at = read_reply(await self._run(call), applied, left)
            if applied.newer:
                return applied
            if number == 0:
                stood = at
        self._count_replays(batch, applied, stood)
        await self._drain(batch, applied, left)
        return applied

    def _count_replays(self, batch: Batch, applied: Applied, stood: int) -> None:
        applied.is_first = stood < 0
        applied.stood = stood
        applied.replayed = sum(event.seq <= stood for event in batch.events)

    async def _drain(self, batch: Batch, applied: Applied, left: Left) -> None:
        """Finish the removal of a large guild in steps, so that other clients are served in between."""
        keys = names_of(batch.writer).record()
        for _ in range(FOLLOW_UPS_MAX):
            ops = cluster.guild_ops(left)
            if not ops or applied.newer:
                return
            left = Left()
            for call in follow_up(batch, keys, ops, flags=INLINE):
                read_reply(await self._run(call), applied, left)

    async def _release(self, batch: Batch) -> Applied:
        await self._connected()
        applied, left = Applied(), Left()
        flags = "" if self.is_cluster else INLINE
        for call in follow_up(batch, names_of(batch.writer).record(), [(0, ("ready", ""))], flags=flags):
            read_reply(await self._run(call), applied, left)
        if self.is_cluster:
            await self._follow_up(batch, applied, left)
        else:
            await self._drain(batch, applied, left)
        return applied

    async def _run(self, call: Call) -> Any:
        self.counters.calls += 1
        return await self._run_script(APPLY, call.keys, call.args)

    async def _run_script(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        await self._connected()
        assert self._scripts is not None
        return await self._scripts.run(script, keys, args)

    # --- a cluster ----------------------------------------------------------------------------------------------

    async def _apply_to_cluster(self, batch: Batch) -> Applied:
        applied = Applied()
        for segment in cluster.segments(batch):
            await self._apply_segment(segment, applied)
            if applied.newer:
                break
        return applied

    async def _apply_segment(self, batch: Batch, applied: Applied, *, flags: str = "") -> None:
        assert self._cluster is not None
        namespace = batch.writer.namespace
        users = sorted(cluster.users_to_know(batch))
        pipeline = self._cluster.pipeline()
        for user in users:
            pipeline.get(user_key(namespace, user))
        values = await pipeline.execute()
        routed = cluster.route(
            batch, {user: value for user, value in zip(users, values, strict=True) if value}, flags=flags
        )
        left = Left()
        replayed: set[int] = set()

        async def in_order(group: list[Call]) -> None:
            stood = None
            for call in group:
                at = read_reply(await self._run(call), applied, left)
                if applied.newer:
                    return
                stood = at if stood is None else stood
            replayed.update(event.seq for event in batch.events if stood is not None and event.seq <= stood)

        await self._side_by_side(in_order(group) for group in routed.groups)
        if not applied.newer:
            applied.replayed += len(replayed)
            await self._write_users(batch, cluster.user_ops(routed, left), applied)
            left.evicted = []
            await self._follow_up(batch, applied, left)

    async def _follow_up(self, batch: Batch, applied: Applied, left: Left) -> None:
        """Do the follow-up work of guild operations until none is left."""
        names = names_of(batch.writer)
        for _ in range(FOLLOW_UPS_MAX):
            await self._write_users(batch, cluster.drops(left), applied)
            ops = cluster.guild_ops(left)
            if not ops or applied.newer:
                return
            left = Left()
            for seq, op in ops:
                for call in follow_up(batch, names.guild_record(str(op[1])), [(seq, op)], flags=""):
                    read_reply(await self._run(call), applied, left)

    async def _write_users(self, batch: Batch, ops: Iterable[tuple[int, Op]], applied: Applied) -> None:
        """Write users. Only the bot's own user has a record; other user operations are repeatable."""
        assert self._cluster is not None
        names, namespace = names_of(batch.writer), batch.writer.namespace
        for run in cluster.runs(ops):
            if run[0][1][0] == "user":
                pipeline = self._cluster.pipeline()
                for _, (_, user, value, guild) in run:
                    if value:
                        pipeline.set(user_key(namespace, str(user)), value)
                    if guild:
                        pipeline.sadd(mutual_key(namespace, str(user)), guild)
                await pipeline.execute()
                continue
            seq, op = run[0]
            keys = names.user_record(str(op[1]))
            if op[0] == "user_set":
                made = pack(batch, keys, [EventOps(seq, (op,), 0)], flags="")
            else:
                made = follow_up(batch, keys, run, flags=INLINE)
            for call in made:
                read_reply(await self._run(call), applied, Left())

    @staticmethod
    async def _side_by_side(work: Iterable[Awaitable[Any]]) -> list[Any]:
        """Await all, with bounded concurrency; the first failure cancels the others."""
        gate = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(item: Awaitable[Any]) -> Any:
            async with gate:
                return await item

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in work]
        return [task.result() for task in tasks]

    # --- connection ---------------------------------------------------------------------------------------------

    async def _guarded(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run `work` within the deadline, or raise at once while the breaker is open. Every error is a CacheError."""
        if not self._breaker.allows(self._clock()):
            work.close()
            raise CacheUnavailable(self.waiting or "Redis did not answer just now")
        try:
            with honouring_cancel():
                async with asyncio.timeout(BATCH_DEADLINE_S), self._turns:
                    result = await work
        except Exception as error:
            raise self._failed(error) from None
        finally:
            # It has not begun if its turn never came.
            work.close()
        self._succeeded()
        return result

    def _failed(self, error: BaseException) -> CacheError:
        failure = classify(_first(error))
        self.counters.errors += 1
        self.waiting = str(failure)
        if isinstance(failure, CacheUnavailable):
            self._breaker.failed(self._clock())
        return failure

    def _succeeded(self) -> None:
        self._breaker.succeeded()
        self.waiting = ""

    async def _connected(self) -> None:
        if self._client is not None or self._cluster is not None:
            return
        async with self._connecting:
            if self._client is None and self._cluster is None:
                await self._connect()

    async def _connect(self) -> None:
        options = self._options
        settings: dict[str, Any] = {
            "password": options.password,
            "socket_timeout": options.timeout_s,
            "socket_connect_timeout": options.timeout_s,
            # Within one turn, the calls of a cluster run concurrently.
            "max_connections": CONNECTIONS_MAX * SIDE_BY_SIDE,
            "protocol": 2,
        }
        if urlsplit(options.url).scheme == "rediss":
            settings |= {
                "ssl_ca_certs": options.ca,
                "ssl_certfile": options.cert,
                "ssl_keyfile": options.key,
                "ssl_cert_reqs": "required",
                "ssl_check_hostname": True,
            }
        # redis-py's own retries would hang for a minute on a frozen server.
        single = redis.Redis.from_url(options.url, retry=Retry(NoBackoff(), 0), **settings)
        kind = single.connection_pool.connection_class
        if kind is redis.SSLConnection:
            files = (Path(name) if name else None for name in (options.ca, options.cert, options.key))
            try:
                kind = following(ClientTls("Redis", *files))
            except ClientTlsError as error:
                raise CacheUnavailable(f"Redis cannot be reached from here: {error}") from None
        single.connection_pool.connection_class = packing_in_c(kind)
        try:
            if not await _is_cluster(single):
                self._client, self._scripts = single, ScriptCalls(single, options.timeout_s)
                return
        finally:
            if self._client is not single:
                await single.aclose()
        found = RedisCluster.from_url(options.url, retry=Retry(NoBackoff(), MOVES_MAX), **settings)
        await found.initialize()
        self._cluster, self._scripts = found, ScriptCalls(found, options.timeout_s)


def following(files: ClientTls) -> type[redis.SSLConnection]:
    """Connections that use renewed files from the next connect on. redis-py's own keep what the first ones had."""

    class Following(redis.SSLConnection):
        def _connection_arguments(self) -> Mapping[str, Any]:
            self.ssl_context.context = files.current()
            arguments: Mapping[str, Any] = super()._connection_arguments()
            return arguments

    return Following


async def _is_cluster(client: redis.Redis) -> bool:
    """Whether the server is a Redis Cluster. Raises NotRedis if it is too old."""
    try:
        info = await client.info()
    except NoPermissionError:
        # Without permission for INFO, assume a single server of a supported version.
        return False
    version = str(info.get("redis_version", ""))
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        raise NotRedis("the server does not report a Redis version") from None
    if (major, minor) < VERSION_MIN:
        raise NotRedis(f"Redis {version} is too old: 6.2 or later is needed")
    return bool(info.get("cluster_enabled"))


def _pieces(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), PIECE):
        yield items[start : start + PIECE]


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
