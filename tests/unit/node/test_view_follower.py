"""How a node follows the store: a single change at once, many changes together. Time is virtual."""

import asyncio
import random
from itertools import pairwise

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import SessionRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.view_following import GATHER_S, ViewFollower
from verification.simulation.loop import run_virtual

KEYS = Keys()
SESSION = SessionRecord(session_id="s", resume_url="u", intents=1, count=4, first_seq=1, token_hash="h").encode()


def test_a_single_change_is_seen_at_once_and_many_are_taken_together_in_a_moment() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = MemoryStore(loop.time)
        seen: list[tuple[float, ClusterView | None, ClusterView]] = []
        follower = ViewFollower(
            store, KEYS, rng=random.Random(1), on_change=lambda before, after: seen.append((loop.time(), before, after))
        )
        task = asyncio.create_task(follower.run())
        await asyncio.sleep(1)
        for pause_s, count in ((0.0, 1), (1.0, 1), (1.0, 50)):
            await asyncio.sleep(pause_s)
            began, known = loop.time(), len(seen)
            for number in range(count):
                await store.txn([], [Put(KEYS.session("bot", 0, number), SESSION)])
                await asyncio.sleep(0.001)
            await asyncio.sleep(2 * GATHER_S)
            assert seen[known][0] - began < 0.001
            assert len(seen) - known <= 1 + count * 0.001 / GATHER_S + 1
        view = follower.view()
        assert view is not None
        assert view.sessions.keys() == {ShardId("bot", 0, number) for number in range(50)}
        assert all(before is earlier for (_, _, earlier), (_, before, _) in pairwise(seen))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtual(main())


def test_nothing_follows_after_the_end() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = MemoryStore(loop.time)
        seen: list[ClusterView] = []
        follower = ViewFollower(store, KEYS, rng=random.Random(1), on_change=lambda _, after: seen.append(after))
        task = asyncio.create_task(follower.run())
        await asyncio.sleep(1)
        for number in range(3):
            await store.txn([], [Put(KEYS.session("bot", 0, number), SESSION)])
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        known = len(seen)
        await asyncio.sleep(1)
        assert len(seen) == known

    run_virtual(main())
