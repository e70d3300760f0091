"""Asking Discord about a token, through a server that answers as the test says."""

import pytest
from aiohttp import web

from sandwich_coordinator.config import DiscordSettings
from sandwich_coordinator.operations import bots
from sandwich_coordinator.operations.errors import Unavailable
from tests.support.http_server import discord_api

START = {"total": 1000, "remaining": 999, "reset_after": 1000, "max_concurrency": 1}
ANSWERS = {
    "gateway/bot": {"url": "wss://gateway.discord.gg", "shards": 1, "session_start_limit": START},
    "users/@me": {"id": "80351110224678912", "username": "Welcomer"},
    "applications/@me": {"id": "80351110224678912", "flags": 0, "approximate_guild_count": 5},
}


def answer(path: str) -> web.Response:
    return web.json_response(next(body for end, body in ANSWERS.items() if path.endswith(end)))


async def test_a_short_wait_that_discord_asks_for_is_waited_for() -> None:
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        if len(asked) <= 3:
            return web.json_response({"retry_after": 0.01, "global": False}, status=429)
        return answer(request.path)

    async with discord_api(handle) as url:
        bot = await bots.look_up_bot(DiscordSettings(api_url=url), "token")
    assert (bot.name, len(asked) > 3) == ("Welcomer", True)


@pytest.mark.parametrize("retry_after", [0.01, bots.WAIT_MAX_S + 1, 3600])
async def test_a_longer_or_a_second_wait_is_said(retry_after: float) -> None:
    async def handle(_request: web.Request) -> web.Response:
        return web.json_response({"retry_after": retry_after, "global": False}, status=429)

    async with discord_api(handle) as url:
        with pytest.raises(Unavailable, match="rate limited by Discord"):
            await bots.look_up_bot(DiscordSettings(api_url=url), "token")
