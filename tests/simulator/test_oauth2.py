"""Sign-in as Discord does it: what is not exactly right is refused."""

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest

from sandwich_simulator.clock import Now
from sandwich_simulator.config import BotConfig, SimulatorConfig
from sandwich_simulator.simulator import Simulator

BACK = "https://sandwich.example.com/auth/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
USER = "613425648685547541"


class Clock:
    def __init__(self) -> None:
        self.mono = 1000.0

    def __call__(self) -> Now:
        return Now(self.mono, int(1.8e18))


class Login:
    """A browser and a client of one simulator."""

    def __init__(self, sim: Simulator, http: aiohttp.ClientSession, clock: Clock, client_id: str) -> None:
        self.sim, self.http, self.clock, self.client_id = sim, http, clock, client_id

    async def authorize(self, **changes: str) -> tuple[int, dict[str, list[str]]]:
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": BACK,
            "scope": "identify guilds.members.read",
            "state": "s",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        } | changes
        url = f"{self.sim.base_url}/oauth2/authorize?{urlencode(query)}"
        async with self.http.get(url, allow_redirects=False) as response:
            return response.status, parse_qs(urlsplit(response.headers.get("Location", "")).query)

    async def code(self, **changes: str) -> str:
        return (await self.authorize(**changes))[1]["code"][0]

    async def exchange(self, code: str, **changes: str) -> tuple[int, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": BACK,
            "client_id": self.client_id,
            "client_secret": "secret",
            "code_verifier": VERIFIER,
        } | changes
        async with self.http.post(f"{self.sim.api_url}/oauth2/token", data=form) as response:
            return response.status, await response.json()

    async def get(self, path: str, token: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.get(f"{self.sim.api_url}{path}", headers=headers) as response:
            return response.status, await response.json()


@pytest.fixture
async def login() -> AsyncIterator[Login]:
    clock = Clock()
    config = SimulatorConfig(bots=[BotConfig(token="bot", name="b", guilds=2)])
    async with Simulator(config, clock) as sim, aiohttp.ClientSession() as http:
        client_id = await sim.set_login(bot="b", secret="secret", redirect_uris=[BACK], user=USER)
        yield Login(sim, http, clock, client_id)


async def test_a_user_signs_in(login: Login) -> None:
    status, back = await login.authorize()
    assert (status, back["state"]) == (302, ["s"])
    status, token = await login.exchange(back["code"][0])
    assert (status, token["token_type"], token["scope"]) == (200, "Bearer", "guilds.members.read identify")
    assert (await login.get("/users/@me", token["access_token"]))[1]["id"] == USER


async def test_roles_are_those_of_the_member(login: Login) -> None:
    (guild, *_) = await login.sim.guild_ids("b")
    members = (await login.sim.guild_state("b", guild))["members"]
    some = members[0] if isinstance(members, list) else next(iter(members.values()))
    await login.sim.set_login(bot="b", secret="secret", redirect_uris=[BACK], user=some["user"]["id"])
    _, token = await login.exchange(await login.code())
    status, member = await login.get(f"/users/@me/guilds/{guild}/member", token["access_token"])
    assert (status, member["roles"]) == (200, some["roles"])
    assert (await login.get("/users/@me/guilds/1/member", token["access_token"]))[0] == 404


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "identify email"}, "invalid_scope"),
        ({"scope": ""}, "invalid_scope"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
    ],
)
async def test_a_wrong_request_is_sent_back_with_the_error(login: Login, changes: dict[str, str], error: str) -> None:
    assert await login.authorize(**changes) == (302, {"error": [error], "state": ["s"]})


@pytest.mark.parametrize("changes", [{"redirect_uri": BACK + "/"}, {"redirect_uri": ""}, {"client_id": "1"}])
async def test_an_address_that_is_not_registered_gets_nothing(login: Login, changes: dict[str, str]) -> None:
    assert await login.authorize(**changes) == (400, {})


async def test_a_user_may_decline(login: Login) -> None:
    await login.sim.set_login(bot="b", secret="secret", redirect_uris=[BACK], user="")
    assert (await login.authorize())[1]["error"] == ["access_denied"]


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"code_verifier": "w" * 43}, 400, "invalid_grant"),
        ({"code_verifier": ""}, 400, "invalid_grant"),
        ({"redirect_uri": BACK + "?"}, 400, "invalid_grant"),
        ({"client_secret": "other"}, 401, "invalid_client"),
        ({"grant_type": "refresh_token"}, 400, "unsupported_grant_type"),
    ],
)
async def test_a_wrong_exchange_is_refused(login: Login, changes: dict[str, str], status: int, error: str) -> None:
    found, body = await login.exchange(await login.code(), **changes)
    assert (found, body["error"]) == (status, error)


async def test_a_code_is_used_once_and_for_ten_minutes(login: Login) -> None:
    code = await login.code()
    assert (await login.exchange(code, code_verifier="w" * 43))[0] == 400
    assert (await login.exchange(code))[0] == 400
    late = await login.code()
    login.clock.mono += 601
    assert (await login.exchange(late))[1]["error"] == "invalid_grant"


async def test_a_token_does_what_its_scopes_say(login: Login) -> None:
    (guild, *_) = await login.sim.guild_ids("b")
    _, token = await login.exchange(await login.code(scope="identify"))
    assert (await login.get(f"/users/@me/guilds/{guild}/member", token["access_token"]))[0] == 401
    assert (await login.get("/users/@me", "forged"))[0] == 401
