"""Whether Redis answers: asked by the agent so that an operator learns of it before the cache needs it."""

import asyncio
import logging

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

_log = logging.getLogger(__name__)

TIMEOUT_S = 1.0
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 10.0
CHECK_EVERY_S = 10.0


class RedisProbe:
    """`waiting` is "" while Redis answers, else why it does not. Shards run either way."""

    def __init__(self, url: str, password: str | None) -> None:
        self.waiting = "not asked yet"
        self._url = url
        self._password = password

    async def run(self) -> None:
        """Ask for ever; often while there is no answer."""
        # redis-py's own retries would hang for a minute on a frozen server.
        client = redis.Redis.from_url(
            self._url,
            password=self._password,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        delay = RETRY_FIRST_S
        try:
            while True:
                reason = await self._ask(client)
                if reason != self.waiting:
                    (_log.warning if reason else _log.info)("Redis: %s", reason or "answers")
                self.waiting = reason
                delay = min(delay * 2, RETRY_MAX_S) if reason else RETRY_FIRST_S
                await asyncio.sleep(delay if reason else CHECK_EVERY_S)
        finally:
            await client.aclose()

    async def _ask(self, client: redis.Redis) -> str:
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                await client.ping()
        except AuthenticationError:
            return "Redis refuses the password"
        except (RedisError, OSError, TimeoutError) as error:
            return f"Redis does not answer ({type(error).__name__})"
        return ""
