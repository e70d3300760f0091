"""Decides which guilds' invites to fetch and when, and how each join of one shard is attributed. Pure.

`InviteCounts` tracks one guild. The tracker decides over all guilds: whether the bot may send a request, which guild
comes first (one with a join that waits), how long a round may last, and how many counts stay in memory.
Input: events by `observe`, answers by `answered` and `failed`, time by `tick`. Output: `effects`.
"""

import itertools
from collections import OrderedDict
from collections.abc import Mapping

from sandwich_coordinator.backoff import doubled_s
from sandwich_node.invites.attribution import Attribution, Reason, Unknown
from sandwich_node.invites.effects import DropCounts, Effect, FetchRequest, PersistCounts, Report
from sandwich_node.invites.guild import Guild, Moment
from sandwich_node.invites.invite_counts import JOINS_MAX, NEVER, InviteCounts
from sandwich_node.invites.permissions import manage_permission
from sandwich_node.invites.stored import DENIED, WANTED, WANTED_BY, decode_kept, encode_counts
from sandwich_node.invites.wire import (
    VANITY,
    ChannelGone,
    GuildSeen,
    Invite,
    InviteGone,
    InviteMade,
    MemberSeen,
    RoleChanged,
    RoleGone,
    read_event,
)

GUILDS_MAX = 5_000
"""Guilds in memory; a shard may have 2,500."""
COUNTS_MAX = 100_000
"""Invites in memory over all guilds, some 300 bytes each. The least recently used guilds lose theirs first."""
ROUND_MAX_S = 30.0
PAUSES_S = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each request of a round. The second request follows at once, for two members who joined together."""
RETRY_FIRST_S = 2.0
RETRY_MAX_S = 60.0
FAILURES_MAX = 4
DENIED_S = 3600.0
"""After a refusal although the bot's roles allow the request or are not known. A change of the roles ends it."""
QUIET_S = 3.0
"""A guild's counts are saved when it was quiet for so long, and no more often."""
CATCH_UP_S = 2.0
"""Backlog grace period after a read pause."""


class InviteTracker:
    """All guilds of one shard. `patience_s`: how long a join waits at most; `persists`: a store for counts exists."""

    def __init__(self, *, patience_s: float, persists: bool) -> None:
        self.patience_s = patience_s
        self._persists = persists
        self._session = ""
        self._own_id = ""
        self._own_needle = b""
        self._kept: dict[str, bytes] = {}
        """The states saved by the shard's last owner, of guilds without an event so far."""
        self._current_from = -NEVER
        """Before this moment Discord may have sent joins that are unread: no round ends. Infinity: not reading."""
        self._guilds: OrderedDict[str, Guild] = OrderedDict()
        self._open: dict[str, None] = {}
        """Guilds with a round in progress."""
        self._missed: dict[str, None] = {}
        """Guilds with a join and with counts that are unknown or uncertain: fetched first."""
        self._unknown: dict[str, None] = {}
        """Guilds whose counts are not known."""
        self._unpersisted: dict[str, float] = {}
        self._held = 0
        self._handles = itertools.count(1)
        self._effects: list[Effect] = []

    # --- events -------------------------------------------------------------------------------------------------

    def begin(self, session: str, own_id: str, *, kept: Mapping[str, bytes]) -> None:
        """Events belong to this session from now on. If it is a new one, joins may be missing: all counts are unknown.

        `kept`: by guild, the states that another owner of this session saved.
        """
        self._own_id, self._own_needle = own_id, own_id.encode()
        if session == self._session:
            return
        for guild in list(self._guilds.values()):
            self._drop(guild, Reason.INTERRUPTED)
        if self._session and self._persists:
            self._effects.append(DropCounts())
        self._guilds.clear()
        for queue in (self._open, self._missed, self._unpersisted):
            queue.clear()
        self._session, self._kept = session, dict(kept)
        self._unknown = {guild_id: None for guild_id, state in kept.items() if state in WANTED}

    def reading_changed(self, now: Moment, *, is_current: bool) -> None:
        """Whether events are read as Discord sends them: not while disconnected, replaying, or paused."""
        self._current_from = now.mono + CATCH_UP_S if is_current else NEVER
        for guild in [self._guilds[guild_id] for guild_id in self._open]:
            if not guild.is_blind:
                self._release(guild, Reason.TIMEOUT)

    def concerns(self, event_type: str, data: bytes) -> bool:
        """Whether an event of wire.EVENT_TYPES may matter; of GUILD_MEMBER_UPDATE only the bot's own does."""
        return event_type != "GUILD_MEMBER_UPDATE" or self._own_needle in data

    def observe(self, event_type: str, data: bytes, now: Moment) -> int | None:
        """Take an event of wire.EVENT_TYPES, by the JSON of its `d`, in order.

        For a GUILD_MEMBER_ADD returns the handle that its `Report` will carry.
        """
        seen = read_event(event_type, data)
        match seen:
            case MemberSeen() if event_type == "GUILD_MEMBER_ADD":
                return self._member_added(seen, now)
            case MemberSeen() if seen.user.id == self._own_id:
                self._role_changed(seen.guild_id, seen, now)
            case RoleChanged() | RoleGone():
                self._role_changed(seen.guild_id, seen, now)
            case GuildSeen() if event_type == "GUILD_DELETE":
                self._guild_gone(seen, now)
            case GuildSeen():
                self._guild_seen(seen, now, is_new=event_type == "GUILD_CREATE")
            case ChannelGone() | InviteMade() | InviteGone() if seen.guild_id:
                self._invites_changed(self._guild(seen.guild_id, now), seen, now)
            case _:
                pass
        return None

    def _guild(self, guild_id: str, now: Moment) -> Guild:
        """The guild, marked as most recently used."""
        guild = self._guilds.get(guild_id)
        if guild is None:
            guild = self._guilds[guild_id] = Guild(guild_id)
            self._remember(guild, now)
            self._limit_memory()
        self._guilds.move_to_end(guild_id)
        return guild

    def _remember(self, guild: Guild, now: Moment) -> None:
        """Restore the guild's state that the shard's last owner saved."""
        state = self._kept.pop(guild.id, None)
        if state is None:
            return
        kept = decode_kept(state, self._session)
        if kept is None:
            return
        guild.is_persisted = kept.counts is not None
        guild.vanity = kept.vanity
        if not kept.may_ask:
            guild.denied_until = now.mono + DENIED_S
        if kept.counts is not None:
            guild.invite_counts = InviteCounts(blind=False, counts=kept.counts)
            self._weigh(guild)

    def _guild_seen(self, seen: GuildSeen, now: Moment, *, is_new: bool) -> None:
        if seen.unavailable:
            return
        guild = self._guild(seen.id, now)
        guild.vanity = seen.vanity_url_code is not None
        if is_new:
            guild.permission = manage_permission(seen, self._own_id)
            self._permission_known(guild, now)
        elif guild.permission is not None and guild.permission.follow(seen, self._own_id):
            self._permission_known(guild, now)

    def _guild_gone(self, seen: GuildSeen, now: Moment) -> None:
        """The bot left, or there is an outage, in which members can join without an event: the counts are lost."""
        guild = self._guild(seen.id, now)
        self._drop(guild, Reason.INTERRUPTED)
        if not seen.unavailable:
            self._persist(guild, None)
            del self._guilds[guild.id]

    def _role_changed(self, guild_id: str, seen: MemberSeen | RoleChanged | RoleGone, now: Moment) -> None:
        guild = self._guild(guild_id, now)
        if guild.permission is not None:
            if guild.permission.follow(seen, self._own_id):
                self._permission_known(guild, now)
            return
        # The bot's roles are not known: a change of them, or of a role with the permission, justifies a try.
        may_help = isinstance(seen, MemberSeen) or (isinstance(seen, RoleChanged) and seen.role.manages)
        if may_help and not guild.may_ask(now.mono):
            guild.denied_until = -NEVER
            self._want(guild)

    def _permission_known(self, guild: Guild, now: Moment) -> None:
        guild.denied_until = -NEVER
        if not guild.may_ask(now.mono):
            self._deny(guild)
        elif guild.invite_counts is None and guild.permission is not None:
            self._want(guild)

    def _want(self, guild: Guild) -> None:
        self._unknown[guild.id] = None
        self._persist(guild, WANTED_BY[guild.vanity])

    def _deny(self, guild: Guild) -> None:
        self._drop(guild, Reason.NO_PERMISSION)
        self._persist(guild, DENIED)

    def _member_added(self, member: MemberSeen, now: Moment) -> int:
        handle = next(self._handles)
        guild = self._guild(member.guild_id, now)
        if member.user.bot:
            self._report(guild, member.user.id, handle, Unknown(Reason.BOT))
        elif not guild.may_ask(now.mono):
            self._report(guild, member.user.id, handle, Unknown(Reason.NO_PERMISSION))
        else:
            self._joined(guild, member.user.id, handle, now)
        return handle

    # --- invite counts ------------------------------------------------------------------------------------------

    def _invites_changed(self, guild: Guild, seen: ChannelGone | InviteMade | InviteGone, now: Moment) -> None:
        invite_counts = guild.invite_counts
        if invite_counts is None:
            return
        match seen:
            case InviteMade():
                invite_counts.made(seen.as_invite())
            case InviteGone(code=code) if invite_counts.deleted(code, now.mono):
                self._withdraw(guild)
            case ChannelGone(id=channel) if invite_counts.channel_deleted(channel, now.mono):
                self._withdraw(guild)
            case _:
                return
        self._persist_later(guild, now)

    def _joined(self, guild: Guild, user: str, handle: int, now: Moment) -> None:
        self._withdraw(guild)
        invite_counts = guild.invite_counts = guild.invite_counts or InviteCounts()
        if not invite_counts.blind and len(invite_counts.joins) >= JOINS_MAX:
            self._invalidate(guild, Reason.BURST)
        if not invite_counts.joins:
            guild.opened_at, guild.requests = now.mono, 0
            guild.released.clear()
        invite_counts.joined(user, handle, now.mono, now.wall)
        if invite_counts.blind:
            self._missed[guild.id] = None
            self._report(guild, user, handle, Unknown(Reason.NO_BASELINE))
            return
        self._open[guild.id] = None
        guild.ask_at = max(guild.ask_at, now.mono)
        latest = now.mono + self.patience_s
        if self._current_from > latest:
            self._release(guild, Reason.TIMEOUT)
        elif guild.ask_at > latest:
            self._release(guild, guild.held_up_by)

    # --- requests to Discord ------------------------------------------------------------------------------------

    def urgent(self, now: Moment) -> FetchRequest | None:
        """The request that a waiting join needs; the caller reports its result. None: no request now."""
        if now.mono < self._current_from:
            return None
        guilds = (self._guilds[guild_id] for guild_id in self._open)
        found = next((guild for guild in guilds if guild.is_due(now.mono) and not guild.is_blind), None)
        return self._start_request(found) if found else None

    def background(self, now: Moment) -> FetchRequest | None:
        """A request for which no join waits; the caller reports its result. None: no request now."""
        if now.mono < self._current_from:
            return None
        guilds = (self._guilds[guild_id] for guild_id in self._missed)
        found = next((guild for guild in guilds if guild.is_due(now.mono) or guild.is_stale(now.mono)), None)
        while found is None and self._unknown:
            guild = self._guild(next(iter(self._unknown)), now)
            del self._unknown[guild.id]
            if guild.invite_counts is None and guild.asking is None and guild.may_ask(now.mono):
                guild.invite_counts = InviteCounts()
                found = guild
        return self._start_request(found) if found else None

    def _start_request(self, guild: Guild) -> FetchRequest:
        assert guild.invite_counts is not None
        self._missed.pop(guild.id, None)
        guild.asking = FetchRequest(guild.id, guild.vanity is not False, guild.invite_counts)
        return guild.asking

    def sent(self, request: FetchRequest, now: Moment) -> None:
        """The request is sent now: its answer counts all joins before."""
        guild = self._guilds.get(request.guild)
        if guild is not None and guild.invite_counts is request.invite_counts:
            request.invite_counts.asked(now.mono)
            guild.requests += 1

    def answered(self, request: FetchRequest, counts: dict[str, Invite], now: Moment) -> None:
        """The answer: the guild's invites by code, and the vanity URL by VANITY."""
        guild = self._guild_answered(request)
        if guild is None:
            return
        invite_counts, guild.failures, guild.held_up_by = request.invite_counts, 0, Reason.BURST
        invite_counts.answered(counts, now.mono)
        if request.vanity:
            guild.vanity = VANITY in counts
        guild.ask_at = now.mono + PAUSES_S[min(guild.requests, len(PAUSES_S) - 1)]
        self._open[guild.id] = None
        if not invite_counts.is_covered:
            if invite_counts.blind:
                self._missed[guild.id] = None
            elif guild.ask_at - now.mono > self.patience_s:
                self._release(guild, Reason.BURST)
        self._weigh(guild)

    def failed(self, request: FetchRequest, reason: Reason, now: Moment, retry_after_s: float = 0.0) -> None:
        """The request failed. NO_PERMISSION: Discord refused it."""
        guild = self._guild_answered(request)
        if guild is None:
            return
        if reason is Reason.NO_PERMISSION:
            guild.denied_until = now.mono + DENIED_S
            self._deny(guild)
            return
        request.invite_counts.unanswered()
        guild.failures, guild.held_up_by = guild.failures + 1, reason
        pause_s = max(retry_after_s, doubled_s(RETRY_FIRST_S, RETRY_MAX_S, guild.failures))
        guild.ask_at = now.mono + min(RETRY_MAX_S, pause_s)
        if guild.is_blind or request.invite_counts.refresh_at < NEVER:
            self._missed[guild.id] = None
        if guild.is_blind:
            return
        if guild.failures >= FAILURES_MAX:
            self._invalidate(guild, reason)
        else:
            self._release(guild, reason)

    def stalled(self, request: FetchRequest, until: float) -> None:
        """The request will not be sent before `until`, which is longer than a join waits."""
        guild = self._guilds.get(request.guild)
        if guild is not None and guild.asking is request and not guild.is_blind:
            guild.ask_at, guild.held_up_by = until, Reason.RATE_LIMITED
            self._release(guild, Reason.RATE_LIMITED)

    def _guild_answered(self, request: FetchRequest) -> Guild | None:
        """The guild of an answer; None when its counts were replaced since the request."""
        guild = self._guilds.get(request.guild)
        if guild is None or guild.asking is not request:
            return None
        guild.asking = None
        return guild if guild.invite_counts is request.invite_counts else None

    # --- time ---------------------------------------------------------------------------------------------------

    def tick(self, now: Moment) -> None:
        """End the rounds that are settled or last too long; save the counts of quiet guilds."""
        for guild in [self._guilds[guild_id] for guild_id in self._open]:
            invite_counts = guild.invite_counts
            if invite_counts is None or (invite_counts.blind and not invite_counts.is_covered):
                del self._open[guild.id]
            elif max(invite_counts.settles_at, self._current_from) <= now.mono:
                self._close(guild, now)
            elif not invite_counts.blind and invite_counts.joins and now.mono >= guild.opened_at + ROUND_MAX_S:
                self._invalidate(guild, Reason.BURST)
        self._persist_quiet(now)

    def deadline(self, now: Moment) -> float:
        """When `tick` or another urgent request is due; infinity for never."""
        found = next(iter(self._unpersisted.values()), NEVER)
        for guild_id in self._open:
            guild = self._guilds[guild_id]
            invite_counts = guild.invite_counts
            if invite_counts is None:
                continue
            found = min(found, max(invite_counts.settles_at, self._current_from))
            if not invite_counts.blind and invite_counts.joins:
                found = min(found, guild.opened_at + ROUND_MAX_S)
            ask_at = max(guild.ask_at, self._current_from)
            if guild.asking is None and ask_at > now.mono:
                found = min(found, ask_at)
        return found

    def background_at(self, now: Moment) -> float:
        """When another background request is due; infinity for never."""
        found = self._current_from if self._unknown and self._current_from > now.mono else NEVER
        for guild_id in self._missed:
            guild = self._guilds[guild_id]
            if guild.invite_counts is None or guild.asking is not None:
                continue
            ask_at = (
                guild.ask_at if guild.is_busy or guild.is_blind else max(guild.ask_at, guild.invite_counts.refresh_at)
            )
            ask_at = max(ask_at, self._current_from)
            if ask_at > now.mono:
                found = min(found, ask_at)
        return found

    def effects(self) -> list[Effect]:
        """The effects since the last call."""
        found, self._effects = self._effects, []
        return found

    def _close(self, guild: Guild, now: Moment) -> None:
        assert guild.invite_counts is not None
        for join, attribution in guild.invite_counts.close(now.mono):
            for handle in join.handles:
                self._report(guild, join.user, handle, attribution)
        del self._open[guild.id]
        if guild.invite_counts.refresh_at < NEVER:
            self._missed[guild.id] = None
        self._persist_later(guild, now)

    def _invalidate(self, guild: Guild, reason: Reason) -> None:
        """Give up all joins of the round and fetch the counts again. The answer to a request in flight is ignored."""
        guild.asking = None
        if guild.invite_counts is None:
            return
        was_blind = guild.invite_counts.blind
        for join in guild.invite_counts.invalidate():
            for handle in () if was_blind else join.handles:
                self._report(guild, join.user, handle, Unknown(reason))
        self._open.pop(guild.id, None)
        self._missed[guild.id] = None

    def _drop(self, guild: Guild, reason: Reason) -> None:
        """Give up all joins of the round, and forget the counts."""
        self._withdraw(guild)
        self._invalidate(guild, reason)
        guild.invite_counts = None
        for queue in (self._missed, self._unknown, self._unpersisted):
            queue.pop(guild.id, None)
        self._weigh(guild)

    def _release(self, guild: Guild, reason: Reason) -> None:
        """No join of the round waits any longer."""
        assert guild.invite_counts is not None
        for join in guild.invite_counts.joins.values():
            for handle in join.handles:
                if handle not in guild.released:
                    guild.released.add(handle)
                    self._report(guild, join.user, handle, Unknown(reason), final=False)

    def _report(self, guild: Guild, user: str, handle: int, attribution: Attribution, *, final: bool = True) -> None:
        self._effects.append(Report(handle, guild.id, user, attribution, final))

    # --- memory -------------------------------------------------------------------------------------------------

    def _persist(self, guild: Guild, state: bytes | None, *, counts: bool = False) -> None:
        """Replace the saved state of the guild; `counts`: the state holds use counts."""
        if self._persists:
            self._effects.append(PersistCounts(guild.id, state, urgent=guild.is_persisted and not counts))
            guild.is_persisted = counts

    def _withdraw(self, guild: Guild) -> None:
        """The saved counts of the guild are outdated: remove them."""
        if guild.is_persisted:
            self._persist(guild, WANTED_BY[guild.vanity])

    def _persist_later(self, guild: Guild, now: Moment) -> None:
        if self._persists:
            self._unpersisted.pop(guild.id, None)
            self._unpersisted[guild.id] = now.mono + QUIET_S

    def hand_over(self, now: Moment) -> None:
        """The shard moves away: save the known counts for its next owner, and end the wait of all other joins."""
        for guild_id in self._unpersisted:
            self._unpersisted[guild_id] = now.mono
        self._persist_quiet(now)
        self._current_from = NEVER
        for guild_id in list(self._open):
            self._invalidate(self._guilds[guild_id], Reason.INTERRUPTED)

    def _persist_quiet(self, now: Moment) -> None:
        while self._unpersisted:
            guild_id, due = next(iter(self._unpersisted.items()))
            if due > now.mono:
                return
            del self._unpersisted[guild_id]
            guild = self._guilds.get(guild_id)
            if guild is None or guild.invite_counts is None or guild.is_blind or guild.is_busy:
                continue
            if guild.invite_counts.refresh_at < NEVER:
                # Another answer is due; the counts are saved after it.
                continue
            self._persist(guild, encode_counts(guild.invite_counts.counts, self._session), counts=True)

    def _weigh(self, guild: Guild) -> None:
        weight = len(guild.invite_counts.counts) if guild.invite_counts else 0
        self._held += weight - guild.weight
        guild.weight = weight
        self._limit_memory()

    def _limit_memory(self) -> None:
        """Forget counts, and then guilds, least recently used first."""
        if self._held > COUNTS_MAX:
            for guild in list(self._guilds.values()):
                if guild.weight and not guild.is_busy:
                    guild.invite_counts, self._held, guild.weight = None, self._held - guild.weight, 0
                    self._open.pop(guild.id, None)
                if self._held <= COUNTS_MAX:
                    break
        while len(self._guilds) > GUILDS_MAX:
            oldest = next(iter(self._guilds.values()))
            self._drop(oldest, Reason.NO_BASELINE)
            del self._guilds[oldest.id]
