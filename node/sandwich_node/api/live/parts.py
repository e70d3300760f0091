"""The parts behind the streams of the API, made once for a node."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.api.live.change_stream import ChangeStream
from sandwich_node.api.live.cluster_logs import ClusterLogs
from sandwich_node.api.live.discord_events import EventStreams
from sandwich_node.api.messaging import Messaging
from sandwich_node.api.picture import ClusterPicture
from sandwich_node.log_lines import LineHandler, LogRing


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveParts:
    """changes: of the cluster; logs: of all nodes; events: of applications, as they are published."""

    changes: ChangeStream
    logs: ClusterLogs
    events: EventStreams


@asynccontextmanager
async def open_live(
    node: str, ring: LogRing, facts: NodeFacts, picture: ClusterPicture, messaging: Messaging
) -> AsyncIterator[LiveParts]:
    """The parts of a node, at work while the context lasts. What it logs meanwhile is kept in `ring`."""
    handler = LineHandler(ring.add)
    logging.getLogger().addHandler(handler)
    async with aiohttp.ClientSession() as http:
        parts = LiveParts(
            changes=ChangeStream(facts, picture),
            logs=ClusterLogs(node, ring, facts, http),
            events=EventStreams(messaging),
        )
        working = [
            asyncio.create_task(parts.changes.run(), name="stream of changes"),
            asyncio.create_task(parts.logs.run(), name="stream of log lines"),
        ]
        try:
            yield parts
        finally:
            logging.getLogger().removeHandler(handler)
            parts.changes.close()
            parts.logs.close()
            for task in working:
                task.cancel()
            await asyncio.wait(working)
            await parts.events.close()
