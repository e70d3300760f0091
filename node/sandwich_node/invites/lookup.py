"""Runs the invite tracker of one shard: sends its requests and saves its counts. A shell.

`observe` is called for each event as it is read, and never waits. `resolve` is called before the events are appended,
and its wait is bounded. Between the two, `run` sends requests to Discord.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sandwich_coordinator.discord_api import DiscordApiError, RateLimited
from sandwich_node.events.asks import ObserverAsk
from sandwich_node.invites.attribution import Reason, Unknown, invited_by
from sandwich_node.invites.count_persistence import CountPersistence, CountStore
from sandwich_node.invites.effects import DropCounts, FetchRequest, PersistCounts, Report
from sandwich_node.invites.guild import Moment
from sandwich_node.invites.hold import HoldBudget
from sandwich_node.invites.invite_counts import NEVER
from sandwich_node.invites.tracker import InviteTracker
from sandwich_node.invites.wire import EVENT_TYPES, VANITY, BadAnswer, Invite, NoCounts, read_invites, read_vanity
from sandwich_node.rest.client import RequestRefused, RestClient
from sandwich_node.rest.limiter import Route

_log = logging.getLogger(__name__)

HANDLES_MAX = 20_000
"""More than the events in a shard's buffer. Beyond it the oldest answers belong to events that were never published."""
URGENT_TIMEOUT_S = 10.0
BACKGROUND_TIMEOUT_S = 60.0
"""Long enough for the smallest share of the limit to allow a request."""
URGENT_MAX = 4
LOOP_TURNS = 8
"""How often the loop polls its sockets before a round ends, so that a join that has arrived there is read first."""
_TIMEOUT = Unknown(Reason.TIMEOUT)


@dataclass(frozen=True, slots=True)
class MemberInvited:
    """An attribution that was made after its GUILD_MEMBER_ADD was published; `invited_by` is JSON."""

    guild: str
    user: str
    invited_by: bytes


@dataclass(slots=True)
class LookupCounters:
    """Totals since the shard started here. `reported`: final attributions by source, unknown ones by reason."""

    reported: Counter[str]
    late: int = 0
    requests: int = 0
    limited: int = 0


class InviteLookup:
    """The lookup of one shard: an `EventObserver` and an `ExtraSource`.

    `kept`: by guild, the states that the shard's last owner saved; None: the store's content is unknown or not valid.
    `report_late` publishes a late attribution. `caught_up` is called when the store holds no outdated counts any more,
    if events were published meanwhile. Neither may wait.
    """

    event_types = EVENT_TYPES
    extra_name = "invited_by"

    def __init__(
        self,
        rest: RestClient,
        counters: LookupCounters,
        *,
        hold_s: float,
        store: CountStore | None,
        kept: Mapping[str, bytes] | None,
        report_late: Callable[[MemberInvited], None],
        caught_up: Callable[[], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.counters = counters
        self._rest = rest
        self._kept = kept or {}
        self._report_late = report_late
        self._caught_up = caught_up
        self._wall = wall
        self._tracker = InviteTracker(patience_s=hold_s, persists=store is not None)
        self._followed = "", ""
        self._persistence = CountPersistence(store, is_clean=kept is not None, on_whole=self._whole_again)
        self._hold = HoldBudget(hold_s)
        self._read_at: dict[int, float] = {}
        self._answers: dict[int, Report] = {}
        self._late: set[int] = set()
        self._left_behind = False
        """Whether events left while the store was not whole: it is unavailable, and no further event waits for it."""
        self._progress = asyncio.Event()
        self._wake = asyncio.Event()
        self._asking = 0
        self._asking_in_background = False
        self._is_live = False
        self._is_reading = True
        self._tracker.reading_changed(self._now(), is_current=False)

    # --- called by the shard ------------------------------------------------------------------------------------

    def begin(self, session: str, own_id: str) -> None:
        """Call before the first event of a session."""
        self._followed = session, own_id
        kept, self._kept = self._kept, {}
        self._tracker.begin(session, own_id, kept=kept)
        self._act()

    def interrupt(self) -> None:
        """An event could not be handled: the counts may be wrong, as after a new session."""
        session, own_id = self._followed
        self._tracker.begin("", own_id, kept={})
        self._tracker.begin(session, own_id, kept={})
        self._act()

    def is_live(self, live: bool) -> None:
        """Whether the shard is connected and no replay is in progress."""
        if live != self._is_live:
            self._is_live = live
            self._reading_changed()

    def is_reading(self, reading: bool) -> None:
        """Whether the shard reads its socket; it does not under back-pressure."""
        if reading != self._is_reading:
            self._is_reading = reading
            self._reading_changed()

    def _reading_changed(self) -> None:
        self._tracker.reading_changed(self._now(), is_current=self._is_live and self._is_reading)
        self._act()

    def follow(self, hold_s: float) -> None:
        """Change how long a join may wait."""
        if hold_s != self._hold.hold_s:
            self._hold = HoldBudget(hold_s)
            self._tracker.patience_s = hold_s

    def observe(self, event_type: str, data: bytes, *, is_published: bool) -> ObserverAsk | None:
        """Take an event of `wire.EVENT_TYPES`, by the JSON of its `d`, in order, as it is read.

        A GUILD_MEMBER_ADD that is published (`is_published`) gets an ask to resolve.
        """
        if not self._tracker.concerns(event_type, data):
            return None
        now = self._now()
        handle = self._tracker.observe(event_type, data, now)
        if handle is not None and is_published:
            self._read_at[handle] = now.mono
            if len(self._read_at) > HANDLES_MAX:
                self._abandon(next(iter(self._read_at)))
        self._act()
        return ObserverAsk(handle) if handle is not None and is_published else None

    @property
    def is_whole(self) -> bool:
        """Whether the store holds no outdated counts."""
        return self._persistence.is_whole

    async def resolve(self, asks: Sequence[ObserverAsk]) -> list[bytes]:
        """`invited_by` of each join as JSON, to publish with its event. Raises only when cancelled.

        Waits at most until `hold_s` after the last join was read, and within the hold budget. Without joins it waits
        for the store alone: events that outdate saved counts should not leave before the store has removed them.
        """
        if not asks and (self.is_whole or self._left_behind):
            return []
        handles = [ask.handle for ask in asks]
        start = now = asyncio.get_running_loop().time()
        last = max((self._read_at.get(handle, start) for handle in handles), default=start)
        until = min(last + self._hold.hold_s, start + self._hold.allowed_s(start))
        while now < until and not self._is_ready(handles):
            self._progress.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._progress.wait()
            except TimeoutError:
                pass
            now = asyncio.get_running_loop().time()
        if now > start:
            self._hold.spent(start, now)
        self._left_behind = self._left_behind or not self.is_whole
        return [self._take(handle) for handle in handles]

    def _is_ready(self, handles: Sequence[int]) -> bool:
        has_store = self.is_whole or self._left_behind
        return has_store and all(handle in self._answers for handle in handles)

    def _take(self, handle: int) -> bytes:
        self._read_at.pop(handle, None)
        answer = self._answers.pop(handle, None)
        pending = answer is None or not answer.final
        if pending:
            self._late.add(handle)
        return invited_by(answer.attribution if answer else _TIMEOUT, pending=pending)

    def _abandon(self, handle: int) -> None:
        del self._read_at[handle]
        self._answers.pop(handle, None)

    def part(self) -> None:
        """The shard moves away and reads no more: save the counts for its next owner, give up the other joins."""
        self._tracker.hand_over(self._now())
        self._act()

    def close(self) -> None:
        """Stop while the session goes on. The saved counts become outdated, so they are removed."""
        self.part()
        self._persistence.clear()

    async def drained(self) -> None:
        """Wait until the store has the state for the next owner."""
        await self._persistence.drained()

    # --- in the background --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send requests and write to the store, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._persistence.run())
            while True:
                self._wake.clear()
                self._start_requests(tasks)
                if await self._slept():
                    for _ in range(LOOP_TURNS):
                        await asyncio.sleep(0)
                try:
                    self._tracker.tick(self._now())
                    self._act()
                except Exception:
                    # Raised, it would end the shard. Without tracking, joins are published without their invites.
                    _log.exception("invite tracking failed and starts again")
                    self.interrupt()

    async def _slept(self) -> bool:
        """Sleep until woken (False), or until the tracker's deadline (True)."""
        now = self._now()
        deadline = self._tracker.deadline(now)
        if not self._asking_in_background:
            deadline = min(deadline, self._tracker.background_at(now))
        try:
            async with asyncio.timeout_at(deadline if deadline < NEVER else None):
                await self._wake.wait()
        except TimeoutError:
            return True
        return False

    def _act(self) -> None:
        """Carry out the tracker's effects."""
        for effect in self._tracker.effects():
            match effect:
                case Report():
                    self._reported(effect)
                case PersistCounts(guild, state, urgent):
                    self._persistence.save(guild, state, urgent=urgent)
                case DropCounts():
                    self._persistence.clear()
        self._wake.set()

    def _reported(self, answer: Report) -> None:
        if answer.final:
            self.counters.reported[_kind_of(answer)] += 1
        if answer.handle in self._read_at:
            self._answers[answer.handle] = answer
            self._progress.set()
        elif answer.final and answer.handle in self._late:
            self._late.remove(answer.handle)
            self.counters.late += 1
            self._report_late(MemberInvited(answer.guild, answer.user, invited_by(answer.attribution)))

    def _whole_again(self) -> None:
        self._progress.set()
        if self._left_behind:
            self._left_behind = False
            self._caught_up()

    def _now(self) -> Moment:
        return Moment(asyncio.get_running_loop().time(), self._wall())

    # --- Discord ------------------------------------------------------------------------------------------------

    def _start_requests(self, tasks: asyncio.TaskGroup) -> None:
        while self._asking < URGENT_MAX and (request := self._tracker.urgent(self._now())) is not None:
            self._asking += 1
            tasks.create_task(self._ask(request, urgent=True))
        if not self._asking_in_background and (request := self._tracker.background(self._now())) is not None:
            self._asking_in_background = True
            tasks.create_task(self._ask(request, urgent=False))

    async def _ask(self, request: FetchRequest, *, urgent: bool) -> None:
        tracker = self._tracker
        try:
            counts = await self._fetch(request, urgent=urgent)
        except NoCounts:
            tracker.failed(request, Reason.NO_PERMISSION, self._now())
        except RequestRefused as error:
            # 403: the bot has no permission; 404: it is not in the guild any more.
            denied = error.status in (403, 404)
            tracker.failed(request, Reason.NO_PERMISSION if denied else Reason.UNAVAILABLE, self._now())
        except RateLimited as error:
            tracker.failed(request, Reason.RATE_LIMITED, self._now(), error.retry_after_s)
        except (DiscordApiError, BadAnswer) as error:
            _log.info("the invites of guild %s could not be fetched: %s", request.guild, error)
            tracker.failed(request, Reason.UNAVAILABLE, self._now())
        else:
            tracker.answered(request, counts, self._now())
        finally:
            if urgent:
                self._asking -= 1
            else:
                self._asking_in_background = False
            self._act()

    async def _fetch(self, request: FetchRequest, *, urgent: bool) -> dict[str, Invite]:
        """The guild's invites and its vanity URL. Only a join before the first request is certainly in both answers."""
        is_sent = False

        def sent() -> None:
            nonlocal is_sent
            if not is_sent or not request.vanity:
                is_sent = True
                self._tracker.sent(request, self._now())

        invites, vanity = _route(request.guild, "invites"), _route(request.guild, "vanity-url")
        wait_s = self._rest.wait_s(invites, urgent=urgent)
        if self._hold.hold_s < wait_s < NEVER:
            self._tracker.stalled(request, self._now().mono + wait_s)
            self._act()
        problem: Exception | None = None
        try:
            async with asyncio.TaskGroup() as both:
                listed = both.create_task(self._get(invites, urgent, sent))
                single = both.create_task(self._get_vanity(vanity, urgent, sent)) if request.vanity else None
        except* (DiscordApiError, BadAnswer) as group:
            problem = group.exceptions[0]
        if problem is not None:
            raise problem
        counts = read_invites(listed.result())
        if single is not None and (found := single.result()) is not None:
            counts[VANITY] = found
        return counts

    async def _get(self, route: Route, urgent: bool, sent: Callable[[], None]) -> bytes:
        def on_send() -> None:
            self.counters.requests += 1
            sent()

        def on_limited() -> None:
            self.counters.limited += 1

        timeout_s = URGENT_TIMEOUT_S if urgent else BACKGROUND_TIMEOUT_S
        return await self._rest.get(route, urgent=urgent, timeout_s=timeout_s, on_send=on_send, on_limited=on_limited)

    async def _get_vanity(self, route: Route, urgent: bool, sent: Callable[[], None]) -> Invite | None:
        """The vanity URL; None when the guild has none or Discord refuses the request."""
        try:
            return read_vanity(await self._get(route, urgent, sent))
        except RequestRefused:
            return None


def _kind_of(answer: Report) -> str:
    """The counter of an attribution: its source, or the reason why it is not known."""
    attribution = answer.attribution
    if isinstance(attribution, Unknown):
        return attribution.reason.value
    return "vanity" if attribution.vanity else "invite"


def _route(guild: str, what: str) -> Route:
    return Route(f"GET /guilds/{{id}}/{what}", guild, f"/guilds/{guild}/{what}")
