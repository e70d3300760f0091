"""Awaits what a cache feed gives to a callback."""

import asyncio
from collections.abc import Mapping

from sandwich_node.cache.batch import EventOps
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.cache.replies import Extra


async def applied(
    feed: CacheFeed, session: str, confirmed: int, events: tuple[EventOps, ...], *, starts_session: bool = False
) -> Mapping[int, Extra] | None:
    """The extras of the events by sequence; None: the cache does not have the events yet."""
    answer: asyncio.Future[Mapping[int, Extra] | None] = asyncio.get_running_loop().create_future()
    feed.begin(session, confirmed, events, starts_session=starts_session, on_applied=answer.set_result)
    return await answer
