"""Whether Redis answers and is fit for use: the agent checks it, so that an operator learns of trouble at once."""

import asyncio
import logging
import random

from sandwich_coordinator.backoff import Backoff
from sandwich_coordinator.problems import Code, Problem, Severity, problem
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_health import redis_problems
from sandwich_node.cache.redis_store import RedisCache

_log = logging.getLogger(__name__)

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 10.0
CHECK_EVERY_S = 10.0


class RedisProbe:
    """`waiting` is None while Redis answers, else why it does not; `problems`: what it reports about itself.

    Shards run either way.
    """

    def __init__(self, options: RedisOptions) -> None:
        self.waiting: Problem | None = problem(Code.REDIS_UNREACHABLE, "redis", "Redis was not asked yet", "")
        self.problems: list[Problem] = []
        self._options = options
        self._changed = asyncio.Event()

    def use(self, options: RedisOptions) -> None:
        """Ask the Redis of these options from now on."""
        self._options = options
        self._changed.set()

    async def run(self) -> None:
        """Ask until cancelled; often while there is no answer."""
        while True:
            self._changed.clear()
            cache = RedisCache(self._options, clock=asyncio.get_running_loop().time)
            try:
                await self._keep_asking(cache)
            finally:
                await cache.close()

    async def _keep_asking(self, cache: RedisCache) -> None:
        """Until the options change."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, random.Random())
        while not self._changed.is_set():
            reason, found = await _ask(cache)
            if reason != self.waiting:
                (_log.warning if reason else _log.info)("Redis: %s", reason.text if reason else "answers")
            for one in found:
                if one not in self.problems:
                    _log.warning("%s", one.text)
            self.waiting, self.problems = reason, found
            if not reason:
                backoff.succeeded()
            try:
                async with asyncio.timeout(backoff.next_s() if reason else CHECK_EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                pass


async def redis_refusal(options: RedisOptions) -> Problem | None:
    """Why the cache cannot be written with these options now; None when it can."""
    cache = RedisCache(options, clock=asyncio.get_running_loop().time)
    try:
        reason, found = await _ask(cache)
    finally:
        await cache.close()
    return reason or next((one for one in found if one.severity is Severity.CRITICAL), None)


async def _ask(cache: RedisCache) -> tuple[Problem | None, list[Problem]]:
    """Why Redis does not answer, None when it does, and what it reports about itself."""
    try:
        infos = await cache.infos()
        if not infos:
            await cache.check()
        return None, redis_problems(infos)
    except CacheError as error:
        return problem(error.code, "redis", str(error)), []
