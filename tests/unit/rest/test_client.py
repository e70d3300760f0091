"""The REST shell against an HTTP server that answers as configured: errors, turns, deadlines, secrets."""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from sandwich_coordinator.discord_api import DiscordApiError, DiscordUnavailable, RateLimited, TokenRefused
from sandwich_node.rest.client import BODY_BYTES_MAX, WAITING_MAX, RequestRefused, RestClient
from sandwich_node.rest.limiter import InvalidGuard, RestLimiter, Route
from sandwich_node.secret import Secret
from tests.support.http_server import discord_api

TOKEN = "canary.token.value"
ROUTE = Route("GET /guilds/{id}/invites", "1", "/guilds/1/invites")


class Discord:
    """Answers from a list, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[web.Response] = [web.Response(text="[]")]
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self.seen: list[web.Request] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        self.arrived.set()
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


@pytest.fixture
async def discord() -> AsyncIterator[Discord]:
    found = Discord()
    async with discord_api(found.handle) as found.url:
        yield found
        found.gate.set()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def client(
    discord: Discord,
    http: aiohttp.ClientSession,
    limiter: RestLimiter | None = None,
    *,
    waiting_max: int = WAITING_MAX,
    body_bytes_max: int = BODY_BYTES_MAX,
) -> RestClient:
    limiter = limiter or RestLimiter(1000.0, InvalidGuard())
    token = Secret(TOKEN)
    return RestClient(http, discord.url, token, limiter, waiting_max=waiting_max, body_bytes_max=body_bytes_max)


async def test_a_request_is_polite_and_says_when_it_goes_out(discord: Discord, http: aiohttp.ClientSession) -> None:
    sent: list[bool] = []
    body = await client(discord, http).get(ROUTE, urgent=True, on_send=lambda: sent.append(not discord.seen))
    assert (body, sent) == (b"[]", [True])
    assert discord.seen[0].path == "/api/v10/guilds/1/invites"
    assert discord.seen[0].headers["Authorization"] == f"Bot {TOKEN}"
    assert discord.seen[0].headers["User-Agent"].startswith("DiscordBot (sandwich, ")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, "{}", "TokenRefused"),
        (403, '{"message":"Missing Permissions","code":50013}', "RequestRefused 403 50013"),
        (404, "<html>", "RequestRefused 404 0"),
        (500, "[]", "DiscordUnavailable"),
        (302, "[]", "DiscordUnavailable"),
    ],
)
async def test_every_other_answer_is_an_error_of_its_own(
    discord: Discord, http: aiohttp.ClientSession, status: int, body: str, expected: str
) -> None:
    discord.answers = [web.Response(status=status, text=body, headers={"Location": "http://127.0.0.1:9/"})]
    with pytest.raises(DiscordApiError) as caught:
        await client(discord, http).get(ROUTE, urgent=True)
    error = caught.value
    more = f" {error.status} {error.code}" if isinstance(error, RequestRefused) else ""
    assert type(error).__name__ + more == expected
    assert len(discord.seen) == 1


async def test_no_error_or_log_shows_the_token(
    discord: Discord, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    discord.answers = [
        web.Response(text="x" * 600_000),
        web.Response(status=500, text=TOKEN),
        web.Response(status=403, text=TOKEN),
        web.Response(status=401, text=TOKEN),
    ]
    one, shown = client(discord, http, body_bytes_max=1000), ""
    for _ in range(4):
        with pytest.raises(DiscordApiError) as caught:
            await one.get(ROUTE, urgent=True)
        shown += "".join(traceback.format_exception(caught.value))
    with pytest.raises(DiscordUnavailable) as unsendable:
        await RestClient(http, discord.url, Secret(TOKEN + "\r\nX: y"), RestLimiter(9.0, InvalidGuard())).get(
            ROUTE, urgent=True
        )
    shown += "".join(traceback.format_exception(unsendable.value)) + caplog.text + repr(one.__dict__)
    assert TOKEN not in shown


async def test_a_token_that_was_refused_is_not_used_again(discord: Discord, http: aiohttp.ClientSession) -> None:
    discord.answers = [web.Response(status=401)]
    one = client(discord, http)
    for _ in range(3):
        with pytest.raises(TokenRefused):
            await one.get(ROUTE, urgent=True)
    assert len(discord.seen) == 1


def limited(retry_after: float, scope: str = "user") -> web.Response:
    return web.json_response({"retry_after": retry_after}, status=429, headers={"X-RateLimit-Scope": scope})


async def test_a_429_is_waited_out_and_the_request_repeated(discord: Discord, http: aiohttp.ClientSession) -> None:
    discord.answers = [limited(0.05), web.Response(text="[1]")]
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await client(discord, http).get(ROUTE, urgent=True) == b"[1]"
    assert loop.time() - started >= 0.05


async def test_a_429_beyond_the_deadline_is_reported_at_once(discord: Discord, http: aiohttp.ClientSession) -> None:
    discord.answers = [limited(30.0)]
    one = client(discord, http)
    async with asyncio.timeout(10):
        with pytest.raises(RateLimited) as caught:
            await one.get(ROUTE, urgent=True, timeout_s=5)
    assert caught.value.retry_after_s == pytest.approx(30, abs=1)
    assert one.wait_s(ROUTE, urgent=True) == pytest.approx(30, abs=1)


async def test_a_429_that_does_not_end_is_given_up(discord: Discord, http: aiohttp.ClientSession) -> None:
    discord.answers = [limited(0.01)]
    with pytest.raises(RateLimited):
        await client(discord, http).get(ROUTE, urgent=True)
    assert len(discord.seen) == 3


async def test_silence_ends_at_the_deadline_and_gives_the_place_back(
    discord: Discord, http: aiohttp.ClientSession
) -> None:
    discord.gate.clear()
    one = client(discord, http)
    with pytest.raises(DiscordUnavailable, match="no answer in time"):
        await one.get(ROUTE, urgent=True, timeout_s=0.1)
    discord.gate.set()
    assert await one.get(ROUTE, urgent=True, timeout_s=5) == b"[]"


async def test_a_second_request_waits_for_the_first_to_learn_the_bucket(
    discord: Discord, http: aiohttp.ClientSession
) -> None:
    discord.gate.clear()
    one = client(discord, http)
    both = [asyncio.create_task(one.get(ROUTE, urgent=True)) for _ in range(2)]
    await discord.arrived.wait()
    await asyncio.sleep(0.02)
    assert len(discord.seen) == 1
    discord.gate.set()
    assert await asyncio.gather(*both) == [b"[]", b"[]"]


async def test_a_request_that_is_cancelled_gives_its_place_back(discord: Discord, http: aiohttp.ClientSession) -> None:
    discord.gate.clear()
    one = client(discord, http)
    task = asyncio.create_task(one.get(ROUTE, urgent=True))
    await discord.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    discord.gate.set()
    assert await one.get(ROUTE, urgent=True) == b"[]"


async def test_more_than_the_queue_holds_are_refused_at_once(discord: Discord, http: aiohttp.ClientSession) -> None:
    discord.gate.clear()
    one = client(discord, http, waiting_max=1)
    tasks = [asyncio.create_task(one.get(ROUTE, urgent=True)) for _ in range(2)]
    await discord.arrived.wait()
    with pytest.raises(RateLimited):
        await one.get(ROUTE, urgent=True)
    discord.gate.set()
    assert await asyncio.gather(*tasks) == [b"[]", b"[]"]
