"""An operator adds an application, pauses and resumes it, gives it a new token, and removes it, with real processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import nats
import nats.js.errors
import pytest
import redis.asyncio as redis

from sandwich_coordinator.cli import render
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_sdk import Consumer
from sandwich_sdk.wire.cache_keys import locations_key
from tests.e2e.test_main_job import wait_until

pytestmark = pytest.mark.e2e

MUSIC = DevBot(
    app="music",
    token="MTAwMDAwMDAwMDAx.GaaaaX.music",
    guilds=12,
    shards=2,
    recommended=2,
    settings={"cache": {"namespace": "shared"}},
    world={"world": "together"},
)
TOKEN = "MTAwMDAwMDAwMDAz.GccccX.greeter"
NEW_TOKEN = "MTAwMDAwMDAwMDAz.GddddX.greeter"


class Lifecycle:
    """A cluster with one application, and a second bot that Discord knows."""

    def __init__(self, cluster: DevCluster) -> None:
        self.cluster = cluster

    async def run(self, *arguments: str, code: int = 0) -> str:
        """The output of a command, which must end with `code`."""
        ended, output = await self.cluster.run_cli(*arguments)
        assert ended == code, output
        return output

    async def live(self, app: str, shards: int) -> None:
        async def is_live() -> bool:
            rows = render.shard_rows(await self.cluster.snapshot(), app)
            return [row["state"] for row in rows] == ["live"] * shards

        await wait_until(self.cluster, f"{app} is live", is_live)

    async def stats(self, name: str) -> tuple[int, int]:
        """IDENTIFYs and RESUMEs of a bot."""
        bots = (await self.cluster.simulator("stats"))["bots"]
        (bot,) = (bot for bot in bots.values() if bot["name"] == name)
        return bot["identifies"], bot["resumes_ok"]

    async def cached(self, app: str, guilds: int) -> None:
        """Wait until so many guilds of the application are in the cache."""
        client = redis.Redis.from_url(self.cluster.redis.url)

        async def is_so() -> bool:
            return int(await client.hlen(locations_key("shared", app))) == guilds

        try:
            await wait_until(self.cluster, f"{guilds} guilds of {app} in the cache", is_so)
        finally:
            await client.aclose()

    async def messages(self, stream: str) -> int | None:
        """How many messages a stream has; None: it is not there."""
        client = await nats.connect(self.cluster.nats.url)
        try:
            return int((await client.jetstream().stream_info(stream)).state.messages)
        except nats.js.errors.NotFoundError:
            return None
        finally:
            await client.close()


@asynccontextmanager
async def lifecycle() -> AsyncIterator[Lifecycle]:
    async with dev_cluster((MUSIC,), nodes=2, rate=0.0) as cluster:
        bot = {"token": TOKEN, "name": "greeter", "guilds": 12, "recommended_shards": 2, "max_concurrency": 2}
        await cluster.simulator("bots", {**bot, "world": "together"})
        cluster.env |= {"GREETER_TOKEN": TOKEN, "NEW_TOKEN": NEW_TOKEN}
        found = Lifecycle(cluster)
        await found.live("music", 2)
        yield found


@pytest.mark.long
async def test_an_application_lives_from_add_to_remove_and_leaves_nothing_but_what_was_chosen() -> None:
    async with lifecycle() as life:
        said = await life.run(
            "app", "add", "greeter", "--token-env", "GREETER_TOKEN", "--intents", "GUILDS,GUILD_MESSAGES",
            "--shards", "2", "cache.namespace=shared",
        )  # fmt: skip
        assert "token of bot greeter (" in said
        await life.live("greeter", 2)
        await life.cached("greeter", 12)
        identifies, resumes = await life.stats("greeter")

        said = await life.run("app", "pause", "greeter")
        assert "greeter is paused: 2 shards to close, 2 sessions kept" in said
        assert "paused for" in await life.run("app", "list")
        await life.run("cluster", "apply", "-f", str(life.cluster.directory / "cluster.yml"))
        assert "is paused already" in await life.run("app", "pause", "greeter")
        said = await life.run("app", "resume", "greeter")
        assert "2 sessions continued, 0 new sessions" in said
        assert await life.stats("greeter") == (identifies, resumes + 2)

        await life.cluster.simulator("bots", {"bot": "greeter", "token": NEW_TOKEN})
        assert "Discord refused the token" in await life.run(
            "app", "set", "greeter", "--token-env", "GREETER_TOKEN", code=1
        )
        assert "token: changed" in await life.run("app", "set", "greeter", "--token-env", "NEW_TOKEN", "--yes")

        async def identified() -> bool:
            return (await life.stats("greeter"))[0] == identifies + 2

        await wait_until(life.cluster, "sessions of the new token", identified)
        await life.live("greeter", 2)

        reading = asyncio.create_task(consume(life.cluster.nats.url))
        try:
            remove = ("app", "remove", "greeter", "--yes", "greeter", "--delete-stream")

            async def refused() -> bool:
                code, output = await life.cluster.run_cli(*remove, "--dry-run")
                assert "12 guilds in namespace shared, shared with music, which keep theirs" in output
                return code == 1 and "consumers still read greeter: readers (lag" in output

            await wait_until(life.cluster, "the consumer is noticed", refused)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert "that is not greeter" in await life.run("app", "remove", "greeter", "--yes", "music", "--force", code=1)

        assert "after 0 s" in await life.run(*remove, "--force", "--timeout", "0", code=1)
        await life.run("app", "resume", "greeter", code=1)
        done = await life.run("app", "remove", "greeter", "--yes", "greeter", "--json")
        assert '"deleted_stream": true' in done, "as it was begun"

        assert [row["app"] for row in msgspec.json.decode(await life.run("app", "list", "--json"))] == ["music"]
        await life.cached("greeter", 0)
        await life.cached("music", 12)
        for stream in ("SANDWICH_greeter", "SANDWICH-DEAD_greeter", "SANDWICH-TRIES_greeter"):
            assert await life.messages(stream) is None
        await life.live("music", 2)
        assert "there is no application greeter" in await life.run("app", "remove", "greeter", "--yes", "x", code=1)

        await life.run("app", "remove", "music", "--yes", "music", "--keep-cache")
        await life.cached("music", 12)
        assert await life.messages("SANDWICH_music")


async def consume(url: str) -> None:
    async with Consumer(url, app="greeter", group="readers", start="all") as consumer:
        async for _ in consumer:
            await asyncio.sleep(0)
