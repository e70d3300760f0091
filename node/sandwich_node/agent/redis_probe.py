"""Whether Redis answers and is fit for use: the agent checks it, so that an operator learns of trouble at once."""

import asyncio
import logging
import random

from sandwich_coordinator.backoff import Backoff
from sandwich_coordinator.findings import Finding
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.options import RedisOptions
from sandwich_node.cache.redis_health import redis_findings
from sandwich_node.cache.redis_store import RedisCache

_log = logging.getLogger(__name__)

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 10.0
CHECK_EVERY_S = 10.0


class RedisProbe:
    """`waiting` is "" while Redis answers, else why it does not; `findings`: what it says about itself.

    Shards run either way.
    """

    def __init__(self, options: RedisOptions) -> None:
        self.waiting = "not asked yet"
        self.findings: list[Finding] = []
        self._options = options

    async def run(self) -> None:
        """Ask for ever; often while there is no answer."""
        cache = RedisCache(self._options, clock=asyncio.get_running_loop().time)
        backoff = Backoff(RETRY_FIRST_S, RETRY_MAX_S, random.Random())
        try:
            while True:
                reason = await self._ask(cache)
                if reason != self.waiting:
                    (_log.warning if reason else _log.info)("Redis: %s", reason or "answers")
                self.waiting = reason
                if not reason:
                    backoff.succeeded()
                await asyncio.sleep(backoff.next_s() if reason else CHECK_EVERY_S)
        finally:
            await cache.close()

    async def _ask(self, cache: RedisCache) -> str:
        try:
            infos = await cache.infos()
            if not infos:
                await cache.check()
            found = redis_findings(infos)
        except CacheError as error:
            self.findings = []
            return str(error)
        for finding in found:
            if finding not in self.findings:
                _log.warning("%s", finding.text)
        self.findings = found
        return ""
