"""What a leader does when Discord's `GET /gateway/bot` answers 429, 500 or 401. Time is virtual."""

import asyncio

import pytest

from sandwich_coordinator.discord_api import DiscordApiError, DiscordUnavailable, RateLimited, TokenRefused
from sandwich_coordinator.ids import GroupId, LeaderTerm
from sandwich_coordinator.plans import LeaderWrite, together
from sandwich_coordinator.policy import Policy
from sandwich_coordinator.store.base import Compare, Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.store.mirror import Mirror
from sandwich_coordinator.types import AppRecord, BudgetRecord, NodeRecord
from sandwich_coordinator.view import ClusterView
from sandwich_node.agent.leader_loop import LeaderLoop
from sandwich_node.agent.membership import Membership
from verification.simulation.loop import run_virtual, wall_s

KEYS = Keys()
APP = AppRecord(app="bot", token="sealed", token_hash="h", intents=1)


class Office:
    """A node that leads a cluster of one application; Discord answers it with `answers`, then as documented."""

    def __init__(self, answers: list[DiscordApiError]) -> None:
        self.view: ClusterView | None = None
        self.asked_at: list[float] = []
        self._answers = answers
        self.store = MemoryStore()
        own = NodeRecord(node="a", instance="1", address="h:1", version="1")
        self._membership = Membership(self.store, KEYS, own, ttl_s=3600, on_change=lambda: None)
        self.leading = LeaderLoop(
            self.store,
            self._membership,
            view=lambda: self.view,
            look_up=self._look_up,
            relocate=lambda switches, view, now: frozenset(),
            policy=Policy(),
            wall=wall_s,
        )

    async def _look_up(self, app: str) -> BudgetRecord:
        self.asked_at.append(asyncio.get_running_loop().time())
        if self._answers:
            raise self._answers.pop(0)
        return BudgetRecord(
            url="u", shards=2, total=9, remaining=9, reset_at=9e9, max_concurrency=1, fetched_at=wall_s()
        )

    def group(self) -> tuple[str, str]:
        """State and reason of the application's group."""
        assert self.view is not None
        record = self.view.groups[GroupId("bot", 0)].record
        return record.state, record.reason

    async def run(self, seconds: float) -> None:
        """Lead for so long."""
        await self.store.txn([], [Put(KEYS.app("bot"), APP.encode())])
        mirror = Mirror(self.store, KEYS.prefix)

        def follow(batch: object) -> None:
            self.view = ClusterView.from_items(KEYS, mirror.items, mirror.revision)
            self.leading.changed()

        mirror.listen(follow)
        await self._membership.join(lambda _: None)
        async with asyncio.timeout(None) as until:
            until.reschedule(asyncio.get_running_loop().time() + seconds)
            await asyncio.gather(mirror.run(), self.leading.run())

    def lead(self, seconds: float) -> None:
        """The same on virtual time."""

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await self.run(seconds)

        run_virtual(main())


@pytest.mark.parametrize("stale", [False, True])
def test_plans_that_leave_together_do_not_wait_for_one_that_is_refused(stale: bool) -> None:
    office = Office([])

    def write(key: str, revision: int) -> LeaderWrite:
        return LeaderWrite((Compare(key, "mod_revision", revision),), (Put(key, b"plan"),), key)

    async def main() -> None:
        writes = [write("/a", 0), write("/b", 7 if stale else 0), write("/c", 0)]
        assert len(list(together(writes))) == 1
        assert await office.leading._write_all(writes, LeaderTerm(1)) is not stale
        made = {name for name in ("/a", "/b", "/c") if await office.store.get(name) is not None}
        assert made == {"/a", "/c"} | ({"/b"} if not stale else set())

    run_virtual(main())


def test_a_rate_limit_is_waited_out_for_as_long_as_discord_says() -> None:
    office = Office([RateLimited(90.0), DiscordUnavailable("500")])
    office.lead(200.0)
    first, second, third = office.asked_at
    assert 90 <= second - first < 91
    assert 3 < third - second < 5, "an error of the server's is tried again after a moment"
    assert office.group()[0] == "starting"


def test_what_discord_answers_is_the_reason_why_the_group_waits() -> None:
    office = Office([DiscordUnavailable("Discord answered 500")] * 99)
    office.lead(120.0)
    state, reason = office.group()
    assert (state, "Discord answered 500" in reason) == ("waiting", True)
    assert len(office.asked_at) < 8


def test_a_refused_token_is_not_asked_about_again_and_again() -> None:
    office = Office([TokenRefused("401")] * 99)
    office.lead(600.0)
    assert office.group()[0] == "failed"
    assert len(office.asked_at) == 1
