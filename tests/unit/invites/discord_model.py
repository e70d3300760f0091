"""A model of Discord on virtual time for the tracker: invites, joins, delayed events and slower REST answers.

It records by which code every user really joined, and drives a tracker as the shell does: events in order, one request
at a time for each guild, ticks at the tracker's deadlines.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from sandwich_node.invites.attribution import Attribution, ByInvite, Reason, Unknown
from sandwich_node.invites.effects import DropCounts, Effect, FetchRequest, PersistCounts, Report
from sandwich_node.invites.guild import Moment
from sandwich_node.invites.stored import decode_kept
from sandwich_node.invites.tracker import InviteTracker
from sandwich_node.invites.wire import VANITY, Invite, Inviter

ME = "999"
WALL = 1_750_000_000.0
MANAGES = {"id": "77", "permissions": str(1 << 5)}


@dataclass
class Delays:
    """Delays in seconds. An answer is computed `read_s` after its request and arrives `answer_s` after it."""

    event_s: float = 0.01
    read_s: float = 0.03
    answer_s: float = 0.06
    lag_s: float = 0.0
    """The age of the counts in an answer."""


@dataclass
class Guild:
    """A guild in Discord's state."""

    id: str
    invites: dict[str, Invite] = field(default_factory=dict)
    vanity: Invite | None = None
    history: list[tuple[float, dict[str, Invite]]] = field(default_factory=list)

    def counts(self) -> dict[str, Invite]:
        return self.invites | ({VANITY: self.vanity} if self.vanity else {})

    def as_of(self, at: float) -> dict[str, Invite]:
        """The counts as they were at this time, without what had expired."""
        found: dict[str, Invite] = {}
        for moment, counts in self.history:
            if moment <= at:
                found = counts
        return {c: i for c, i in found.items() if i.expires_at is None or i.expires_at > WALL + at}


class Model:
    """Discord, a gateway session, and the tracker under test."""

    def __init__(self, *, patience_s: float = 0.3, persists: bool = False, delays: Delays | None = None) -> None:
        self.delays = delays or Delays()
        self.tracker = InviteTracker(patience_s=patience_s, persists=persists)
        self.now = 0.0
        self.clock_error_s = 0.0
        self.guilds: dict[str, Guild] = {}
        self.truth: dict[str, str | None] = {}
        """By user: the code that was used."""
        self.reported: dict[str, Attribution] = {}
        """By user: the last final attribution."""
        self.released: dict[str, Attribution] = {}
        self.store: dict[str, bytes | None] = {}
        self.requests: list[tuple[float, str]] = []
        self.failing: Callable[[FetchRequest], tuple[Reason, float] | None] = lambda request: None
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._received_at = 0.0
        self._received: deque[tuple[float, str, bytes]] = deque(maxlen=100)
        self._users = itertools.count(1000)
        self.tracker.begin("session", ME, kept={})

    @property
    def moment(self) -> Moment:
        return Moment(self.now, WALL + self.now + self.clock_error_s)

    # --- Discord ------------------------------------------------------------------------------------------------

    def add_guild(self, guild_id: str = "1", *, vanity: str | None = None, manages: bool = True) -> Guild:
        guild = self.guilds[guild_id] = Guild(guild_id)
        if vanity:
            guild.vanity = Invite(vanity, 7)
        self._changed(guild)
        self.event("GUILD_CREATE", self.guild_json(guild, manages=manages))
        return guild

    def guild_json(self, guild: Guild, *, manages: bool = True) -> dict[str, Any]:
        roles = [{"id": guild.id, "permissions": "0"}, MANAGES if manages else {"id": "77", "permissions": "0"}]
        own = {"user": {"id": ME, "bot": True}, "roles": ["77"]}
        vanity = guild.vanity.code if guild.vanity else None
        return {"id": guild.id, "owner_id": "5", "vanity_url_code": vanity, "roles": roles, "members": [own]}

    def make(
        self, guild: Guild, code: str, *, max_uses: int = 0, uses: int = 0, age_s: float = 0, announced: bool = True
    ) -> None:
        expires_at = WALL + self.now + age_s if age_s else None
        invite = Invite(code, uses, max_uses, expires_at, "c1", Inviter(f"by-{code}"))
        guild.invites[code] = invite
        self._changed(guild)
        if announced:
            self.event("INVITE_CREATE", self.invite_json(guild, invite))

    def invite_json(self, guild: Guild, invite: Invite) -> dict[str, Any]:
        return {
            "code": invite.code,
            "guild_id": guild.id,
            "channel_id": invite.channel,
            "uses": 0,
            "max_uses": invite.max_uses,
            "expires_at": None if invite.expires_at is None else _iso(invite.expires_at),
            "inviter": {"id": f"by-{invite.code}"},
        }

    def delete(self, guild: Guild, code: str, *, announced: bool = True) -> None:
        invite = guild.invites.pop(code)
        self._changed(guild)
        if announced:
            self.event("INVITE_DELETE", {"code": code, "guild_id": guild.id, "channel_id": invite.channel})

    def join(
        self, guild: Guild, code: str | None = None, *, user: str = "", bot: bool = False, delete_first: bool = False
    ) -> str:
        """A user joins by a code, by VANITY, or without an invite; returns the user."""
        user = user or str(next(self._users))
        used_up = False
        if code == VANITY:
            assert guild.vanity is not None
            guild.vanity = msgspec.structs.replace(guild.vanity, uses=guild.vanity.uses + 1)
            self.truth[user] = guild.vanity.code
        elif code is not None:
            old = guild.invites[code]
            guild.invites[code] = msgspec.structs.replace(old, uses=old.uses + 1)
            used_up = old.left == 1
            self.truth[user] = code
        else:
            self.truth[user] = None
        self._changed(guild)
        if used_up and code and delete_first:
            self.delete(guild, code)
        self.event("GUILD_MEMBER_ADD", {"guild_id": guild.id, "user": {"id": user, "bot": bot}, "roles": []}, user)
        if used_up and code and not delete_first:
            self.delete(guild, code)
        return user

    def _changed(self, guild: Guild) -> None:
        guild.history.append((self.now, guild.counts()))

    # --- the gateway and the shell ------------------------------------------------------------------------------

    def event(self, name: str, d: dict[str, Any], user: str = "", *, delay_s: float | None = None) -> None:
        """A dispatch, which arrives after those before it."""
        self._received_at = max(self._received_at, self.now + (self.delays.event_s if delay_s is None else delay_s))
        data = msgspec.json.encode(d)
        self.at(self._received_at, lambda: self._receive(name, data))

    def _receive(self, name: str, data: bytes) -> None:
        self._received.append((self.now, name, data))
        self.tracker.observe(name, data, self.moment)

    def counts_kept(self, guild: str = "1") -> bool:
        """Whether a next owner would know the guild's counts."""
        state = self.store.get(guild)
        kept = decode_kept(state, "session") if state else None
        return kept is not None and kept.counts is not None

    def hand_over(self, *, replayed_s: float) -> None:
        """The shard's next owner RESUMEs the session and receives the events of the last `replayed_s` again."""
        self.tracker = InviteTracker(patience_s=0.3, persists=True)
        kept = {guild: state for guild, state in self.store.items() if state is not None}
        self.tracker.begin("session", ME, kept=kept)
        for at, name, data in list(self._received):
            if at >= self.now - replayed_s:
                self.tracker.observe(name, data, self.moment)

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), action))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        self._pump()
        while True:
            due = self._due()
            at = self._agenda[0][0] if self._agenda else float("inf")
            if min(due, at) > end:
                break
            self.now = max(self.now, min(due, at))
            if at <= due:
                heapq.heappop(self._agenda)[2]()
            self.tracker.tick(self.moment)
            self._pump()
            assert self._due() > self.now or at <= due, "a tick must move its deadline"
        self.now = end

    def _due(self) -> float:
        return min(self.tracker.deadline(self.moment), self.tracker.background_at(self.moment))

    def _pump(self) -> None:
        while True:
            for effect in self.tracker.effects():
                self._perform(effect)
            request = self.tracker.urgent(self.moment) or self.tracker.background(self.moment)
            if request is None:
                return
            self._ask(request)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Report(user=user, attribution=attribution, final=True):
                # A repeated event of a user who is attributed already adds nothing.
                if not isinstance(self.reported.get(user), ByInvite):
                    self.reported[user] = attribution
            case Report(user=user, attribution=attribution):
                self.released[user] = attribution
            case PersistCounts(guild, None):
                self.store.pop(guild, None)
            case PersistCounts(guild, state):
                self.store[guild] = state
            case DropCounts():
                self.store.clear()

    def _ask(self, request: FetchRequest) -> None:
        self.requests.append((self.now, request.guild))
        self.tracker.sent(request, self.moment)
        refused = self.failing(request)
        if refused is not None:
            reason, retry_s = refused
            self.at(self.now + self.delays.answer_s, lambda: self.tracker.failed(request, reason, self.moment, retry_s))
            return
        guild, delays, found = self.guilds[request.guild], self.delays, {}

        def read() -> None:
            found.update(guild.as_of(self.now - delays.lag_s))
            if not request.vanity:
                found.pop(VANITY, None)

        self.at(self.now + delays.read_s, read)
        self.at(self.now + delays.answer_s, lambda: self.tracker.answered(request, found, self.moment))

    # --- checks -------------------------------------------------------------------------------------------------

    def code_reported(self, user: str) -> str | None:
        """The code reported for this user, None when it is unknown."""
        attribution = self.reported[user]
        return attribution.invite.code if isinstance(attribution, ByInvite) else None

    def reason(self, user: str) -> Reason:
        attribution = self.reported[user]
        assert isinstance(attribution, Unknown)
        return attribution.reason

    def wrong(self) -> list[str]:
        """The users with a reported code that they did not use."""
        return [u for u in self.reported if (code := self.code_reported(u)) is not None and code != self.truth[u]]


def _iso(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat()
