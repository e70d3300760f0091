"""What Discord says about a bot's token before the cluster uses it."""

import asyncio
from dataclasses import dataclass

import aiohttp

from sandwich_coordinator.config import ClusterSettings, DiscordSettings
from sandwich_coordinator.discord_api import (
    DiscordApiError,
    TokenRefused,
    fetch_application,
    fetch_current_user,
    fetch_gateway_bot,
)
from sandwich_coordinator.intents import privileged_names
from sandwich_coordinator.operations.configuration import read_settings
from sandwich_coordinator.operations.errors import Refused, Unavailable
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.shard_counts import BotLimits
from sandwich_coordinator.store.base import KeyValue, Store
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.trust import check_settings


@dataclass(frozen=True, slots=True)
class Bot:
    """The bot of a token. `granted`: the privileged intents that are enabled for it in Discord's developer portal."""

    id: str
    name: str
    granted: frozenset[str]
    limits: BotLimits

    def not_granted(self, intents: int) -> list[str]:
        """The privileged ones of these intents that are not enabled: Discord would close with 4014."""
        return [name for name in privileged_names(intents) if name not in self.granted]


async def trusted_settings(store: Store, keys: Keys, key: ClusterKey | None) -> tuple[ClusterSettings, KeyValue]:
    """The cluster's settings, authenticated: a token is sealed for its key, and sent only to its `discord.api_url`.

    `key` None: for a cluster without one. Raises Refused when there are none; SealingError for another key.
    """
    item = await store.get(keys.config)
    if item is None:
        raise Refused("the cluster is not configured: run sandwich cluster apply -f cluster.yml")
    settings = read_settings(item, keys, None)
    check_settings(settings, keys.cluster, key)
    return settings, item


async def look_up_bot(discord: DiscordSettings, token: str) -> Bot:
    """Ask Discord about a token. Raises Refused when it is not valid, Unavailable when there is no usable answer."""
    # As the nodes do it: no proxy of the environment, no redirect.
    errors: list[DiscordApiError] = []
    async with aiohttp.ClientSession(proxy=discord.proxy or None, trust_env=False) as http:
        try:
            async with asyncio.TaskGroup() as tasks:
                gateway = tasks.create_task(fetch_gateway_bot(http, discord.api_url, token))
                user = tasks.create_task(fetch_current_user(http, discord.api_url, token))
                application = tasks.create_task(fetch_application(http, discord.api_url, token))
        except* DiscordApiError as group:
            errors += [error for error in group.exceptions if isinstance(error, DiscordApiError)]
    if errors:
        refused = next((error for error in errors if isinstance(error, TokenRefused)), None)
        if refused is not None:
            raise Refused(f"{refused}; nothing was written")
        raise Unavailable(f"the token cannot be tested: {errors[0]}; --no-check stores it untested")
    found, limits = application.result(), gateway.result()
    return Bot(
        id=user.result().id,
        name=user.result().name,
        granted=found.granted,
        limits=BotLimits(
            recommended=limits.shards,
            total=limits.total,
            remaining=limits.remaining,
            reset_after_s=limits.reset_after_s,
            max_concurrency=limits.max_concurrency,
            guilds=found.guilds,
        ),
    )
