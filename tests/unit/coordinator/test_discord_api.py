"""Every kind of answer of Discord has one error, and none shows the token."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from sandwich_coordinator.discord_api import (
    CurrentUser,
    DiscordApiError,
    DiscordUnavailable,
    GatewayBot,
    RateLimited,
    TokenRefused,
    avatar_url,
    fetch_avatar,
    fetch_current_user,
    fetch_gateway_bot,
)
from tests.support.http_server import discord_api

TOKEN = "canary.token.value"
GOOD = (
    '{"url":"wss://g","shards":9,"new":1,'
    '"session_start_limit":{"total":1000,"remaining":3,"reset_after":1500,"max_concurrency":16}}'
)


class Discord:
    """Answers as configured."""

    def __init__(self) -> None:
        self.answer = web.Response(text=GOOD)
        self.silent = False
        self.seen: list[web.Request] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        if self.silent:
            await asyncio.Event().wait()
        return self.answer


@pytest.fixture
async def discord() -> AsyncIterator[Discord]:
    found = Discord()
    async with discord_api(found.handle) as found.url:
        yield found


async def test_the_documented_answer_is_read_and_the_request_follows_discords_rules(discord: Discord) -> None:
    async with aiohttp.ClientSession() as http:
        found = await fetch_gateway_bot(http, discord.url + "/", f"Bot {TOKEN}")
    assert found == GatewayBot("wss://g", 9, 1000, 3, 1.5, 16)
    assert discord.seen[0].path == "/api/v10/gateway/bot"
    assert discord.seen[0].headers["Authorization"] == f"Bot {TOKEN}"
    assert discord.seen[0].headers["User-Agent"].startswith("DiscordBot (sandwich, ")


async def test_the_bots_user_has_an_id_and_a_name(discord: Discord) -> None:
    discord.answer = web.Response(text='{"id":"42","username":"Sandwich"}')
    async with aiohttp.ClientSession() as http:
        user = await fetch_current_user(http, discord.url, TOKEN)
    assert (user.id, user.name) == ("42", "Sandwich")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, "{}", TokenRefused),
        (500, GOOD, DiscordUnavailable),
        (302, GOOD, DiscordUnavailable),
        (403, "<html>", DiscordUnavailable),
        (200, "<html>", DiscordUnavailable),
        (200, "{}", DiscordUnavailable),
        (200, GOOD.replace("9", "0"), DiscordUnavailable),
        (200, GOOD.replace("wss://g", "file:///x"), DiscordUnavailable),
        (200, GOOD.replace("wss://g", "wss://"), DiscordUnavailable),
        (200, GOOD.replace("wss://g", "wss:///gateway"), DiscordUnavailable),
        (200, GOOD.replace("wss://g", "wss://g:99999"), DiscordUnavailable),
        (200, GOOD.replace("wss://g", "wss://[::1"), DiscordUnavailable),
        (200, " " * 600_000, DiscordUnavailable),
    ],
)
async def test_every_other_answer_is_a_typed_error(
    discord: Discord, status: int, body: str, expected: type[DiscordApiError]
) -> None:
    discord.answer = web.Response(status=status, text=body)
    async with aiohttp.ClientSession() as http:
        with pytest.raises(expected) as caught:
            await fetch_gateway_bot(http, discord.url, TOKEN)
    assert TOKEN not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("body", "header", "expected"),
    [('{"retry_after":2.5}', "9", 2.5), ("<html>", "9", 9.0), ("<html>", "soon", 60.0), ('{"retry_after":-1}', "", 60)],
)
async def test_a_rate_limit_has_its_duration(discord: Discord, body: str, header: str, expected: float) -> None:
    discord.answer = web.Response(status=429, text=body, headers={"Retry-After": header})
    async with aiohttp.ClientSession() as http:
        with pytest.raises(RateLimited) as caught:
            await fetch_gateway_bot(http, discord.url, TOKEN)
    assert caught.value.retry_after_s == expected


async def test_silence_absence_and_an_unsendable_token_are_unavailable_without_the_token(discord: Discord) -> None:
    discord.silent = True
    async with aiohttp.ClientSession() as http:
        with pytest.raises(DiscordUnavailable, match="no answer in time"):
            await fetch_gateway_bot(http, discord.url, TOKEN, timeout_s=0.05)
        with pytest.raises(DiscordUnavailable):
            await fetch_gateway_bot(http, "http://127.0.0.1:9/api/v10", TOKEN)
        with pytest.raises(DiscordUnavailable) as caught:
            await fetch_gateway_bot(http, discord.url, TOKEN + "\r\nX: y")
    assert TOKEN not in str(caught.value)


HASH = "a_0123456789abcdef0123456789abcdef"
PICTURE = b"\x89PNG\r\n\x1a\n" + b"p" * 100


@pytest.mark.parametrize(
    ("api_url", "user", "url"),
    [
        (
            "https://discord.com/api/v10",
            CurrentUser("7", "b", HASH),
            f"https://cdn.discordapp.com/avatars/7/{HASH}.png",
        ),
        ("https://canary.discord.com/api", CurrentUser("7", "b", HASH[2:]), "https://cdn.discordapp.com/avatars/7/"),
        ("http://user:word@127.0.0.1:80/api", CurrentUser("7", "b", HASH), "http://127.0.0.1:80/avatars/7/a_"),
        ("https://notdiscord.com/api", CurrentUser("7", "b", HASH), "https://notdiscord.com/avatars/7/"),
        ("https://discord.com/api", CurrentUser("7", "b"), ""),
        ("https://discord.com/api", CurrentUser("7", "b", "../../users/@me"), ""),
        ("https://discord.com/api", CurrentUser("../7", "b", HASH), ""),
    ],
)
def test_a_picture_is_at_discords_host_for_pictures_or_at_the_apis(api_url: str, user: CurrentUser, url: str) -> None:
    found = avatar_url(api_url, user)
    assert found.startswith(url)
    assert bool(found) == bool(url)


@pytest.mark.parametrize(
    ("answer", "picture"),
    [
        (web.Response(body=PICTURE), PICTURE),
        (web.Response(body=b"<svg onload=x>", content_type="image/png"), b""),
        (web.Response(body=PICTURE + b"p" * 65536), b""),
        (web.Response(body=PICTURE, status=404), b""),
        (web.Response(status=302, headers={"Location": "/elsewhere"}), b""),
    ],
)
async def test_a_picture_is_asked_for_without_the_token_and_taken_only_when_it_is_one(
    answer: web.Response, picture: bytes, discord: Discord
) -> None:
    discord.answer = answer
    async with aiohttp.ClientSession() as http:
        assert await fetch_avatar(http, discord.url, CurrentUser("7", "b", HASH)) == picture
    (asked,) = discord.seen
    assert asked.path == f"/avatars/7/{HASH}.png"
    assert "Authorization" not in asked.headers


async def test_a_picture_that_does_not_come_is_no_error(discord: Discord) -> None:
    async with aiohttp.ClientSession() as http:
        assert await fetch_avatar(http, "http://127.0.0.1:1/api", CurrentUser("7", "b", HASH)) == b""
        discord.silent = True
        assert await fetch_avatar(http, discord.url, CurrentUser("7", "b", HASH), timeout_s=0.1) == b""
