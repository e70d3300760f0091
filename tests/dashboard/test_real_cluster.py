"""The dashboard of a real cluster: node processes, etcd, NATS and Redis, the simulator as Discord, a real browser."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Locator, expect

from sandwich_coordinator.addresses import node_url
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from tests.dashboard.conftest import Visit, visit
from tests.e2e.test_live import TOKEN
from tests.e2e.test_main_job import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

WRONG = "MTAwMDAwMDAwMDAx.GaaaaX.a-token-that-was-reset-long-ago-00000"
RIGHT = "MTAwMDAwMDAwMDAx.GaaaaX.greeter-canary-9876543210-abcdefghij"
ALL_BUT_MEMBERS = 53608447 & ~(1 << 1)
BOT = DevBot(
    app="welcomer", token="MTAwMDAwMDAwMDAx.GaaaaX.welcomer", guilds=12, shards=6, recommended=6, max_concurrency=16
)


@asynccontextmanager
async def signed_in(browser: Browser, cluster: DevCluster, node: str = "a") -> AsyncIterator[Visit]:
    """A browser on a node's overview, signed in with the token that a node printed when the cluster began."""

    async def found() -> tuple[str, str] | None:
        printed = [text for child in cluster.nodes.values() for text in TOKEN.findall(child.log.read_text())]
        entries = (await cluster.snapshot()).view.nodes
        if not printed or entries.keys() < cluster.nodes.keys():
            return None
        return node_url(entries[node].record.address, ""), printed[0]

    url, token = await wait_until(cluster, "the nodes are there and one printed a token", found)
    async with visit(browser, url) as it:
        await it.open("/")
        await it.page.get_by_label("API token").fill(token)
        await it.click("Sign in")
        await it.page.get_by_role("link", name="Applications", exact=True).wait_for()
        yield it
        assert it.faults == []


async def is_all_live(cluster: DevCluster, shards: int) -> bool:
    """Whether this many shards are live, on more than one node."""
    claims = [entry.record for entry in (await cluster.snapshot()).view.claims.values()]
    states = [claim.state for claim in claims]
    return states == ["live"] * shards and len({claim.node for claim in claims}) > 1


def figure(it: Visit, label: str) -> Locator:
    """A figure at the head of a page, with its note."""
    return it.page.locator(".figure").filter(has_text=re.compile(f"^{label}"))


async def confirm(it: Visit, verb: str, *says: str) -> None:
    """Press the button of the question that is open, which says this."""
    dialog = it.page.get_by_role("dialog")
    for text in says:
        await expect(dialog).to_contain_text(text)
    await dialog.get_by_role("button", name=verb, exact=True).click()
    await expect(dialog).to_have_count(0)


async def scale(it: Visit, shards: int) -> None:
    """On the application's page: to this shard count, with the cost shown first."""
    section = it.page.locator("section", has=it.page.get_by_role("heading", name="Scale"))
    await section.get_by_label("Shard count").fill(str(shards))
    await section.get_by_role("button", name="See the cost…").click()
    await confirm(it, "Scale", f"→ {shards}", "Session starts")


async def test_from_an_empty_cluster_to_an_application_that_is_ready_and_scaled(browser: Browser) -> None:
    async with dev_cluster((), nodes=1, rate=0) as cluster, signed_in(browser, cluster) as it:
        page = it.page
        bot = {"token": RIGHT, "name": "greeter", "guilds": 12, "recommended_shards": 2, "max_concurrency": 2}
        await cluster.simulator("bots", bot)

        # An empty cluster begins clean, and says what to do first.
        await expect(page.get_by_role("heading", level=1)).to_have_text("All is well")
        await it.click("Add the first one")

        # A new application: its token is tested before anything is stored.
        await page.get_by_label("Name", exact=True).fill("greeter")
        await page.get_by_label("GUILD_MEMBERS").check()
        await page.get_by_label("Bot token").fill(WRONG)
        await it.click("Test the token")
        await expect(page.get_by_role("alert")).to_contain_text(re.compile("Discord.*(refuse|401)"))
        assert not (await cluster.snapshot()).view.apps
        await page.get_by_label("Bot token").fill(RIGHT)
        await it.click("Test the token")
        await expect(page.get_by_role("status").filter(has_text="Discord accepts the token")).to_contain_text("greeter")
        await it.click("Add greeter")

        # Its shard group becomes ready, on a page that is not reloaded.
        await expect(page.get_by_role("heading", level=1)).to_have_text("greeter")
        await page.evaluate("window.never = 'reloaded'")
        groups = page.get_by_role("region", name="Shard groups")
        await expect(groups.get_by_role("row").filter(has_text="active, serves")).to_have_count(1)
        await expect(figure(it, "Live shards")).to_contain_text("2of 2")
        await expect(figure(it, "Guilds")).to_contain_text("12")

        # An error when one occurs: the intent is taken away in Discord's portal, and Discord closes a shard.
        await cluster.simulator("bots", {"bot": "greeter", "allowed_intents": ALL_BUT_MEMBERS})
        await cluster.simulator("faults", {"kind": "close", "bot": "greeter", "shards": [1], "code": 4014})
        problem = page.get_by_role("listitem").filter(has_text="shards-failed").first
        await expect(problem).to_contain_text("GUILD_MEMBERS")
        await expect(problem).to_contain_text("What to do: ")
        parts = page.get_by_role("navigation", name="Parts of greeter")
        await parts.get_by_role("link", name="Settings").click()
        await page.get_by_label("GUILD_MEMBERS").uncheck()
        await it.click("Review changes…")
        await confirm(it, "Save and start new sessions", "intents", "Session starts")
        await parts.get_by_role("link", name="Status").click()
        await expect(problem).to_have_count(0)
        await expect(figure(it, "Live shards")).to_contain_text("2of 2")

        # Scaled: how far it is and how long it takes is shown until it is done. A second change is taken back.
        await scale(it, 4)
        note = page.locator(".note", has=page.get_by_role("meter", name="Shards that are done"))
        await expect(note).to_contain_text(re.compile(r"From group \d+ to group \d+"))
        await expect(figure(it, "Live shards")).to_contain_text("4of 4")
        await expect(note).to_have_count(0)
        await scale(it, 8)
        await note.get_by_role("button", name="Take it back…").click()
        await confirm(it, "Take it back", "the present ones go on")
        await expect(note).to_have_count(0)
        await expect(figure(it, "Live shards")).to_contain_text("4of 4")
        assert [entry.record.count for entry in (await cluster.snapshot()).view.groups.values()] == [4]

        # The status of all.
        await page.get_by_role("link", name="Overview", exact=True).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("All is well")
        row = page.get_by_role("region", name="Applications").get_by_role("row").filter(has_text="greeter")
        await expect(row).to_contain_text("live")
        assert await page.evaluate("window.never") == "reloaded"
        sent = await it.read()
        assert "greeter" in sent
        assert RIGHT not in sent
        assert RIGHT not in cluster.nodes["a"].log.read_text()


async def test_the_page_of_a_node_that_is_drained_shows_how_far_it_is_and_its_end(browser: Browser) -> None:
    async with dev_cluster((BOT,), nodes=0, rate=0) as cluster:
        # One of the drained node's three shards has no room until another node comes.
        await cluster.start_node("a", max_shards=5)
        await cluster.start_node("b", workers=2)
        async with signed_in(browser, cluster) as it:
            await wait_until(cluster, "all shards are live", lambda: is_all_live(cluster, 6))
            await it.page.get_by_role("link", name="Nodes", exact=True).click()
            await it.page.get_by_role("link", name="b", exact=True).first.click()
            await expect(figure(it, "Shards")).to_contain_text("3")
            await it.page.evaluate("window.never = 'reloaded'")
            await it.click("Drain…")
            dialog = it.page.get_by_role("dialog")
            await expect(dialog).to_contain_text("Its 3 shards move to the other nodes, sessions kept")
            await confirm(it, "Drain")
            await expect(it.page.locator(".note").filter(has_text="It drains: ")).to_contain_text("1 shard left")
            await cluster.start_node("c")
            await it.has("It is drained: it has no shards")
            await it.has("It runs no shards.")
            await expect(figure(it, "Shards")).to_contain_text("0")
            (stats,) = (await cluster.simulator("stats"))["bots"].values()
            assert stats["identifies"] == 6, "every shard moved by RESUME"
            await it.click("Uncordon…")
            await confirm(it, "Uncordon")
            await expect(figure(it, "Shards")).to_contain_text("2")
            assert await it.page.evaluate("window.never") == "reloaded"


async def test_the_page_of_a_killed_node_says_so_and_goes_on_when_a_node_listens_there_again(browser: Browser) -> None:
    async with dev_cluster((BOT,), nodes=2, rate=0) as cluster, signed_in(browser, cluster) as it:
        await wait_until(cluster, "all shards are live", lambda: is_all_live(cluster, 6))
        await it.page.evaluate("window.never = 'reloaded'")
        await expect(figure(it, "Live shards")).to_contain_text("6of 6")
        health = it.page.locator(".where .state")
        await expect(health).to_have_text("healthy")

        cluster.nodes["a"].signal(signal.SIGKILL)
        async with asyncio.timeout(30):
            await cluster.nodes["a"].process.wait()
        await it.has("No connection to this node.")
        await expect(health).to_have_text("not known")
        # What was read stays, and what happens meanwhile is shown later.
        await expect(figure(it, "Live shards")).to_contain_text("6of 6")
        assert (await cluster.run_cli("node", "cordon", "b"))[0] == 0

        await cluster.start_node("a", listen=it.url.removeprefix("http://"))
        await expect(it.page.get_by_text("No connection to this node.")).to_have_count(0)
        nodes = it.page.get_by_role("region", name="Nodes")
        await expect(nodes.get_by_role("row").filter(has_text="cordoned")).to_have_count(1)
        await expect(figure(it, "Live shards")).to_contain_text("6of 6")
        await expect(health).not_to_have_text("not known")
        assert await it.page.evaluate("window.never") == "reloaded"
