"""`Rpc`: requests to a cluster over NATS, to act for a bot or to read data.

Every method raises RpcError with a `code` when the request was not carried out. If the shard is moving to another node,
the request waits for it.
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import nats.errors
from nats.aio.client import Client

from sandwich_sdk.cancellation import honour_cancel
from sandwich_sdk.errors import reason
from sandwich_sdk.nats_client import ReconnectingClient
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import UNREADABLE
from sandwich_sdk.wire.rpc import INVALID, NOT_FOUND, TIMEOUT, UNAVAILABLE, Answer, RpcError

_log = logging.getLogger(__name__)

Id = str | int
RETRY_S = 0.2
NO_RESPONDERS = "503"
UNSERVED_S = 1.0
"""How long an application may have no node that serves it, while nodes start, before `not_found` is raised."""
GRACE_S = 2.0
"""How much longer than the cluster we wait: its own error says more than our timeout."""


class NotServed(RpcError):
    """No node on this NATS serves the application. Code `not_found`."""


class _NoResponders(Exception):
    """NATS has no subscriber: no node serves the application, or none is connected at this moment."""


class Rpc:
    """Sends requests for one application. Use `async with`, or `connect()` and `close()`.

    servers     NATS URLs
    app         the application's name in the cluster
    timeout     seconds for one request, where a method has no other
    connection  more arguments for nats-py's connect: user, password, user_credentials, tls, ...
    client      your own connection instead
    """

    def __init__(
        self,
        servers: str | Sequence[str] = "nats://127.0.0.1:4222",
        *,
        app: str,
        timeout: float = 5.0,
        connection: Mapping[str, Any] | None = None,
        client: Client | None = None,
    ) -> None:
        """Check the arguments; nothing is connected yet. Raises ValueError."""
        self.app = subjects.check_name(app, what="application")
        if timeout <= 0:
            raise ValueError("timeout must be positive")
        self._timeout = timeout
        self._servers = [servers] if isinstance(servers, str) else list(servers)
        self._connection = dict(connection or {})
        self._client = client or ReconnectingClient()
        self._owns_client = client is None

    async def connect(self) -> None:
        """Connect. Raises RpcError when NATS cannot be reached."""
        if self._client.is_connected or not self._owns_client:
            return
        try:
            async with asyncio.timeout(self._timeout):
                options = {"error_cb": _on_error, **self._connection}
                await self._client.connect(servers=self._servers, **options)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise RpcError(UNAVAILABLE, f"NATS is not reachable ({reason(error)})") from None

    async def close(self) -> None:
        """Disconnect, unless you passed `client`."""
        if self._owns_client and not self._client.is_closed:
            await self._client.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Read from the cache

    async def where_is_guild(self, guild: Id) -> dict[str, Any]:
        """`{"group", "shard", "bot"}`: a guild's shard, and the bot's user id. RpcError `not_found`: no shard."""
        return await self.ask("where_is_guild", guild_id=str(guild))  # type: ignore[no-any-return]

    async def mutual_guilds(self, user: Id, *, scope: str = "app") -> dict[str, list[str]]:
        """Guild ids shared with a user, by application. `scope`: "app", "namespace", or "all" of the cluster's."""
        return await self.ask("mutual_guilds", user_id=str(user), scope=scope)  # type: ignore[no-any-return]

    async def permissions(self, guild: Id, user: Id, channel: Id | None = None) -> int:
        """What a member may do, as Discord's bits. RpcError `not_found` when it is unknown."""
        more: dict[str, Any] = {} if channel is None else {"channel_id": str(channel)}
        found = await self.ask("permissions", guild_id=str(guild), user_id=str(user), **more)
        return int(found["permissions"])

    async def fetch(self, what: str, **fields: Any) -> Any:
        """Anything the cache has, as Discord's JSON: `fetch("guild", guild_id=...)`, `fetch("roles", guild_id=...)`.

        The names are those of the verbs without `fetch_` (docs/guide/rpc.md).
        RpcError `not_found` for what is not there.
        """
        return await self.ask(f"fetch_{what}", **fields)

    # Read from Discord

    async def request_members(
        self,
        guild: Id,
        *,
        query: str | None = None,
        user_ids: Sequence[Id] | None = None,
        limit: int = 0,
        presences: bool = False,
        want: str = "members",
        timeout: float = 30.0,
    ) -> dict[str, Any]:
        """Members of a guild, requested from Discord: those with `user_ids`, whose name begins with `query`, or all.

        Without `query` and `user_ids` it is all of them (needs the GUILD_MEMBERS intent; once in 30 s for each guild).
        The answer has `members`, `presences`, `not_found`, `count`; with `want="count"` it has no members: read them
        from the cache.
        """
        fields: dict[str, Any] = {"guild_id": str(guild), "limit": limit, "presences": presences, "want": want}
        if user_ids is not None:
            fields["user_ids"] = [str(user) for user in user_ids]
        if query is not None or user_ids is None:
            fields["query"] = query or ""
        return await self.ask("request_members", timeout=timeout, **fields)  # type: ignore[no-any-return]

    async def request_sounds(self, guild: Id, *, timeout: float = 5.0) -> dict[str, Any]:
        """The soundboard sounds of a guild, requested from Discord."""
        return await self.ask("request_sounds", timeout=timeout, guild_id=str(guild))  # type: ignore[no-any-return]

    async def request_channel_info(
        self, guild: Id, *, fields: Sequence[str] = ("status", "voice_start_time"), timeout: float = 5.0
    ) -> dict[str, Any]:
        """Ephemeral fields of a guild's voice channels, requested from Discord."""
        wanted = list(fields)
        return await self.ask(  # type: ignore[no-any-return]
            "request_channel_info", timeout=timeout, guild_id=str(guild), fields=wanted
        )

    # Act for the bot

    async def update_presence(
        self,
        *,
        status: str = "online",
        activities: Sequence[Mapping[str, Any]] = (),
        afk: bool = False,
        since: int | None = None,
        shard: int | None = None,
    ) -> dict[str, Any] | None:
        """Set a presence on one shard, or on all: then the result is `{"shards": n, "failed": {shard: reason}}`.

        It lasts until a shard begins a new session; `presence` in cluster.yml is permanent.
        """
        fields: dict[str, Any] = {"status": status, "activities": list(activities), "afk": afk, "since": since}
        if shard is not None:
            fields["shard"] = shard
        return await self.ask("update_presence", **fields)  # type: ignore[no-any-return]

    async def update_voice_state(
        self,
        guild: Id,
        channel: Id | None,
        *,
        self_mute: bool = False,
        self_deaf: bool = False,
        timeout: float = 5.0,
    ) -> dict[str, Any]:
        """Join, move to or (None) leave a voice channel; `state` and `server` are the events that Lavalink needs."""
        return await self.ask(  # type: ignore[no-any-return]
            "update_voice_state",
            timeout=timeout,
            guild_id=str(guild),
            channel_id=None if channel is None else str(channel),
            self_mute=self_mute,
            self_deaf=self_deaf,
        )

    async def relay(self, type: str, data: Any, *, guild: Id | None = None, shard: int | None = None) -> str:
        """Publish an own event among those of a guild or shard. Returns its id once it is stored."""
        fields: dict[str, Any] = {"type": type, "data": data}
        if guild is not None:
            fields["guild_id"] = str(guild)
        if shard is not None:
            fields["shard"] = shard
        found = await self.ask("relay", **fields)
        return str(found["id"])

    # Requests

    async def ask(self, verb: str, *, timeout: float | None = None, **fields: Any) -> Any:
        """One request by its verb (docs/guide/rpc.md). `timeout` is also sent to the cluster if the verb takes one."""
        if timeout is not None:
            fields["timeout"] = timeout
        seconds = (timeout or self._timeout) + GRACE_S
        try:
            body = json.dumps(fields, allow_nan=False).encode()
        except UNREADABLE as error:
            raise RpcError(INVALID, f"the request cannot be written as JSON: {error}") from None
        try:
            async with asyncio.timeout(seconds):
                return msgspec.json.decode(await self._ask_until_served(verb, body))
        except TimeoutError:
            raise RpcError(TIMEOUT, f"the cluster did not answer {verb} within {seconds:g} s") from None
        except (nats.errors.Error, OSError, *UNREADABLE) as error:
            raise RpcError(UNAVAILABLE, f"the request could not be sent ({reason(error)})") from None

    async def _ask_until_served(self, verb: str, body: bytes) -> bytes:
        """Retry while no node serves the request. NotServed after `UNSERVED_S` without any."""
        clock = asyncio.get_running_loop().time
        served_at = clock()
        while True:
            try:
                return await self._ask_once(verb, body)
            except _NoResponders:
                if clock() - served_at >= UNSERVED_S:
                    what = f"no node on this NATS serves an application {self.app!r}"
                    raise NotServed(NOT_FOUND, f"{what}: is this its name, and does its cluster run?") from None
                await asyncio.sleep(RETRY_S)
            except RpcError as error:
                if error.code != UNAVAILABLE or error.retry_after is None:
                    raise
                served_at = clock()
                await asyncio.sleep(min(error.retry_after, RETRY_S))

    async def _ask_once(self, verb: str, body: bytes) -> bytes:
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        try:
            await self._client.publish(subjects.rpc_subject(self.app, verb), body, reply=inbox)
            answer = Answer()
            while True:
                message = await answers.next_msg(timeout=None)
                if (message.headers or {}).get("Status") == NO_RESPONDERS:
                    raise _NoResponders
                if answer.add(message.data, message.headers):
                    return answer.result()
        finally:
            await answers.unsubscribe()


async def _on_error(error: Exception) -> None:
    # Called by `connect`, too, which tries again for ever.
    honour_cancel()
    _log.warning("NATS: %s", reason(error))
