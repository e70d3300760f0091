"""The client of Discord's REST API: waits for its turn, sends, and returns the answer. A shell.

The limiter decides when a request may be sent, and `discord_api.get` sends it safely. Every request has a deadline. It
is refused at once when its turn would come too late, or when too many requests wait.
"""

import asyncio
import math
from collections.abc import Callable

import aiohttp
import msgspec

from sandwich_coordinator.discord_api import (
    DiscordApiError,
    DiscordUnavailable,
    RateLimited,
    Reply,
    TokenRefused,
    get,
    retry_after_s,
)
from sandwich_node.rest.limiter import RestLimiter, Route, Ticket
from sandwich_node.secret import Secret

ANSWER_TIMEOUT_S = 10.0
WAITING_MAX = 256
ATTEMPTS_MAX = 3
BODY_BYTES_MAX = 8 * 1024 * 1024
"""The 1,000 invites of a guild have some two megabytes."""


class RequestRefused(DiscordApiError):
    """Discord answered 4xx: `code` is its own error code, 0 when it gave none. The same request is refused again."""

    def __init__(self, status: int, code: int) -> None:
        super().__init__(f"refused by Discord: {status}, code {code}")
        self.status = status
        self.code = code


class _ErrorBody(msgspec.Struct):
    code: int = 0


class RestClient:
    """One bot's REST API for one worker; shared by the shards of the bot there.

    At most `waiting_max` requests wait for their turn; an answer has at most `body_bytes_max` bytes.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        api_url: str,
        token: Secret,
        limiter: RestLimiter,
        *,
        waiting_max: int = WAITING_MAX,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> None:
        self._http = http
        self._api_url = api_url.rstrip("/")
        self._token = token
        self._limiter = limiter
        self._waiting_max = waiting_max
        self._body_bytes_max = body_bytes_max
        self._waiting = 0
        self._released = asyncio.Event()

    def wait_s(self, route: Route, *, urgent: bool) -> float:
        """How long a request would wait for its turn at the moment; infinity when that is unknown."""
        now = asyncio.get_running_loop().time()
        return self._limiter.free_at(route, now, urgent=urgent) - now

    async def get(
        self,
        route: Route,
        *,
        urgent: bool,
        timeout_s: float = ANSWER_TIMEOUT_S,
        on_send: Callable[[], None] = lambda: None,
        on_limited: Callable[[], None] = lambda: None,
    ) -> bytes:
        """The body of a 200, within `timeout_s`, waiting for its turn included.

        `on_send` is called just before the request goes out, again when it is repeated; `on_limited` at each 429.
        Raises TokenRefused, RequestRefused, RateLimited (no turn in time), DiscordUnavailable.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        for _ in range(ATTEMPTS_MAX):
            ticket = await self._turn(route, urgent, deadline)
            on_send()
            reply = await self._send(ticket, deadline)
            if reply.status != 429:
                return _body_of(reply)
            on_limited()
        raise RateLimited(retry_after_s(reply))

    async def _turn(self, route: Route, urgent: bool, deadline: float) -> Ticket:
        if self._waiting >= self._waiting_max:
            raise RateLimited(1.0)
        self._waiting += 1
        try:
            while True:
                if self._limiter.token_refused:
                    raise TokenRefused("Discord refused the token (401) before: no further request is sent with it")
                now = asyncio.get_running_loop().time()
                at = self._limiter.free_at(route, now, urgent=urgent)
                if at <= now < deadline:
                    return self._limiter.send(route, now, urgent=urgent)
                if now >= deadline or deadline <= at < math.inf:
                    raise RateLimited(at - now if at < math.inf else 1.0)
                await self._until(min(at, deadline))
        finally:
            self._waiting -= 1

    async def _until(self, moment: float) -> None:
        """Wait until this loop time, or until an answer arrives, which may change the limits."""
        try:
            async with asyncio.timeout_at(moment):
                await self._released.wait()
        except TimeoutError:
            pass

    async def _send(self, ticket: Ticket, deadline: float) -> Reply:
        loop = asyncio.get_running_loop()
        url = f"{self._api_url}{ticket.route.path}"
        try:
            left_s = max(0.001, min(ANSWER_TIMEOUT_S, deadline - loop.time()))
            reply = await get(
                self._http, url, self._token.reveal(), timeout_s=left_s, body_bytes_max=self._body_bytes_max
            )
        except BaseException:
            self._limiter.lost(ticket)
            raise
        else:
            wait_s = retry_after_s(reply) if reply.status == 429 else 0.0
            self._limiter.answered(
                ticket, loop.time(), status=reply.status, headers=reply.headers, retry_after_s=wait_s
            )
            return reply
        finally:
            self._released.set()
            self._released = asyncio.Event()


def _body_of(reply: Reply) -> bytes:
    if reply.status == 200:
        return reply.content
    if reply.status == 401:
        raise TokenRefused("Discord refused the token (401): it is wrong or was reset")
    if not 400 <= reply.status < 500:
        raise DiscordUnavailable(f"Discord answered {reply.status}")
    try:
        code = msgspec.json.decode(reply.content, type=_ErrorBody).code
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = 0
    raise RequestRefused(reply.status, code)
