"""The streams of the API: the parts behind them, and a reader of server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from sandwich_coordinator.sealing import ClusterKey
from sandwich_node.api.live.change_stream import ChangeStream
from sandwich_node.api.live.cluster_logs import ClusterLogs
from sandwich_node.api.live.discord_events import EventStreams
from sandwich_node.api.live.parts import LiveParts
from sandwich_node.api.messaging import Messaging
from sandwich_node.log_lines import LogRing
from tests.support.api import Api, FixedPicture, StoredFacts

FAST_S = 0.01


@asynccontextmanager
async def live_parts(
    facts: StoredFacts,
    *,
    ring: LogRing | None = None,
    node: str = "a",
    readers_max: int = 200,
    key: ClusterKey | None = None,
    read_per_s: float = 1e6,
    sent_per_s: float = 1e6,
) -> AsyncIterator[LiveParts]:
    """The parts of node `node`, which look often."""
    messaging = Messaging(facts.settings, key)
    async with aiohttp.ClientSession() as http:
        parts = LiveParts(
            changes=ChangeStream(facts, FixedPicture(), readers_max=readers_max, look_s=FAST_S),  # type: ignore[arg-type]
            logs=ClusterLogs(node, ring or LogRing(), facts, http, poll_s=FAST_S),
            events=EventStreams(messaging, read_per_s=read_per_s, sent_per_s=sent_per_s),
        )
        working = [asyncio.create_task(parts.changes.run()), asyncio.create_task(parts.logs.run())]
        try:
            yield parts
        finally:
            for task in working:
                task.cancel()
            await asyncio.wait(working)
            await parts.events.close()
            await messaging.close()


@asynccontextmanager
async def reading_of(api: Api, path: str, **headers: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The events of one reader."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    async with api.http.get(f"/api/v1{path}", headers=named) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield _events(response)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    found: dict[str, Any] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line == "" and "event" in found:
            yield found
            found = {}
        elif ": " in line and not line.startswith(":"):
            name, _, text = line.partition(": ")
            found[name] = json.loads(text) if name == "data" else text


async def next_of(events: AsyncIterator[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The next event of this kind."""
    async with asyncio.timeout(20):
        async for event in events:
            if event["event"] == kind:
                return event
    raise AssertionError("the stream ended")
