"""Commands of one shard: sent within its machine's limits, answered by Discord's dispatches.

Equal member requests share one answer. A guild's whole list is requested once in 30 s over the cluster (Discord:
Request Guild Members). Redis stores the last request; while Redis does not answer, only this node's memory does.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec

from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.publishing.own_events import OwnEvent
from sandwich_node.rpc import requests as rq
from sandwich_node.rpc.answers import Answer, GuildAnswer, MembersAnswer, VoiceAnswer
from sandwich_sdk.wire.rpc import LIMITED, REFUSED, TIMEOUT, UNAVAILABLE, RpcError

WHOLE_LIST_EVERY_S = 30.0
WAITING_MAX = 256
RESULT_BYTES_MAX = 64 * 1024 * 1024
REMEMBERED_MAX = 4096
RELEASE_WAIT_S = 10.0
"""How long a request waits for the shard of a group that is about to serve."""


class ShardGone(RpcError):
    """The shard does not act on the request: it ends here. Its next owner, or the next group's shard, can."""

    def __init__(self) -> None:
        super().__init__(UNAVAILABLE, "the shard moves to another node at this moment", 1.0)


class Leaving(ValueError):
    """The shard takes no commands any more: it ends here."""


_MEMBERS_SILENCE = "the bot is not in that guild, or the guild is in an outage"


@dataclass(slots=True)
class _Shared:
    """One request in progress, and the number of waiters for its answer."""

    task: asyncio.Task[MembersAnswer]
    waiters: int = 0


class ShardCommands:
    """Owned by the shard's runner. `send` queues a gateway command, raising ValueError with the reason when it is not
    taken (`Leaving`: by this shard); `relay` puts an event into the stream and returns its id. `presence`: the one that
    the bot shows on this shard; None for Discord's default.
    """

    def __init__(
        self,
        *,
        app: str,
        namespace: str,
        intents: int,
        bot: Callable[[], str],
        send: Callable[[int, dict[str, Any]], None],
        relay: Callable[[OwnEvent], Coroutine[None, None, str]],
        presence: Callable[[], dict[str, Any] | None],
        cache: RedisCache | None,
        rng: random.Random,
        clock: Callable[[], float],
    ) -> None:
        self.presence = presence
        self._app = app
        self._namespace = namespace
        self._intents = intents
        self._bot = bot
        self._send = send
        self._relay = relay
        self._cache = cache
        self._clock = clock
        self._numbers = itertools.count(1)
        self._prefix = f"{rng.getrandbits(40):x}"
        self._cache_prefix = f"c{self._prefix}"
        self._waiting: dict[int, tuple[Answer, asyncio.Event]] = {}
        self._shared: dict[bytes, _Shared] = {}
        self._asked_at: dict[str, float] = {}
        self._new_session = asyncio.Event()
        self._closed = asyncio.Event()
        self._released = asyncio.Event()
        self._released.set()

    def withhold(self) -> None:
        """The shard is not serving yet: until `release`, requests other than for the presence wait."""
        self._released.clear()

    def release(self) -> None:
        """The shard serves from now on."""
        self._released.set()

    @property
    def is_waiting(self) -> bool:
        """Whether a command waits for a dispatch."""
        return bool(self._waiting)

    def observe(self, event_type: str, data: bytes) -> None:
        """Read a dispatch of a type in `answers.ANSWERS`."""
        for answer, done in list(self._waiting.values()):
            try:
                if answer.take(event_type, data):
                    done.set()
            except (msgspec.MsgspecError, ValueError, RecursionError):
                continue

    def session_began(self) -> None:
        """A new session began: requests in the old one will not be answered."""
        self._new_session.set()
        self._new_session = asyncio.Event()

    async def handle(self, verb: str, body: bytes) -> bytes:
        """Execute one request; the result's JSON. Raises RpcError."""
        if verb != "update_presence" and not self._released.is_set():
            await self._until_released()
        match verb:
            case "request_members":
                return await self._members(rq.read(body, rq.MembersAsk))
            case "update_presence":
                ask = rq.read(body, rq.PresenceAsk)
                self._command(verb, rq.presence(ask))
                return b"null"
            case "update_voice_state":
                return await self._voice(rq.read(body, rq.VoiceAsk))
            case "request_sounds":
                sounds = rq.read(body, rq.SoundsAsk)
                data = rq.sounds(sounds)
                return await self._of_guild(verb, data, sounds.guild_id, "SOUNDBOARD_SOUNDS", sounds.timeout)
            case "request_channel_info":
                info = rq.read(body, rq.ChannelInfoAsk)
                return await self._of_guild(verb, rq.channel_info(info), info.guild_id, "CHANNEL_INFO", info.timeout)
            case "relay":
                relayed = rq.read(body, rq.RelayAsk)
                return msgspec.json.encode({"id": await self._relay(rq.relay(relayed))})
        raise RpcError(REFUSED, f"a shard does not know {verb}")

    async def _until_released(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_WAIT_S):
                await _until_any(self._released, self._closed)
        except TimeoutError:
            pass
        if not self._released.is_set():
            raise ShardGone

    def _command(self, verb: str, data: dict[str, Any]) -> None:
        try:
            self._send(rq.OPS[verb], data)
        except Leaving:
            raise ShardGone from None
        except ValueError as error:
            raise RpcError(REFUSED, str(error)) from None

    async def _voice(self, ask: rq.VoiceAsk) -> bytes:
        answer = VoiceAnswer(ask.guild_id, self._bot(), ask.channel_id)
        silence = "the channel is full or gone, or the bot may not connect there"
        await self._ask("update_voice_state", rq.voice(ask, self._intents), answer, ask.timeout, silence)
        return answer.result()

    async def _of_guild(self, verb: str, data: dict[str, Any], guild: str, answer_type: str, timeout_s: float) -> bytes:
        answer = GuildAnswer(guild, answer_type)
        await self._ask(verb, data, answer, timeout_s, "the bot is not in that guild, or the guild is in an outage")
        return answer.result()

    async def _ask(self, verb: str, data: dict[str, Any], answer: Answer, timeout_s: float, silence: str) -> None:
        """Send a command and wait for its answer. Raises RpcError; `silence`: the likely cause of no answer."""
        if len(self._waiting) >= WAITING_MAX:
            raise RpcError(LIMITED, f"{WAITING_MAX} requests wait on this shard already", 1.0)
        number, done = next(self._numbers), asyncio.Event()
        self._waiting[number] = answer, done
        try:
            self._command(verb, data)
            async with asyncio.timeout(timeout_s):
                await _until_any(done, self._closed)
            if not done.is_set():
                raise ShardGone
        except TimeoutError:
            raise RpcError(TIMEOUT, f"Discord did not answer within {timeout_s:g} s: {silence}") from None
        finally:
            del self._waiting[number]

    # --- members ------------------------------------------------------------------------------------------------

    async def chunk(self, guild: str, timeout_s: float) -> None:
        """Request all members of a guild for the cache. Raises RpcError: `limited` when 30 s have not passed."""
        if wait_s := await self._turn_in(guild):
            raise RpcError(LIMITED, "this guild's list was asked for less than 30 s ago", wait_s)
        await self._members(rq.MembersAsk(guild_id=guild, query="", want="count", timeout=timeout_s), for_cache=True)

    def is_for_cache(self, data: bytes) -> bool:
        """Whether a GUILD_MEMBERS_CHUNK, by the JSON of its `d`, was requested for the cache only."""
        return b'"nonce":"%b' % self._cache_prefix.encode() in data

    async def _members(self, ask: rq.MembersAsk, *, for_cache: bool = False) -> bytes:
        data = rq.members(ask, self._intents)
        key = (b"cache" if for_cache else b"") + msgspec.json.encode(data)
        shared = self._shared.get(key)
        if shared is None:
            if len(self._shared) >= WAITING_MAX and not for_cache:
                raise RpcError(LIMITED, f"{WAITING_MAX} questions about members wait on this shard already", 1.0)
            shared = self._shared[key] = _Shared(
                asyncio.create_task(self._until_answered(data, ask, for_cache=for_cache))
            )
        shared.waiters += 1
        try:
            # When this waiter gives up, the others of the same request continue to wait.
            async with asyncio.timeout(ask.timeout):
                answer = await asyncio.shield(shared.task)
        except TimeoutError:
            raise RpcError(TIMEOUT, f"not all members came within {ask.timeout:g} s: {_MEMBERS_SILENCE}") from None
        except asyncio.CancelledError:
            if shared.task.cancelled():
                raise ShardGone from None
            raise
        finally:
            shared.waiters -= 1
            if not shared.waiters and self._shared.get(key) is shared:
                del self._shared[key]
                shared.task.cancel()
        if ask.want == "members" and answer.size > RESULT_BYTES_MAX:
            raise RpcError(REFUSED, "too many members for one answer: ask with want=count, and read the cache")
        return answer.result(with_members=ask.want == "members")

    async def _until_answered(self, data: dict[str, Any], ask: rq.MembersAsk, *, for_cache: bool) -> MembersAnswer:
        """Send the request, again after a rate limit or a new session. The last waiter cancels it."""
        has_turn, prefix = for_cache, self._cache_prefix if for_cache else self._prefix
        while True:
            if ask.is_whole and not has_turn:
                await self._turn(ask.guild_id)
            has_turn = False
            answer = await self._asked(data, prefix)
            if answer is not None and answer.limited_s is None:
                return answer
            await asyncio.sleep(answer.limited_s or 0.0 if answer is not None else 0.0)

    async def _asked(self, data: dict[str, Any], prefix: str) -> MembersAnswer | None:
        """One attempt; None when the session ended before the answer."""
        number = next(self._numbers)
        answer, done = MembersAnswer(f"{prefix}.{number:x}"), asyncio.Event()
        new_session = self._new_session
        self._waiting[number] = answer, done
        try:
            self._command("request_members", data | {"nonce": answer.nonce})
            await _until_any(done, new_session)
            return answer if done.is_set() else None
        finally:
            del self._waiting[number]

    async def _turn(self, guild: str) -> None:
        """Wait until the guild's whole list may be requested again."""
        while True:
            wait_s = await self._turn_in(guild)
            if not wait_s:
                return
            await asyncio.sleep(wait_s)

    async def _turn_in(self, guild: str) -> float:
        """0.0: the request may be sent now and is recorded; otherwise the seconds to wait."""
        now = self._clock()
        wait_s = self._asked_at.get(guild, float("-inf")) + WHOLE_LIST_EVERY_S - now
        if wait_s > 0:
            return wait_s
        if self._cache is not None:
            try:
                wait_s = await self._cache.take_turn(self._namespace, self._app, guild, WHOLE_LIST_EVERY_S)
            except CacheError:
                wait_s = 0.0
        if wait_s <= 0:
            if len(self._asked_at) >= REMEMBERED_MAX:
                self._asked_at.clear()
            self._asked_at[guild] = now
        return max(0.0, wait_s)

    async def close(self) -> None:
        """End the requests in progress. Their waiters get `ShardGone`."""
        self._closed.set()
        tasks = [shared.task for shared in self._shared.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_any(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
