"""Whether Redis answers and is fit for use: the agent checks it, so that an operator learns of trouble at once."""

import asyncio
import logging
import random

from sandwich_coordinator.backoff import Backoff
from sandwich_coordinator.problems import Code, Problem, problem
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

    async def run(self) -> None:
        """Ask until cancelled; often while there is no answer."""
        cache = RedisCache(self._options, clock=asyncio.get_running_loop().time)
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, random.Random())
        try:
            while True:
                reason = await self._ask(cache)
                if reason != self.waiting:
                    (_log.warning if reason else _log.info)("Redis: %s", reason.text if reason else "answers")
                self.waiting = reason
                if not reason:
                    backoff.succeeded()
                await asyncio.sleep(backoff.next_s() if reason else CHECK_EVERY_S)
        finally:
            await cache.close()

    async def _ask(self, cache: RedisCache) -> Problem | None:
        try:
            infos = await cache.infos()
            if not infos:
                await cache.check()
            found = redis_problems(infos)
        except CacheError as error:
            self.problems = []
            return problem(error.code, "redis", str(error))
        for one in found:
            if one not in self.problems:
                _log.warning("%s", one.text)
        self.problems = found
        return None
