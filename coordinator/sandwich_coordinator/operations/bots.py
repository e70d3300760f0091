"""What Discord says about a bot's token before the cluster uses it."""

import asyncio
from dataclasses import dataclass

import aiohttp

from sandwich_coordinator.config import ClusterSettings, DiscordSettings
from sandwich_coordinator.discord_api import (
    CurrentUser,
    DiscordApiError,
    RateLimited,
    TokenRefused,
    fetch_application,
    fetch_avatar,
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
from sandwich_coordinator.trust import follow_settings

WAIT_MAX_S = 5.0
"""A longer wait that Discord asks for is not waited for."""


@dataclass(frozen=True, slots=True)
class Bot:
    """The bot of a token.

    granted  the privileged intents that are enabled for it in Discord's developer portal
    avatar   the hash of its picture; "" for none
    """

    id: str
    name: str
    granted: frozenset[str]
    limits: BotLimits
    avatar: str = ""

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
    follow_settings(settings, keys.cluster, key)
    return settings, item


async def look_up_bot(discord: DiscordSettings, token: str) -> Bot:
    """Ask Discord about a token. Raises Refused when it is not valid, Unavailable when there is no usable answer.

    Where Discord asks for a short wait, it is asked once more.
    """
    try:
        return await _look_up(discord, token)
    except RateLimited as limited:
        await asyncio.sleep(limited.retry_after_s)
    try:
        return await _look_up(discord, token)
    except RateLimited as limited:
        raise _unavailable(limited) from None


async def look_up_avatar(discord: DiscordSettings, bot: Bot) -> bytes:
    """The bot's picture as PNG; nothing when none can be had within two seconds."""
    async with aiohttp.ClientSession(proxy=discord.proxy or None, trust_env=False) as http:
        return await fetch_avatar(http, discord.api_url, CurrentUser(bot.id, bot.name, bot.avatar))


def _unavailable(error: DiscordApiError) -> Unavailable:
    return Unavailable(f"the token cannot be tested: {error}; --no-check stores it untested")


async def _look_up(discord: DiscordSettings, token: str) -> Bot:
    """As `look_up_bot`; raises RateLimited for a wait of at most `WAIT_MAX_S`."""
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
        limited = next((error for error in errors if isinstance(error, RateLimited)), None)
        if limited is not None and limited.retry_after_s <= WAIT_MAX_S:
            raise limited
        raise _unavailable(errors[0])
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
        avatar=user.result().avatar,
    )
