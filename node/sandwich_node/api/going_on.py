"""Changes that this node goes on with after their request has its answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sandwich_node.api.problem_details import EXPECTED

_log = logging.getLogger(__name__)

CHANGES_MAX = 20


class GoingOn:
    """At most one change for each name. What a node that ends leaves is stored: the same request goes on with it."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def names(self) -> frozenset[str]:
        """What it goes on with."""
        return frozenset(self._tasks)

    def begin(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Go on with `work`. Its failure is logged. Beyond CHANGES_MAX it is left to the next request."""
        if name in self._tasks:
            return
        if len(self._tasks) >= CHANGES_MAX:
            _log.warning("%s goes on with the next request: this node goes on with %d others", name, CHANGES_MAX)
            return
        task = asyncio.create_task(_carry_out(name, work), name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def end(self, name: str) -> bool:
        """Stop going on with it: a request does so now. Returns whether there was one."""
        task = self._tasks.get(name)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait({task})
        return True

    async def close(self) -> None:
        """Stop all."""
        for name in list(self._tasks):
            await self.end(name)


async def _carry_out(name: str, work: Callable[[], Awaitable[object]]) -> None:
    try:
        await work()
    except EXPECTED as error:
        _log.warning("%s goes on no longer: %s", name, error)
    except Exception:
        _log.exception("%s goes on no longer", name)
    else:
        _log.info("%s: done", name)
