"""A small cluster with one bot, the events of a consumer, and helpers for tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sandwich_coordinator.cli import render
from sandwich_node.dev.checker import DeliveryCheck
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_sdk import Consumer, Event
from tests.e2e.test_main_job import AT_ONCE_S, status, wait_until
from verification.cache_check.faults import settled

APP = "welcomer"
SHARDS = 2
ALL_INTENTS = 53608447


class ClusterFixture:
    """A running cluster. `events` are all received events, in order of arrival."""

    def __init__(self, cluster: DevCluster) -> None:
        self.cluster = cluster
        self.check = DeliveryCheck()
        self.events: list[Event] = []
        self.marks = 0
        self.before = (0, 0, 0)

    async def consume(self) -> None:
        async with Consumer(self.cluster.nats.url, app=APP, group="cluster_fixture", start="all") as consumer:
            async for event in consumer:
                self.events.append(event)
                if not event.id.startswith("own:"):
                    self.check.take(event.id)

    async def until(self, what: str, check: Callable[[], Awaitable[Any]], timeout_s: float = 60.0) -> Any:
        """See `wait_until`."""
        return await wait_until(self.cluster, what, check, timeout_s)

    async def live(self) -> None:
        """Wait until all shards are live and all owed events have arrived."""
        await self.until("all shards live", lambda: settled(self.cluster, SHARDS, spread=True))
        await self.until("everything has arrived", self.all_arrived)
        self.before = await self._spent()

    async def all_arrived(self) -> bool:
        """Whether all owed events have arrived; asserts that none arrived twice."""
        verdict = self.check.verdict(await self.cluster.owed(APP, self.check.sessions))
        assert not verdict.doubled
        return not verdict.lost

    async def complete(self) -> bool:
        """Whether the cluster reports that its cache has everything that happened before this call."""
        snapshot = await self.cluster.fresh_snapshot()
        return all(app["cache"] == "complete" for app in render.app_rows(snapshot))

    async def status(self) -> dict[str, Any]:
        """The output of `sandwich cluster status --json`."""
        return await status(self.cluster)

    async def spent(self) -> tuple[int, int, int]:
        """IDENTIFYs, RESUMEs and violations of Discord's rules since the shards were live."""
        identifies, resumes, violations = await self._spent()
        return identifies - self.before[0], resumes - self.before[1], violations - self.before[2]

    async def _spent(self) -> tuple[int, int, int]:
        (bot,) = (await self.cluster.simulator("stats"))["bots"].values()
        return bot["identifies"], bot["resumes_ok"] + bot["resumes_failed"], sum(bot["violations"].values())

    async def guild_ids(self) -> list[str]:
        return [str(guild) for guild in await self.cluster.simulator(f"guilds?bot={APP}")]

    async def guild(self, guild_id: str) -> dict[str, Any]:
        """The guild's state in the simulator."""
        return await self.cluster.simulator(f"guild?bot={APP}&guild_id={guild_id}")  # type: ignore[no-any-return]

    async def emit(self, event_type: str, data: Mapping[str, Any], guild_id: str) -> None:
        """Make the simulator send one event."""
        body = {"bot": APP, "t": event_type, "d": {"guild_id": guild_id, **data}, "guild_id": guild_id}
        await self.cluster.simulator("emit", body)

    async def set(self, *changes: str) -> None:
        """Run `sandwich app set`, which must succeed."""
        code, output = await self.cluster.run_cli("app", "set", APP, *changes)
        assert code == 0, output

    async def said(self, guild_id: str, content: str, **more: Any) -> None:
        """A user sends a message."""
        message = {"id": str(2**60 + self.marks), "channel_id": "7", "content": content, "author": AUTHOR, **more}
        self.marks += 1
        await self.emit("MESSAGE_CREATE", message, guild_id)

    async def after(self, guild_id: str, send: Callable[[], Awaitable[None]]) -> list[Event]:
        """The events of this guild that arrive after `send`, up to a marker event."""
        seen = len(self.events)
        mark = f"mark-{self.marks}"
        self.marks += 1
        await send()
        # No setting of these tests affects this type, and a shard's events are in order.
        await self.emit("WEBHOOKS_UPDATE", {"channel_id": mark}, guild_id)

        async def marked() -> bool:
            return any(e.type == "WEBHOOKS_UPDATE" and e.data["channel_id"] == mark for e in self.events[seen:])

        await self.until(f"{mark} of {guild_id}", marked)
        return [e for e in self.events[seen:] if e.type != "WEBHOOKS_UPDATE" and e.data.get("guild_id") == guild_id]

    async def takes_effect(self, guild_id: str, send: Callable[[], Awaitable[None]], *, arrives: bool) -> list[Event]:
        """Wait until events of `send` arrive, or no longer arrive; returns the events of the last try."""
        found: list[Event] = []

        async def tried() -> bool:
            nonlocal found
            found = await self.after(guild_id, send)
            return bool(found) == arrives

        await self.until(f"the setting takes effect in {guild_id}", tried, AT_ONCE_S)
        return found


AUTHOR = {"id": "5", "username": "ada", "discriminator": "0", "bot": False}


@asynccontextmanager
async def cluster_fixture(*, nodes: int = 2, guilds: int = 16, **settings: Any) -> AsyncIterator[ClusterFixture]:
    """A cluster with live shards and without traffic. `settings`: further keys of the application."""
    bot = DevBot(
        app=APP,
        token="MTAwMDAwMDAwMDAx.GaaaaX.welcomer",
        guilds=guilds,
        shards=SHARDS,
        recommended=SHARDS,
        settings=settings,
    )
    async with dev_cluster((bot,), nodes=nodes, rate=0.0) as cluster:
        running = ClusterFixture(cluster)
        consuming = asyncio.create_task(running.consume())
        try:
            await running.live()
            yield running
        finally:
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
