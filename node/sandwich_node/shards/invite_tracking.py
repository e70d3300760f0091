"""Invite tracking of one running shard: attaches the lookup to the shard's events, and follows the configuration."""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Mapping

import msgspec

from sandwich_coordinator.ids import Fence
from sandwich_coordinator.types import InvitesSpec
from sandwich_node import ipc
from sandwich_node.cache.errors import CacheError
from sandwich_node.cache.redis_store import RedisCache
from sandwich_node.gateway.effects import State
from sandwich_node.invites.lookup import InviteLookup, LookupCounters, MemberInvited
from sandwich_node.invites.redis_counts import RedisCounts
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.publishing.own_events import own_event
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.rest.clients import RestClients
from sandwich_node.secret import Secret
from sandwich_node.shards.intake import ShardIntake
from sandwich_sdk.wire.frame import session_hash

_log = logging.getLogger(__name__)

MEMBER_INVITED = "SANDWICH_MEMBER_INVITED"
"""The type of an own event: the invite, where it was not known yet when its GUILD_MEMBER_ADD left."""
TAKE_OVER_BUDGET_S = 0.25


class _LateAnswer(msgspec.Struct, frozen=True):
    guild_id: str
    user_id: str
    invited_by: msgspec.Raw


class ShardInviteTracking:
    """Owned by the shard's features. `lookup` is the latest one; it observes events only while tracking is on."""

    def __init__(
        self,
        start: ipc.StartShard,
        rests: RestClients,
        cache: RedisCache | None,
        intake: ShardIntake,
        publisher: ShardPublisher,
        group: asyncio.TaskGroup,
    ) -> None:
        self.lookup: InviteLookup | None = None
        self._observing: InviteLookup | None = None
        self._start = start
        self._rests = rests
        self._store = _counts_of(start, cache) if cache is not None else None
        self._intake = intake
        self._publisher = publisher
        self._group = group
        self._state = State.NEW
        self._counters = LookupCounters(Counter())
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, spec: InvitesSpec, before: Checkpoint | None) -> None:
        """Begin, before the first event. `before`: the chain's checkpoint at the take-over; None: nothing is kept."""
        if spec.track:
            resumes = before is not None and bool(self._intake.session_id) and not before.behind
            self._observe(spec, await self._take_over(before.fence) if before is not None and resumes else None)

    async def _take_over(self, fence: Fence) -> Mapping[str, bytes] | None:
        if self._store is None:
            return None
        try:
            async with asyncio.timeout(TAKE_OVER_BUDGET_S):
                return await self._store.take_over(fence)
        except (CacheError, TimeoutError) as error:
            _log.warning(
                "the invite counts of shard %s could not be taken over: %s", self._start.key, error or "no answer"
            )
            return None

    def _observe(self, spec: InvitesSpec, kept: Mapping[str, bytes] | None) -> None:
        """Observe from the next event on."""
        self.stop()
        start, intake = self._start, self._intake
        lookup = self.lookup = self._observing = intake.observer = InviteLookup(
            self._rests.take(start.token_hash, Secret(start.token), start.count),
            self._counters,
            hold_s=spec.hold_ms / 1000,
            store=self._store,
            kept=kept,
            report_late=self._report_late,
            caught_up=self._publisher.mark,
        )
        if intake.session_id:
            lookup.begin(session_hash(intake.session_id), intake.bot)
        lookup.is_live(self._state is State.LIVE)
        task = self._group.create_task(lookup.run())
        task.add_done_callback(lambda _: self._rests.give_back(start.token_hash, start.count))
        self._tasks = [task]

    def follow(self, spec: InvitesSpec) -> None:
        """The application's configuration changed."""
        lookup = self._observing
        if lookup is None and spec.track:
            self._observe(spec, None)
        elif lookup is not None and spec.track:
            lookup.follow(spec.hold_ms / 1000)
        elif lookup is not None:
            self._observing = self._intake.observer = None
            lookup.close()
            self._tasks.append(self._group.create_task(self._end(lookup, self._tasks[0])))

    async def _end(self, lookup: InviteLookup, running: asyncio.Task[None]) -> None:
        await lookup.drained()
        running.cancel()

    def state_changed(self, state: State) -> None:
        """The shard's connection moved on."""
        self._state = state
        if self.lookup is not None:
            self.lookup.is_live(state is State.LIVE)

    def _report_late(self, late: MemberInvited) -> None:
        lane = self._intake.rules.lane(MEMBER_INVITED)
        if not lane:
            return
        data = msgspec.json.encode(_LateAnswer(late.guild, late.user, msgspec.Raw(late.invited_by)))
        try:
            self._publisher.push_own(own_event(MEMBER_INVITED, data), uuid.uuid4().hex, lane=lane)
        except ValueError as error:
            _log.warning("shard %s does not report how %s joined: %s", self._start.key, late.user, error)

    def numbers(self) -> ipc.InviteNumbers | None:
        """Totals; None when joins were never tracked here."""
        if self.lookup is None:
            return None
        counters = self._counters
        return ipc.InviteNumbers(
            reported=dict(counters.reported), late=counters.late, requests=counters.requests, limited=counters.limited
        )

    def part(self) -> None:
        """The shard reads no more: no event waits any longer."""
        if self._observing is not None:
            self._observing.part()

    async def drained(self) -> None:
        """Wait until the counts that the next owner can use are stored."""
        if self.lookup is not None:
            await self.lookup.drained()

    def stop(self) -> None:
        """Send no more requests, and write nothing more."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()


def _counts_of(start: ipc.StartShard, cache: RedisCache) -> RedisCounts:
    namespace = start.options.cache.namespace_of(start.key.app)
    return RedisCounts(cache, namespace, start.key, Fence(start.fence))
