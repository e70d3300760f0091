"""The parts behind the streams of the API, made once for a node."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.api.live.change_stream import ChangeStream
from sandwich_node.api.picture import ClusterPicture


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveParts:
    """changes: of the cluster."""

    changes: ChangeStream


@asynccontextmanager
async def open_live(facts: NodeFacts, picture: ClusterPicture) -> AsyncIterator[LiveParts]:
    """The parts, at work while the context lasts."""
    changes = ChangeStream(facts, picture)
    working = asyncio.create_task(changes.run(), name="stream of changes")
    try:
        yield LiveParts(changes=changes)
    finally:
        changes.close()
        working.cancel()
        await asyncio.wait([working])
