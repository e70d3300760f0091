"""Which guilds' invites to ask for and when, and what is known of each join of one shard. Pure.

Accounts do the bookkeeping of a guild; this decides about all of them: whether the bot may ask at all, who is asked for
first (a guild in which somebody joined and waits), how long an unlucky round may go on, how much is remembered.
Events go in by `observe`, answers by `told` and `failed`, time by `tick`; what is to be done comes out of `effects`.
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
"""Guilds remembered; a shard may have 2,500."""
COUNTS_MAX = 100_000
"""Invites remembered over all guilds, some 300 bytes each. The guilds without a join for longest lose theirs first."""
ROUND_MAX_S = 30.0
PAUSES_S = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each request of a round; the first repeats it at once, for two who came together."""
RETRY_FIRST_S = 2.0
RETRY_MAX_S = 60.0
FAILURES_MAX = 4
DENIED_S = 3600.0
"""Where Discord refused, though the bot's roles would allow it or are not known; a change of them ends it."""
QUIET_S = 3.0
"""A guild's counts are kept once it was quiet for so long: they are written no more often than that."""
CATCH_UP_S = 2.0
"""After a pause in hearing, what piled up is heard within this."""


class InviteTracker:
    """All guilds of one shard. `patience_s`: how long a join waits at most; `keeps`: counts can be kept outside."""

    def __init__(self, *, patience_s: float, keeps: bool) -> None:
        self.patience_s = patience_s
        self._keeps = keeps
        self._session = ""
        self._own_id = ""
        self._own_needle = b""
        self._kept: dict[str, bytes] = {}
        """What the shard's last owner kept of guilds that were not needed yet."""
        self._hears_from = -NEVER
        """Until then joins may have been told that were not heard: no round ends. Infinity: nothing is heard."""
        self._guilds: OrderedDict[str, Guild] = OrderedDict()
        self._open: dict[str, None] = {}
        """Guilds whose round is to be ended."""
        self._missed: dict[str, None] = {}
        """Guilds in which somebody joined whose counts are not known, or not surely: first to be asked for."""
        self._unknown: dict[str, None] = {}
        """Guilds whose counts are not known."""
        self._unkept: dict[str, float] = {}
        self._held = 0
        self._handles = itertools.count(1)
        self._effects: list[Effect] = []

    # --- events -------------------------------------------------------------------------------------------------

    def begin(self, session: str, own_id: str, *, kept: Mapping[str, bytes]) -> None:
        """Events are of this session from now on; another one may have missed joins: every count is unknown.

        `kept`: by guild, what another owner of this session kept.
        """
        self._own_id, self._own_needle = own_id, own_id.encode()
        if session == self._session:
            return
        for guild in list(self._guilds.values()):
            self._drop(guild, Reason.INTERRUPTED)
        if self._session and self._keeps:
            self._effects.append(DropCounts())
        self._guilds.clear()
        for queue in (self._open, self._missed, self._unkept):
            queue.clear()
        self._session, self._kept = session, dict(kept)
        self._unknown = {guild_id: None for guild_id, state in kept.items() if state in WANTED}

    def hears(self, now: Moment, *, attentive: bool) -> None:
        """Whether events are heard as they are told: not while disconnected, replaying, or not reading."""
        self._hears_from = now.mono + CATCH_UP_S if attentive else NEVER
        for guild in [self._guilds[guild_id] for guild_id in self._open]:
            if not guild.is_blind:
                self._release(guild, Reason.TIMEOUT)

    def concerns(self, event_type: str, data: bytes) -> bool:
        """Whether an event of wire.EVENT_TYPES may say something here; of the members that change only the bot does."""
        return event_type != "GUILD_MEMBER_UPDATE" or self._own_needle in data

    def observe(self, event_type: str, data: bytes, now: Moment) -> int | None:
        """Takes one of wire.EVENT_TYPES, by the JSON of its `d`, in order.

        A handle for a GUILD_MEMBER_ADD, of which `Report` will speak.
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
        """The guild, as the one used last."""
        guild = self._guilds.get(guild_id)
        if guild is None:
            guild = self._guilds[guild_id] = Guild(guild_id)
            self._remember(guild, now)
            self._limit_memory()
        self._guilds.move_to_end(guild_id)
        return guild

    def _remember(self, guild: Guild, now: Moment) -> None:
        """Goes on with what the shard's last owner kept of the guild."""
        state = self._kept.pop(guild.id, None)
        if state is None:
            return
        kept = decode_kept(state, self._session)
        if kept is None:
            return
        guild.is_kept = kept.counts is not None
        guild.vanity = kept.vanity
        if not kept.may_ask:
            guild.denied_until = now.mono + DENIED_S
        if kept.counts is not None:
            guild.account = InviteCounts(blind=False, counts=kept.counts)
            self._weigh(guild)

    def _guild_seen(self, seen: GuildSeen, now: Moment, *, is_new: bool) -> None:
        if seen.unavailable:
            return
        guild = self._guild(seen.id, now)
        guild.vanity = seen.vanity_url_code is not None
        if is_new:
            guild.power = manage_permission(seen, self._own_id)
            self._power_known(guild, now)
        elif guild.power is not None and guild.power.follow(seen, self._own_id):
            self._power_known(guild, now)

    def _guild_gone(self, seen: GuildSeen, now: Moment) -> None:
        """Left, or in an outage, during which somebody may join unheard: its counts prove nothing afterwards."""
        guild = self._guild(seen.id, now)
        self._drop(guild, Reason.INTERRUPTED)
        if not seen.unavailable:
            self._keep(guild, None)
            del self._guilds[guild.id]

    def _role_changed(self, guild_id: str, seen: MemberSeen | RoleChanged | RoleGone, now: Moment) -> None:
        guild = self._guild(guild_id, now)
        if guild.power is not None:
            if guild.power.follow(seen, self._own_id):
                self._power_known(guild, now)
            return
        # What roles the bot has is not known: a change of them, or a role that would do, is worth a try.
        is_hopeful = isinstance(seen, MemberSeen) or (isinstance(seen, RoleChanged) and seen.role.manages)
        if is_hopeful and not guild.may_ask(now.mono):
            guild.denied_until = -NEVER
            self._want(guild)

    def _power_known(self, guild: Guild, now: Moment) -> None:
        guild.denied_until = -NEVER
        if not guild.may_ask(now.mono):
            self._deny(guild)
        elif guild.account is None and guild.power is not None:
            self._want(guild)

    def _want(self, guild: Guild) -> None:
        self._unknown[guild.id] = None
        self._keep(guild, WANTED_BY[guild.vanity])

    def _deny(self, guild: Guild) -> None:
        self._drop(guild, Reason.NO_PERMISSION)
        self._keep(guild, DENIED)

    def _member_added(self, member: MemberSeen, now: Moment) -> int:
        handle = next(self._handles)
        guild = self._guild(member.guild_id, now)
        if member.user.bot:
            self._tell(guild, member.user.id, handle, Unknown(Reason.BOT))
        elif not guild.may_ask(now.mono):
            self._tell(guild, member.user.id, handle, Unknown(Reason.NO_PERMISSION))
        else:
            self._joined(guild, member.user.id, handle, now)
        return handle

    # --- accounts -----------------------------------------------------------------------------------------------

    def _invites_changed(self, guild: Guild, seen: ChannelGone | InviteMade | InviteGone, now: Moment) -> None:
        account = guild.account
        if account is None:
            return
        match seen:
            case InviteMade():
                account.made(seen.as_invite())
            case InviteGone(code=code) if account.deleted(code, now.mono):
                self._withdraw(guild)
            case ChannelGone(id=channel) if account.channel_deleted(channel, now.mono):
                self._withdraw(guild)
            case _:
                return
        self._keep_later(guild, now)

    def _joined(self, guild: Guild, user: str, handle: int, now: Moment) -> None:
        self._withdraw(guild)
        account = guild.account = guild.account or InviteCounts()
        if not account.blind and len(account.joins) >= JOINS_MAX:
            self._spoil(guild, Reason.BURST)
        if not account.joins:
            guild.opened_at, guild.requests = now.mono, 0
            guild.told.clear()
        account.joined(user, handle, now.mono, now.wall)
        if account.blind:
            self._missed[guild.id] = None
            self._tell(guild, user, handle, Unknown(Reason.NO_BASELINE))
            return
        self._open[guild.id] = None
        guild.ask_at = max(guild.ask_at, now.mono)
        latest = now.mono + self.patience_s
        if self._hears_from > latest:
            self._release(guild, Reason.TIMEOUT)
        elif guild.ask_at > latest:
            self._release(guild, guild.held_up_by)

    # --- asking Discord -----------------------------------------------------------------------------------------

    def urgent(self, now: Moment) -> FetchRequest | None:
        """What to ask for because somebody waits; to be reported on. None: nothing now."""
        if now.mono < self._hears_from:
            return None
        guilds = (self._guilds[guild_id] for guild_id in self._open)
        found = next((guild for guild in guilds if guild.is_due(now.mono) and not guild.is_blind), None)
        return self._wish(found) if found else None

    def background(self, now: Moment) -> FetchRequest | None:
        """What to ask for that nobody waits for; to be reported on. None: nothing now."""
        if now.mono < self._hears_from:
            return None
        guilds = (self._guilds[guild_id] for guild_id in self._missed)
        found = next((guild for guild in guilds if guild.is_due(now.mono) or guild.is_stale(now.mono)), None)
        while found is None and self._unknown:
            guild = self._guild(next(iter(self._unknown)), now)
            del self._unknown[guild.id]
            if guild.account is None and guild.asking is None and guild.may_ask(now.mono):
                guild.account = InviteCounts()
                found = guild
        return self._wish(found) if found else None

    def _wish(self, guild: Guild) -> FetchRequest:
        assert guild.account is not None
        self._missed.pop(guild.id, None)
        guild.asking = FetchRequest(guild.id, guild.vanity is not False, guild.account)
        return guild.asking

    def sent(self, wish: FetchRequest, now: Moment) -> None:
        """The request goes out now: whoever joined before is counted in its answer."""
        guild = self._guilds.get(wish.guild)
        if guild is not None and guild.account is wish.account:
            wish.account.asked(now.mono)
            guild.requests += 1

    def told(self, wish: FetchRequest, counts: dict[str, Invite], now: Moment) -> None:
        """The answer: the guild's invites by code, the vanity URL by VANITY."""
        guild = self._answered(wish)
        if guild is None:
            return
        account, guild.failures, guild.held_up_by = wish.account, 0, Reason.BURST
        account.told(counts, now.mono)
        if wish.vanity:
            guild.vanity = VANITY in counts
        guild.ask_at = now.mono + PAUSES_S[min(guild.requests, len(PAUSES_S) - 1)]
        self._open[guild.id] = None
        if not account.is_covered:
            if account.blind:
                self._missed[guild.id] = None
            elif guild.ask_at - now.mono > self.patience_s:
                self._release(guild, Reason.BURST)
        self._weigh(guild)

    def failed(self, wish: FetchRequest, reason: Reason, now: Moment, retry_after_s: float = 0.0) -> None:
        """There is no answer. NO_PERMISSION: Discord refused."""
        guild = self._answered(wish)
        if guild is None:
            return
        if reason is Reason.NO_PERMISSION:
            guild.denied_until = now.mono + DENIED_S
            self._deny(guild)
            return
        wish.account.unanswered()
        guild.failures, guild.held_up_by = guild.failures + 1, reason
        pause_s = max(retry_after_s, doubled_s(RETRY_FIRST_S, RETRY_MAX_S, guild.failures))
        guild.ask_at = now.mono + min(RETRY_MAX_S, pause_s)
        if guild.is_blind or wish.account.refresh_at < NEVER:
            self._missed[guild.id] = None
        if guild.is_blind:
            return
        if guild.failures >= FAILURES_MAX:
            self._spoil(guild, reason)
        else:
            self._release(guild, reason)

    def stalled(self, wish: FetchRequest, until: float) -> None:
        """The request will not go out before `until`, and nobody will wait for so long."""
        guild = self._guilds.get(wish.guild)
        if guild is not None and guild.asking is wish and not guild.is_blind:
            guild.ask_at, guild.held_up_by = until, Reason.RATE_LIMITED
            self._release(guild, Reason.RATE_LIMITED)

    def _answered(self, wish: FetchRequest) -> Guild | None:
        """The guild of an answer; None when it is not about the account that asked any more."""
        guild = self._guilds.get(wish.guild)
        if guild is None or guild.asking is not wish:
            return None
        guild.asking = None
        return guild if guild.account is wish.account else None

    # --- time ---------------------------------------------------------------------------------------------------

    def tick(self, now: Moment) -> None:
        """Ends the rounds that are settled, or that last too long; keeps the counts of quiet guilds."""
        for guild in [self._guilds[guild_id] for guild_id in self._open]:
            account = guild.account
            if account is None or (account.blind and not account.is_covered):
                del self._open[guild.id]
            elif max(account.settles_at, self._hears_from) <= now.mono:
                self._close(guild, now)
            elif not account.blind and account.joins and now.mono >= guild.opened_at + ROUND_MAX_S:
                self._spoil(guild, Reason.BURST)
        self._keep_quiet(now)

    def deadline(self, now: Moment) -> float:
        """When `tick`, or another urgent wish, is due; infinity for never."""
        found = next(iter(self._unkept.values()), NEVER)
        for guild_id in self._open:
            guild = self._guilds[guild_id]
            account = guild.account
            if account is None:
                continue
            found = min(found, max(account.settles_at, self._hears_from))
            if not account.blind and account.joins:
                found = min(found, guild.opened_at + ROUND_MAX_S)
            ask_at = max(guild.ask_at, self._hears_from)
            if guild.asking is None and ask_at > now.mono:
                found = min(found, ask_at)
        return found

    def background_at(self, now: Moment) -> float:
        """When another background wish is due; infinity for never."""
        found = self._hears_from if self._unknown and self._hears_from > now.mono else NEVER
        for guild_id in self._missed:
            guild = self._guilds[guild_id]
            if guild.account is None or guild.asking is not None:
                continue
            ask_at = guild.ask_at if guild.is_busy or guild.is_blind else max(guild.ask_at, guild.account.refresh_at)
            ask_at = max(ask_at, self._hears_from)
            if ask_at > now.mono:
                found = min(found, ask_at)
        return found

    def effects(self) -> list[Effect]:
        """What is to be done since the last time."""
        found, self._effects = self._effects, []
        return found

    def _close(self, guild: Guild, now: Moment) -> None:
        assert guild.account is not None
        for join, verdict in guild.account.close(now.mono):
            for handle in join.handles:
                self._tell(guild, join.user, handle, verdict)
        del self._open[guild.id]
        if guild.account.refresh_at < NEVER:
            self._missed[guild.id] = None
        self._keep_later(guild, now)

    def _spoil(self, guild: Guild, reason: Reason) -> None:
        """Gives up on everybody in the round; the counts are fetched anew, and an answer under way is not believed."""
        guild.asking = None
        if guild.account is None:
            return
        was_blind = guild.account.blind
        for join in guild.account.spoil():
            for handle in () if was_blind else join.handles:
                self._tell(guild, join.user, handle, Unknown(reason))
        self._open.pop(guild.id, None)
        self._missed[guild.id] = None

    def _drop(self, guild: Guild, reason: Reason) -> None:
        """Gives up on everybody in the round, and forgets the counts."""
        self._withdraw(guild)
        self._spoil(guild, reason)
        guild.account = None
        for queue in (self._missed, self._unknown, self._unkept):
            queue.pop(guild.id, None)
        self._weigh(guild)

    def _release(self, guild: Guild, reason: Reason) -> None:
        """Nobody in the round shall wait any longer."""
        assert guild.account is not None
        for join in guild.account.joins.values():
            for handle in join.handles:
                if handle not in guild.told:
                    guild.told.add(handle)
                    self._tell(guild, join.user, handle, Unknown(reason), final=False)

    def _tell(self, guild: Guild, user: str, handle: int, verdict: Attribution, *, final: bool = True) -> None:
        self._effects.append(Report(handle, guild.id, user, verdict, final))

    # --- memory -------------------------------------------------------------------------------------------------

    def _keep(self, guild: Guild, state: bytes | None, *, counts: bool = False) -> None:
        """PersistCounts this of the guild instead of what was; `counts`: it says how often invites were used."""
        if self._keeps:
            self._effects.append(PersistCounts(guild.id, state, urgent=guild.is_kept and not counts))
            guild.is_kept = counts

    def _withdraw(self, guild: Guild) -> None:
        """The counts that are kept of the guild are true no longer."""
        if guild.is_kept:
            self._keep(guild, WANTED_BY[guild.vanity])

    def _keep_later(self, guild: Guild, now: Moment) -> None:
        if self._keeps:
            self._unkept.pop(guild.id, None)
            self._unkept[guild.id] = now.mono + QUIET_S

    def part(self, now: Moment) -> None:
        """The shard is given away: its next owner may have what is known, and nobody is kept waiting for the rest."""
        for guild_id in self._unkept:
            self._unkept[guild_id] = now.mono
        self._keep_quiet(now)
        self._hears_from = NEVER
        for guild_id in list(self._open):
            self._spoil(self._guilds[guild_id], Reason.INTERRUPTED)

    def _keep_quiet(self, now: Moment) -> None:
        while self._unkept:
            guild_id, due = next(iter(self._unkept.items()))
            if due > now.mono:
                return
            del self._unkept[guild_id]
            guild = self._guilds.get(guild_id)
            if guild is None or guild.account is None or guild.is_blind or guild.is_busy:
                continue
            if guild.account.refresh_at < NEVER:
                # Whoever looks for it again looks after it is settled.
                continue
            self._keep(guild, encode_counts(guild.account.counts, self._session), counts=True)

    def _weigh(self, guild: Guild) -> None:
        weight = len(guild.account.counts) if guild.account else 0
        self._held += weight - guild.weight
        guild.weight = weight
        self._limit_memory()

    def _limit_memory(self) -> None:
        """Forgets the counts, and then the guilds, that were not needed for longest."""
        if self._held > COUNTS_MAX:
            for guild in list(self._guilds.values()):
                if guild.weight and not guild.is_busy:
                    guild.account, self._held, guild.weight = None, self._held - guild.weight, 0
                    self._open.pop(guild.id, None)
                if self._held <= COUNTS_MAX:
                    break
        while len(self._guilds) > GUILDS_MAX:
            oldest = next(iter(self._guilds.values()))
            self._drop(oldest, Reason.NO_BASELINE)
            del self._guilds[oldest.id]
