"""Signing in with Discord, against the simulator's OAuth2."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import pytest

from sandwich_coordinator.config import LOGIN_SECRET, DiscordLoginSettings
from sandwich_coordinator.operations.access import set_user
from sandwich_coordinator.operations.audit import read_entries
from sandwich_node.api.signing_in import ATTEMPTS, _next, _quoted
from sandwich_simulator.config import BotConfig, SimulatorConfig
from sandwich_simulator.simulator import Simulator
from tests.support.access import KEY, Node, a_node
from tests.support.api import KEYS

USER = "613425648685547541"
PUBLIC = "https://sandwich.example.com"
SECRET = "the client's secret"


@dataclass
class Browser:
    """A browser that follows the pages of one node, and keeps its cookies."""

    node: Node
    sim: Simulator
    client_id: str
    guild: str
    cookies: dict[str, str]

    async def get(self, url: str) -> tuple[int, str]:
        """Status and Location."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        async with self.node.http.get(url, headers=headers, allow_redirects=False) as response:
            for name, morsel in response.cookies.items():
                assert morsel["httponly"]
                assert morsel["secure"]
                assert (morsel["samesite"], morsel["path"], morsel["domain"]) == ("Lax", "/", "")
                self.cookies[name] = morsel.value
            return response.status, response.headers.get("Location", "")

    def at_node(self, location: str) -> str:
        """The address of a page that the browser was sent to, on the port of the test."""
        assert location.startswith(PUBLIC)
        return self.node.url + location.removeprefix(PUBLIC)

    async def begin(self, query: str = "") -> str:
        """Begin a sign-in; where Discord sends the browser back to."""
        status, location = await self.get(f"{self.node.url}/auth/login{query}")
        assert status == 302
        status, back = await self.get(location)
        assert status == 302
        return self.at_node(back)

    async def sign_in(self, query: str = "") -> tuple[int, str]:
        return await self.get(await self.begin(query))

    async def agree_as(self, user: str) -> None:
        uris = [f"{PUBLIC}/auth/callback"]
        await self.sim.set_login(bot="b", secret=SECRET, redirect_uris=uris, user=user)

    async def me(self) -> int:
        cookie = f"__Host-sandwich={self.cookies.get('__Host-sandwich', '')}"
        return (await self.node.ask("GET", "/api/v1/me", Cookie=cookie))[0]


@asynccontextmanager
async def a_browser(role: str = "") -> AsyncIterator[Browser]:
    """A browser; with `role`, that role of the guild is mapped to operator."""
    config = SimulatorConfig(bots=[BotConfig(token="bot", name="b", guilds=1)])
    async with Simulator(config) as sim, a_node() as node:
        client_id = await sim.set_login(bot="b", secret=SECRET, redirect_uris=[f"{PUBLIC}/auth/callback"], user=USER)
        (guild,) = await sim.guild_ids("b")
        login = DiscordLoginSettings(
            client_id=client_id,
            client_secret=KEY.seal(LOGIN_SECRET, SECRET),
            guilds={guild: {role: "operator"}} if role else {},
        )
        await node.use(api_url=sim.api_url, public_url=PUBLIC, discord_login=login)
        yield Browser(node, sim, client_id, guild, {})


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as browser:
        yield browser


async def let_in(browser: Browser) -> None:
    await set_user(browser.node.store, KEYS, KEY, user=USER, role="viewer", now=browser.node.wall)
    await browser.node.facts.refresh()


async def test_a_user_signs_in_and_goes_where_they_wanted(browser: Browser) -> None:
    await let_in(browser)
    assert await browser.sign_in("?next=/nodes?x=1") == (302, "/nodes?x=1")
    assert await browser.me() == 200
    (entry,) = await read_entries(browser.node.store, KEYS)
    assert (entry.who, entry.what, entry.result, entry.client) == (f"user:{USER}", "sign-in", "done", "127.0.0.1")


async def test_a_stranger_is_refused_and_recorded(browser: Browser) -> None:
    assert (await browser.sign_in())[0] == 403
    assert "__Host-sandwich" not in browser.cookies
    (entry,) = await read_entries(browser.node.store, KEYS)
    assert (entry.who, entry.what, entry.result) == (f"user:{USER}", "sign-in", "forbidden")


async def test_a_role_of_the_guild_lets_in() -> None:
    async with a_browser() as found:
        members = (await found.sim.guild_state("b", found.guild))["members"]
        some = members[0] if isinstance(members, list) else next(iter(members.values()))
        user, roles = some["user"]["id"], some["roles"]
    async with a_browser(role=roles[0]) as browser:
        await browser.agree_as(user)
        assert (await browser.sign_in())[0] == 302
        assert await browser.me() == 200
        # The mapping is looked up at each request.
        await browser.node.use(api_url=browser.sim.api_url, public_url=PUBLIC)
        assert await browser.me() == 401


async def test_what_was_not_begun_here_is_refused(browser: Browser) -> None:
    await let_in(browser)
    back = await browser.begin()
    kept = browser.cookies.pop("__Host-sandwich-login")
    assert (await browser.get(back))[0] == 403
    browser.cookies["__Host-sandwich-login"] = kept
    state = parse_qs(urlsplit(back).query)["state"][0]
    for other in (back.replace(state, "x"), back.replace(f"state={state}", ""), back.split("?")[0]):
        assert (await browser.get(other))[0] == 403
    # The verifier is another one: Discord refuses the code.
    browser.cookies["__Host-sandwich-login"] = f"{state}.{'x' * 64}."
    assert (await browser.get(back))[0] == 403
    assert "__Host-sandwich" not in browser.cookies


async def test_a_code_is_used_once(browser: Browser) -> None:
    await let_in(browser)
    back = await browser.begin()
    kept = dict(browser.cookies)
    assert (await browser.get(back))[0] == 302
    browser.cookies = kept
    assert (await browser.get(back))[0] == 403


async def test_who_declines_is_refused(browser: Browser) -> None:
    await browser.agree_as("")
    assert (await browser.sign_in())[0] == 403


async def test_discord_may_be_away(browser: Browser) -> None:
    await let_in(browser)
    back = await browser.begin()
    await browser.sim.fault("http_status", status=500, seconds=60, path="/users/@me")
    assert (await browser.get(back))[0] == 503


async def test_sign_ins_are_limited_by_address(browser: Browser) -> None:
    found = [(await browser.get(f"{browser.node.url}/auth/login"))[0] for _ in range(ATTEMPTS + 1)]
    assert found == [302] * ATTEMPTS + [429]


async def test_without_configuration_there_is_no_sign_in() -> None:
    async with a_node() as node:
        assert (await node.ask("GET", "/auth/login"))[0] == 404


@pytest.mark.parametrize(
    ("wanted", "goes_to"),
    [
        ("/nodes?a=1&b=2", "/nodes?a=1&b=2"),
        (None, "/"),
        ("", "/"),
        ("nodes", "/"),
        ("//stranger.example", "/"),
        ("/\\stranger.example", "/"),
        ("https://stranger.example", "/"),
        ("/a\r\nSet-Cookie: x", "/"),
        ("/é", "/"),
    ],
)
def test_a_sign_in_ends_on_this_site(wanted: str | None, goes_to: str) -> None:
    assert _next(_quoted(wanted)) == goes_to
