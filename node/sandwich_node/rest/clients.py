"""The REST clients of a worker, one for each bot, and the worker's share of the bot's rate limit. A shell.

Discord allows a bot 50 requests a second, from all programs together. The cluster uses a fifth of that; the rest is for
the bot's consumers, which use the same token. A worker's share of this fifth is its share of the bot's shards, so nodes
need not negotiate. While two shard groups of a bot run at the same time, the sum may be twice as much.
"""

from dataclasses import dataclass

import aiohttp

from sandwich_node.rest.client import RestClient
from sandwich_node.rest.limiter import InvalidGuard, RestLimiter
from sandwich_node.secret import Secret

BOT_PER_S = 10.0
WORKER_MIN_PER_S = 0.1
"""The least share of a worker: one request in ten seconds."""
REMEMBERED_MAX = 64


@dataclass(slots=True)
class _Held:
    client: RestClient
    limiter: RestLimiter
    shards: int = 0
    part: float = 0.0

    def add(self, shards: int, part: float) -> None:
        """Add shards that use the client; `part`: their fraction of the bot's shards."""
        self.shards += shards
        self.part += part
        self.limiter.set_share(max(WORKER_MIN_PER_S, BOT_PER_S * self.part))


class RestClients:
    """Shards `take` their bot's client, and `give_back` when they end. Known rate limits are kept after that."""

    def __init__(self, http: aiohttp.ClientSession, api_url: str) -> None:
        self._http = http
        self._api_url = api_url
        self._invalid = InvalidGuard()
        self._held: dict[str, _Held] = {}

    def take(self, token_hash: str, token: Secret, count: int) -> RestClient:
        """The client for one of a bot's `count` shards."""
        held = self._held.get(token_hash)
        if held is None:
            self._forget_unused()
            limiter = RestLimiter(WORKER_MIN_PER_S, self._invalid)
            held = _Held(RestClient(self._http, self._api_url, token, limiter), limiter)
            self._held[token_hash] = held
        held.add(1, 1 / count)
        return held.client

    def give_back(self, token_hash: str, count: int) -> None:
        """End one shard's use of the client."""
        self._held[token_hash].add(-1, -1 / count)

    def _forget_unused(self) -> None:
        if len(self._held) >= REMEMBERED_MAX:
            self._held = {name: held for name, held in self._held.items() if held.shards}
