"""Waits until the cluster has done what an operation stored."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from sandwich_coordinator.operations.errors import NotReached
from sandwich_coordinator.operations.progress import Reached, Remaining, Report, StoreSilent
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.store.base import Store, StoreUnavailable
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.view import ClusterView

POLL_S = 0.2


async def read_view(store: Store, keys: Keys) -> ClusterView:
    """Everything the cluster has stored, at one revision."""
    listing = await store.list(keys.prefix)
    return ClusterView.from_items(keys, {item.key: item for item in listing.items}, listing.revision)


async def views(store: Store, keys: Keys, *, timeout_s: float, report: Report) -> AsyncIterator[ClusterView]:
    """What the cluster has stored, again and again, for `timeout_s`; a store that does not answer is reported."""
    clock = asyncio.get_running_loop().time
    ends_at = clock() + timeout_s
    while True:
        try:
            view = await read_view(store, keys)
        except StoreUnavailable as error:
            report(StoreSilent(str(error)))
        else:
            yield view
        if clock() >= ends_at:
            return
        await asyncio.sleep(min(POLL_S, ends_at - clock()))


async def await_shards(
    store: Store,
    keys: Keys,
    app: str,
    left_of: Callable[[ClusterView], Sequence[int] | None],
    goal: str,
    *,
    timeout_s: float,
    report: Report,
    noun: str = "shards",
) -> ClusterView:
    """Wait until `left_of` names no shard (or what `noun` says) of the application any more; returns that view.

    `left_of` returns None while the shards are not known yet, and may raise NotReached. Raises NotReached after
    `timeout_s`.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    left: Sequence[int] | None = None
    reported: int | None = None
    async for view in views(store, keys, timeout_s=timeout_s, report=report):
        left = left_of(view)
        if left is not None and not left:
            report(Reached(goal if noun == "shards" else f"{noun} {goal}", clock() - began))
            return view
        if left is not None and len(left) != reported:
            reported = len(left)
            report(Remaining(reported))
    which = f"{noun} {format_ranges(left)} of {app}" if left else f"the {noun} of {app}"
    raise NotReached(f"{which} are not {goal} after {round(timeout_s, 1):g} s; the request stays stored")
