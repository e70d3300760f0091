"""Sessions in a browser against a node's real access checks, and the simulator's OAuth2."""

import pytest
from playwright.async_api import Browser, expect

from sandwich_coordinator.config import LOGIN_SECRET, DiscordLoginSettings
from sandwich_coordinator.operations.access import set_user
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.types import NodeRecord
from sandwich_node.dashboard.serving import add_dashboard
from sandwich_simulator.config import BotConfig, SimulatorConfig
from sandwich_simulator.simulator import Simulator
from tests.dashboard.conftest import visit
from tests.support.access import KEY, Node, a_node
from tests.support.api import KEYS

pytestmark = pytest.mark.asyncio(loop_scope="module")
USER = "613425648685547541"
SECRET = "the client's secret"


async def add_a_node(node: Node) -> None:
    record = NodeRecord(node="alpha", instance="i", address="10.0.0.1:5469", version="1")
    lease = await node.store.grant(600)
    await node.store.txn((), [Put(KEYS.node("alpha"), record.encode(), lease)])
    await node.facts.refresh()


async def test_signing_in_with_discord_changing_something_and_signing_out(browser: Browser) -> None:
    config = SimulatorConfig(bots=[BotConfig(token="bot", name="b", guilds=1)])
    async with Simulator(config) as sim, a_node(also=add_dashboard) as node, visit(browser, node.url) as it:
        await add_a_node(node)
        client_id = await sim.set_login(bot="b", secret=SECRET, redirect_uris=[f"{node.url}/auth/callback"], user=USER)
        login = DiscordLoginSettings(client_id=client_id, client_secret=KEY.seal(LOGIN_SECRET, SECRET), guilds={})
        await node.use(api_url=sim.api_url, public_url=node.url, discord_login=login)
        await set_user(node.store, KEYS, KEY, user=USER, role="operator", now=node.wall)
        await node.facts.refresh()

        await it.open("/nodes/alpha")
        await it.has("Sign in with Discord")
        # The page has only asked whether that is possible.
        assert await it.page.context.cookies() == []
        await it.click("Sign in with Discord")
        # At the address that was asked for, with a cookie that no script can read.
        await expect(it.page.get_by_role("heading", level=1)).to_have_text("alpha")
        assert await it.page.evaluate("document.cookie + JSON.stringify({...sessionStorage, ...localStorage})") == "{}"
        await it.click("Cordon…")
        await it.page.get_by_role("dialog").get_by_role("button", name="Cordon").click()
        await expect(it.page.get_by_role("button", name="Uncordon…")).to_be_visible()
        assert node.facts.view() is not None

        cookies = {one["name"]: one["value"] for one in await it.page.context.cookies()}
        await it.click("Sign out")
        await it.has("Sign in to this cluster.")
        status, _ = await node.ask("GET", "/api/v1/me", Cookie="; ".join(f"{k}={v}" for k, v in cookies.items()))
        assert status == 401


@pytest.mark.parametrize("role", ["viewer", "admin"])
async def test_signing_in_with_a_real_token_without_the_stream_of_changes(browser: Browser, role: str) -> None:
    async with a_node(also=add_dashboard) as node, visit(browser, node.url) as it:
        await add_a_node(node)
        token = await node.token("night", "viewer" if role == "viewer" else "admin")
        await it.open("/nodes/alpha")
        assert await it.page.get_by_role("link", name="Sign in with Discord").count() == 0
        await it.page.get_by_label("API token").fill(token[:-1] + ("A" if token[-1] != "A" else "B"))
        await it.click("Sign in")
        await it.has("the API token is not known")
        await it.page.get_by_label("API token").fill(token)
        await it.click("Sign in")
        await expect(it.page.get_by_role("heading", level=1)).to_have_text("alpha")
        await it.has("10.0.0.1:5469")
        await expect(it.page.get_by_role("button", name="Drain…")).to_have_count(1 if role == "admin" else 0)
        # A reload keeps the session of this tab.
        await it.open("/nodes/alpha")
        await expect(it.page.get_by_role("heading", level=1)).to_have_text("alpha")
        assert it.faults == []
